"""Updates get as many threads as pay at present; a container's quota of processors counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from envs.platform.processors import available_threads, processor_quota
from simreal.training.updates.threads import ThreadChoice, UpdateThreads

Machine = Callable[[int], float]  # threads -> seconds of a piece of work


def alone(threads: int) -> float:
    """Two threads pay, more do not."""
    return {1: 5.3e-3, 2: 4.3e-3, 4: 5.0e-3, 8: 6.0e-3}[threads]


def beside_others(threads: int) -> float:
    """What was measured beside one busy process on two processors; more threads wait longer."""
    return {1: 5.8e-3, 2: 37e-3, 4: 60e-3, 8: 90e-3}[threads]


def play(choice: ThreadChoice, machine: Machine, seconds: float) -> tuple[int, float]:
    """Work for a while; returns the pieces done and the time that they took."""
    count, total = 0, 0.0
    while total < seconds:
        took = machine(choice.choose())
        choice.took(took)
        count, total = count + 1, total + took
    return count, total


def test_alone_nothing_is_lost_to_trials() -> None:
    choice = ThreadChoice(2, first=2)
    count, total = play(choice, alone, 10.0)
    assert choice.usual == 2
    assert total / count < 1.02 * alone(2)


def test_beside_a_busy_process_one_thread_is_found_and_kept() -> None:
    choice = ThreadChoice(2, first=2)
    play(choice, alone, 5.0)
    count, total = play(choice, beside_others, 10.0)
    assert choice.usual == 1
    assert total / count < 1.06 * beside_others(1)


def test_two_threads_come_back_when_the_machine_is_free_again() -> None:
    choice = ThreadChoice(2, first=2)
    play(choice, beside_others, 20.0)
    count, total = play(choice, alone, 10.0)
    assert choice.usual == 2
    assert total / count < 1.1 * alone(2)


def test_with_many_processors_the_best_number_is_reached_step_by_step() -> None:
    for first in (1, 8):
        choice = ThreadChoice(8, first)
        play(choice, alone, 5.0)
        assert choice.usual == 2


def test_a_single_slow_piece_changes_nothing() -> None:
    choice = ThreadChoice(2, first=2)
    for number in range(400):
        threads = choice.choose()
        choice.took(20e-3 if number % 50 == 49 else alone(threads))
        assert choice.usual == 2


def test_a_fixed_number_stays_and_torch_gets_one_thread_in_between() -> None:
    threads = UpdateThreads(8, first=2, adaptive=False)
    for _ in range(20):
        threads.begin()
        threads.step()
        assert torch.get_num_threads() == 2
        threads.end()
        assert torch.get_num_threads() == 1


def test_what_follows_the_last_step_of_an_update_is_not_taken_for_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("simreal.training.updates.threads.time.perf_counter", lambda: now)
    taken: list[float] = []
    threads = UpdateThreads(1, first=1, adaptive=True)
    monkeypatch.setattr(ThreadChoice, "took", lambda _, seconds: taken.append(seconds))
    for steps in (3, 1):
        threads.begin()
        for _ in range(steps):
            now += 7.0  # sampling a batch
            threads.step()
            now += 1.0
        now += 100.0
        threads.end()
    assert taken == [8.0, 8.0, 101.0]


def _group(root: Path, path: str, **files: str) -> None:
    (root / path).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / path / name.replace("__", ".")).write_text(text)


def test_the_quota_is_the_smallest_of_the_control_groups_above(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/pod/container\n")
    groups = tmp_path / "groups"
    _group(groups, "pod/container", cpu__max="max 100000\n")
    assert processor_quota(groups, own) is None
    _group(groups, "pod", cpu__max="250000 100000\n")
    assert processor_quota(groups, own) == 2.5
    _group(groups, "pod/container", cpu__max="150000 100000\n")
    assert processor_quota(groups, own) == 1.5


def test_the_first_version_of_control_groups_is_read_too(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("5:memory:/job\n4:cpu,cpuacct:/job\n")
    _group(tmp_path, "cpu/job", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert processor_quota(tmp_path, own) is None
    _group(tmp_path, "cpu/job", cpu__cfs_quota_us="300000\n")
    assert processor_quota(tmp_path, own) == 3.0


def test_threads_are_at_least_one_and_at_most_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    for quota, expected in ((None, 8), (2.0, 2), (0.2, 1), (64.0, 8)):
        monkeypatch.setattr("envs.platform.processors.os.sched_getaffinity", lambda _: set(range(8)), raising=False)
        monkeypatch.setattr("envs.platform.processors.processor_quota", lambda *_, q=quota: q)
        assert available_threads() == expected
