"""What a camera does to a picture, by pixels worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from randomization.visual.image_filters import (
    ImageFilter,
    add_noise,
    blur,
    colour_matrix,
    gaussian,
    postprocess,
    recolour,
)

RED, GREEN, BLUE = np.eye(3)
GREY = np.full(3, 0.4)


def number(value: float) -> Tensor:
    """The number of one picture, [1]."""
    return torch.tensor([value], dtype=torch.float64)


def matrix(hue: float, saturation: float) -> np.ndarray:
    """`colour_matrix` of one picture."""
    return colour_matrix(number(hue), number(saturation))[0].numpy()


def recoloured(picture: Tensor, brightness: float = 0.0, contrast: float = 1.0) -> Tensor:
    """One picture with its colours' hue and saturation as they are."""
    return recolour(picture[None], number(0.0), number(1.0), number(brightness), number(contrast))[0]


def processed(picture: np.ndarray, most_blur: float = 0.0, **numbers: float) -> np.ndarray:
    """One picture of bytes after a filter."""
    how = ImageFilter(most_blur=most_blur, **{name: number(value) for name, value in numbers.items()})
    return postprocess(torch.from_numpy(picture)[None], how)[0].numpy()


def test_a_third_of_a_turn_of_hue_takes_red_to_green_to_blue_and_keeps_grey() -> None:
    third = matrix(1.0 / 3.0, 1.0)
    np.testing.assert_allclose(third @ RED, GREEN, atol=1e-12)
    np.testing.assert_allclose(third @ GREEN, BLUE, atol=1e-12)
    np.testing.assert_allclose(third @ GREY, GREY, atol=1e-12)
    # Half a turn mirrors red at the grey (1/3, 1/3, 1/3): 2 / 3 - (1, 0, 0)
    np.testing.assert_allclose(matrix(0.5, 1.0) @ RED, [-1 / 3, 2 / 3, 2 / 3], atol=1e-12)


def test_without_saturation_a_colour_becomes_its_luma() -> None:
    np.testing.assert_allclose(matrix(0.0, 0.0) @ np.array([1.0, 0.5, 0.0]), np.full(3, 0.5925), atol=1e-12)
    # halfway: (0.299 + 1) / 2, 0.299 / 2, 0.299 / 2
    np.testing.assert_allclose(matrix(0.0, 0.5) @ RED, [0.6495, 0.1495, 0.1495], atol=1e-12)


def test_contrast_acts_about_mid_grey_and_brightness_is_added() -> None:
    picture = torch.tensor([[[0.25, 0.5, 0.75]]], dtype=torch.float64)
    np.testing.assert_allclose(recoloured(picture, contrast=2.0), [[[0.0, 0.5, 1.0]]], atol=1e-12)
    np.testing.assert_allclose(recoloured(picture, brightness=0.1), [[[0.35, 0.6, 0.85]]], atol=1e-12)
    # 3 * (x - 0.5) + 0.5 + 0.2 = -0.05, 0.7, 1.45, clipped
    np.testing.assert_allclose(recoloured(picture, contrast=3.0, brightness=0.2), [[[0.0, 0.7, 1.0]]], atol=1e-12)


def test_blur_spreads_a_point_as_a_gaussian_and_keeps_what_is_even() -> None:
    weights = gaussian(number(0.5), 2)[0]  # exp(-8), exp(-2), 1, exp(-2), exp(-8) over their sum 1.27134
    np.testing.assert_allclose(weights, [0.00026386, 0.10645, 0.78657, 0.10645, 0.00026386], atol=1e-5)
    point = torch.zeros(1, 7, 9, 3, dtype=torch.float64)
    point[0, 3, 4] = 1.0
    for most_px in (0.5, 1.0):  # however far a blur might have reached
        blurred = blur(point, number(0.5), most_px)
        np.testing.assert_allclose(blurred[0, 1:6, 2:7, 0], np.outer(weights, weights), atol=1e-12)
        assert float(blurred.sum()) == pytest.approx(3.0)
    even = torch.full((2, 5, 6, 3), 0.3, dtype=torch.float64)  # two pictures
    np.testing.assert_allclose(blur(even, torch.tensor([1.3, 0.7]), 1.3), even, atol=1e-12)


def test_noise_has_its_deviation() -> None:
    grey = torch.full((2, 200, 200, 3), 0.5, dtype=torch.float64)
    normal = torch.randn(2, 120_000, generator=torch.Generator().manual_seed(3))
    noisy = add_noise(grey, torch.tensor([0.1, 0.0]), normal)
    assert float((noisy - grey)[0].std()) == pytest.approx(0.1, rel=0.01)  # 120,000 values: 0.2 % standard error
    assert abs(float((noisy - grey)[0].mean())) < 4.5 * 0.1 / 120_000**0.5
    assert torch.equal(noisy[1], grey[1])


def test_bytes_are_rounded_and_no_filter_changes_nothing() -> None:
    picture = np.array([[[0, 51, 255]]], dtype=np.uint8)  # 0, 0.2, 1
    pictures = torch.from_numpy(picture)[None]
    assert postprocess(pictures, ImageFilter()) is pictures
    # contrast 0.5: 0.25, 0.35, 0.75 -> 63.75, 89.25, 191.25
    np.testing.assert_array_equal(processed(picture, contrast=0.5), [[[64, 89, 191]]])
    # brightness 0.1: 0.1, 0.3, 1.1 -> 25.5 (to even: 26), 76.5 (76), 255 after clipping; float32 may differ by one
    np.testing.assert_allclose(processed(picture, brightness=0.1), [[[26, 76, 255]]], atol=1)


def test_blur_is_a_share_of_the_height() -> None:
    picture = np.zeros((100, 80, 3), dtype=np.uint8)
    picture[50, 40] = 255
    # sigma 1 px: the centre keeps 1 / (2 pi) of it, 0.3989^2 = 0.1592 -> 40.6
    assert processed(picture, most_blur=0.02, blur=0.01)[50, 40, 0] == 41


def test_each_picture_has_numbers_of_its_own() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    numbers = {"hue": (0.0, 0.2, -0.4), "saturation": (1.0, 0.3, 1.8), "brightness": (0.0, -0.1, 0.2)}
    numbers |= {"contrast": (1.0, 0.6, 1.5), "blur": (0.0, 0.03, 0.08)}
    how = ImageFilter(most_blur=0.1, **{name: torch.tensor(column) for name, column in numbers.items()})
    together = postprocess(torch.from_numpy(pictures), how).numpy()
    for i, alone in enumerate(zip(*numbers.values(), strict=True)):
        one = processed(pictures[i], most_blur=0.1, **dict(zip(numbers, alone, strict=True)))
        np.testing.assert_allclose(together[i], one.astype(float), atol=1.0)
    np.testing.assert_array_equal(together[0], pictures[0])
