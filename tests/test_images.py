"""What a camera does to a picture, by pixels worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from randomization.images import Development, add_noise, blur, colour_matrix, gaussian, process, recolour

RED, GREEN, BLUE = np.eye(3)
GREY = np.full(3, 0.4)


def test_a_third_of_a_turn_of_hue_takes_red_to_green_to_blue_and_keeps_grey() -> None:
    third = colour_matrix(1.0 / 3.0, 1.0)
    np.testing.assert_allclose(third @ RED, GREEN, atol=1e-12)
    np.testing.assert_allclose(third @ GREEN, BLUE, atol=1e-12)
    np.testing.assert_allclose(third @ GREY, GREY, atol=1e-12)
    # Half a turn mirrors red at the grey (1/3, 1/3, 1/3): 2 / 3 - (1, 0, 0)
    np.testing.assert_allclose(colour_matrix(0.5, 1.0) @ RED, [-1 / 3, 2 / 3, 2 / 3], atol=1e-12)


def test_without_saturation_a_colour_becomes_its_luma() -> None:
    np.testing.assert_allclose(colour_matrix(0.0, 0.0) @ np.array([1.0, 0.5, 0.0]), np.full(3, 0.5925), atol=1e-12)
    # halfway: (0.299 + 1) / 2, 0.299 / 2, 0.299 / 2
    np.testing.assert_allclose(colour_matrix(0.0, 0.5) @ RED, [0.6495, 0.1495, 0.1495], atol=1e-12)


def test_contrast_acts_about_mid_grey_and_brightness_is_added() -> None:
    picture = np.array([[[0.25, 0.5, 0.75]]])
    np.testing.assert_allclose(recolour(picture, contrast=2.0), [[[0.0, 0.5, 1.0]]], atol=1e-12)
    np.testing.assert_allclose(recolour(picture, brightness=0.1), [[[0.35, 0.6, 0.85]]], atol=1e-12)
    # 3 * (x - 0.5) + 0.5 + 0.2 = -0.05, 0.7, 1.45, clipped
    np.testing.assert_allclose(recolour(picture, contrast=3.0, brightness=0.2), [[[0.0, 0.7, 1.0]]], atol=1e-12)


def test_blur_spreads_a_point_as_a_gaussian_and_keeps_what_is_even() -> None:
    weights = gaussian(0.5)  # radius 2: exp(-8), exp(-2), 1, exp(-2), exp(-8) over their sum 1.27134
    np.testing.assert_allclose(weights, [0.00026386, 0.10645, 0.78657, 0.10645, 0.00026386], atol=1e-5)
    point = np.zeros((7, 9, 3))
    point[3, 4] = 1.0
    blurred = blur(point, 0.5)
    np.testing.assert_allclose(blurred[1:6, 2:7, 0], np.outer(weights, weights), atol=1e-12)
    assert blurred.sum() == pytest.approx(3.0)
    even = np.full((2, 5, 6, 3), 0.3)  # two pictures
    np.testing.assert_allclose(blur(even, 1.3), even, atol=1e-12)


def test_noise_has_its_deviation_and_comes_from_its_seed() -> None:
    grey = np.full((200, 200, 3), 0.5)
    noisy = add_noise(grey, 0.1, seed=3)
    assert float((noisy - grey).std()) == pytest.approx(0.1, rel=0.01)  # 120,000 values: 0.2 % standard error
    assert abs(float((noisy - grey).mean())) < 4.5 * 0.1 / 120_000**0.5
    np.testing.assert_array_equal(noisy, add_noise(grey, 0.1, seed=3))
    assert not np.array_equal(noisy, add_noise(grey, 0.1, seed=4))


def test_bytes_are_rounded_and_defaults_change_nothing() -> None:
    picture = np.array([[[0, 51, 255]]], dtype=np.uint8)  # 0, 0.2, 1
    assert process(picture, Development(seed=5)) is picture
    # contrast 0.5: 0.25, 0.35, 0.75 -> 63.75, 89.25, 191.25
    np.testing.assert_array_equal(process(picture, Development(contrast=0.5)), [[[64, 89, 191]]])
    # brightness 0.1: 0.1, 0.3, 1.1 -> 25.5 (to even: 26), 76.5 (76), 255 after clipping; float32 may differ by one
    np.testing.assert_allclose(process(picture, Development(brightness=0.1)), [[[26, 76, 255]]], atol=1)


def test_blur_is_a_share_of_the_height() -> None:
    picture = np.zeros((100, 80, 3), dtype=np.uint8)
    picture[50, 40] = 255
    # sigma 1 px: the centre keeps 1 / (2 pi) of it, 0.3989^2 = 0.1592 -> 40.6
    assert process(picture, Development(blur=0.01))[50, 40, 0] == 41
