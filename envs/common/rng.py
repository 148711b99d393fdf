"""Counter-based random numbers: a draw depends on (seed, episode, step, tag) and on nothing else.

Environment i of the N of a run plays episodes i, i + N, i + 2N, ... Each episode has its own stream, so an episode is
the same whatever N is, whatever other episodes do and whatever the policy is, on CPU and GPU alike, and the
state of the generator is a few integers per environment. The mixing function is the finalizer of SplitMix64
(Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from envs.common.ranks import ALONE, Share

_MASK64 = (1 << 64) - 1


def _signed(value: int) -> int:
    """The int64 with the same 64 bits."""
    value &= _MASK64
    return value - (1 << 64) if value >> 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX1 = _signed(0xBF58476D1CE4E5B9)
_MIX2 = _signed(0x94D049BB133111EB)


def mix(z: Tensor) -> Tensor:
    """SplitMix64's finalizer, elementwise on int64 (arithmetic wraps; shifts are made logical by a mask)."""
    z = (z >> 30).bitwise_and_((1 << 34) - 1).bitwise_xor_(z).mul_(_MIX1)
    z = (z >> 27).bitwise_and_((1 << 37) - 1).bitwise_xor_(z).mul_(_MIX2)
    return (z >> 31).bitwise_and_((1 << 33) - 1).bitwise_xor_(z)


_AHEAD = 8  # most steps that `EpisodeRandom.mixed` draws at a time
_AT_ONCE = 100_000  # numbers that it draws at a time: what the processor's cache holds while they are computed


@dataclass
class _Block:
    """Numbers drawn ahead, good as long as an environment goes on in its episode step by step."""

    key: Tensor  # [N] the streams they come from
    start: Tensor  # [N] step of the first ones
    uniform: Tensor  # [N, _AHEAD, uniforms]
    normal: Tensor  # [N, _AHEAD, normals]

    def ahead(self, key: Tensor, step: Tensor) -> tuple[int, Tensor | None]:
        """Which of the numbers belong to a step [N], and the rows that hold others (None: no row does).

        A row that goes on shows how far the block has advanced; -1 where it is used up or no row goes on.
        """
        steps = self.uniform.shape[1]
        if self.key is key:
            ahead = int(step[0] - self.start[0])
            if 0 <= ahead < steps and torch.equal(step, self.start + ahead):
                return ahead, None
        offset = torch.where(self.key == key, step - self.start, -1)
        ahead = int(offset.max())
        if not 0 <= ahead < steps:
            return -1, None
        return ahead, (offset != ahead).nonzero()[:, 0]


class _Request(NamedTuple):
    """Numbers that every episode has of its own."""

    tag: str
    size: int
    normal: bool


class _EpisodeNumbers:
    """All numbers of episodes that were ever asked for, drawn in one pass: many small draws cost more than a large one.

    Args:
        requests: what was asked for.
        offsets: of a tag and a number of draws, in the stream of an episode.
        device: where draws are made.

    Attributes:
        columns: where the numbers of each request lie.
    """

    def __init__(self, requests: list[_Request], offsets: Callable[[str, int], Tensor], device: torch.device) -> None:
        ends = list(itertools.accumulate(r.size for r in requests))
        self.columns = {r: slice(end - r.size, end) for r, end in zip(requests, ends, strict=True)}
        uniform = [offsets(r.tag, r.size) for r in requests if not r.normal]
        normal = [offsets(r.tag, r.size + r.size % 2).chunk(2) for r in requests if r.normal]
        first, second = ([pair[i] for pair in normal] for i in (0, 1))
        nothing = torch.zeros(0, dtype=torch.int64, device=device)
        self._offsets = torch.cat([nothing, *uniform, *first, *second])
        self._uniforms, self._pairs = sum(map(len, uniform)), sum(map(len, first))
        # Where a draw puts the numbers of each request: uniform ones, cosines of pairs, sines of pairs.
        order, uniforms, pairs = [], 0, self._uniforms
        for r in requests:
            if not r.normal:
                order += range(uniforms, uniforms + r.size)
                uniforms += r.size
                continue
            half = (r.size + 1) // 2
            order += [*range(pairs, pairs + half), *range(pairs + self._pairs, pairs + self._pairs + half)][: r.size]
            pairs += half
        self._order = None if order == list(range(len(order))) else torch.tensor(order, device=device)
        self._key: Tensor | None = None
        self._numbers = torch.zeros(0, 0)

    def of(self, key: Tensor) -> Tensor:
        """Numbers [N, all requests] of the streams key [N]; only those of new streams are drawn."""
        if self._key is None:
            self._numbers = self.draw(key)
        elif self._key is not key:
            begun = (self._key != key).nonzero()[:, 0]
            self._numbers.index_copy_(0, begun, self.draw(key[begun]))
        self._key = key
        return self._numbers

    def draw(self, key: Tensor) -> Tensor:
        """Numbers [n, all requests] of streams [n]."""
        numbers = _uniform(mix(key[:, None] + self._offsets))
        if self._pairs:
            normal = _box_muller(numbers[:, self._uniforms :], self._pairs)
            numbers = torch.cat((numbers[:, : self._uniforms], normal), dim=1) if self._uniforms else normal
        return numbers if self._order is None else numbers[:, self._order]


class EpisodeRandom:
    """Random numbers for N environments, one stream per episode.

    Args:
        seed: of the whole run.
        num_envs: N.
        device: where draws are made.
        share: which environments of a run on many ranks these N are; None: all.
    """

    def __init__(
        self, seed: int, num_envs: int, device: torch.device | str = "cpu", share: Share | None = None
    ) -> None:
        self.num_envs = num_envs
        self._share = share or ALONE.share(num_envs)
        self.device = torch.device(device)
        self._tags: dict[tuple[str, int], Tensor] = {}
        self._blocks: dict[tuple[str, int, int], _Block] = {}
        self._episodes = _EpisodeNumbers([], self._offsets, self.device)
        self._alone: dict[_Request, _EpisodeNumbers] = {}
        self._seed = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.episode = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._key = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._step: Tensor = self._key
        self._step_key: Tensor | None = None  # computed when a draw needs it
        self.seed(seed, torch.ones(num_envs, dtype=torch.bool, device=self.device))

    @property
    def stream(self) -> Tensor:
        """[N] int64, what each environment's present episode draws from; it changes when the episode does."""
        return self._key

    def seed(self, seed: int, mask: Tensor) -> None:
        """Start again at the first episode of `seed`, in the environments of `mask` [N]."""
        value = mix(torch.tensor(_signed(seed * 0x9E3779B97F4A7C15 + 1), device=self.device))
        self._seed = torch.where(mask, value, self._seed)
        first = torch.arange(self.num_envs, device=self.device) + self._share.start
        first -= self._share.total  # next_episode adds it
        self.episode = torch.where(mask, first, self.episode)

    def next_episode(self, mask: Tensor) -> None:
        """Give the environments of `mask` [N] their next episode's stream."""
        self.episode = self.episode + self._share.total * mask
        self._key = torch.where(mask, mix(self._seed + self.episode * _GOLDEN), self._key)
        self.set_step(torch.where(mask, 0, self._step))

    def set_step(self, step: Tensor) -> None:
        """Name the control step [N] that draws belong to; every step has numbers of its own."""
        self._step, self._step_key = step.clone(), None

    def uniform(self, tag: str, size: int) -> Tensor:
        """Uniform numbers [N, size] in (0, 1), float64. The same (step, tag) gives the same numbers again."""
        if self._step_key is None:
            self._step_key = mix(self._key + (self._step + 1) * _MIX1)
        return _uniform(mix(self._step_key[:, None] + self._offsets(tag, size)))

    def normal(self, tag: str, size: int) -> Tensor:
        """Standard normal numbers [N, size], float64 (Box-Muller)."""
        half = (size + 1) // 2
        return _box_muller(self.uniform(tag, 2 * half), half)[:, :size]

    def mixed(self, tag: str, uniforms: int, normals: int) -> tuple[Tensor, Tensor]:
        """Uniform [N, uniforms] and standard normal [N, normals] numbers of the step in one draw.

        Made for many numbers in every step: the normal ones are computed in float32.
        """
        name = (tag, uniforms, normals)
        if self.device.type != "cpu":  # looking at the step would stall a GPU, where small operations overlap anyway
            return self._mixed(name, mix(self._key + (self._step + 1) * _MIX1))
        block = self._blocks.get(name)
        ahead, stale = (-1, None) if block is None else block.ahead(self._key, self._step)
        if block is None or ahead < 0:
            count = min(max(_AT_ONCE // max(self.num_envs * (uniforms + normals), 1), 1), _AHEAD)
            block, ahead = _Block(self._key, self._step, *self._draw_ahead(name, self._key, self._step, count)), 0
            self._blocks[name] = block
        elif stale is not None:
            # Episodes began since: only their rows are drawn again.
            step = self._step[stale]
            uniform, normal = self._draw_ahead(name, self._key[stale], step, block.uniform.shape[1] - ahead)
            block.uniform[stale, ahead:], block.normal[stale, ahead:] = uniform, normal
            block.start = block.start.index_copy(0, stale, step - ahead)
            block.key = self._key
        return block.uniform[:, ahead], block.normal[:, ahead]

    def quick_normal(self, tag: str, size: int, rows: Tensor | None = None) -> Tensor:
        """Standard normal numbers [N, size] of the step, computed in float32; those of `mixed`, of which none are kept.

        With rows, indices, only for those environments: [number of rows, size].
        """
        key, step = (self._key, self._step) if rows is None else (self._key[rows], self._step[rows])
        return self._mixed((tag, 0, size), mix(key + (step + 1) * _MIX1))[1]

    def _draw_ahead(self, name: tuple[str, int, int], key: Tensor, step: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """What `mixed` gives in `count` steps from `step` [n] on, in one pass: many small operations cost more."""
        return self._mixed(name, mix(key[:, None] + (step[:, None] + torch.arange(1, count + 1)) * _MIX1))

    def _mixed(self, name: tuple[str, int, int], step_key: Tensor) -> tuple[Tensor, Tensor]:
        """What `mixed` gives for keys [...] of steps: [..., uniforms] and [..., normals]."""
        tag, uniforms, normals = name
        bits = mix(step_key[..., None] + self._offsets(tag, uniforms + (normals + 1) // 2))
        return _uniform(bits[..., :uniforms]), _quick_normal(bits[..., uniforms:])[..., :normals]

    def episode_uniform(self, tag: str, size: int, rows: Tensor | None = None) -> Tensor:
        """Uniform numbers [N, size] in (0, 1) that belong to the episode, whatever the step.

        With rows, a mask [N] or indices, only for those environments: [number of rows, size].
        """
        return self._of_episodes(_Request(tag, size, normal=False), rows)

    def episode_normal(self, tag: str, size: int, rows: Tensor | None = None) -> Tensor:
        """Standard normal numbers [N, size] that belong to the episode, whatever the step; rows as above."""
        return self._of_episodes(_Request(tag, size, normal=True), rows)

    def _of_episodes(self, request: _Request, rows: Tensor | None) -> Tensor:
        """Numbers [N or number of rows, size]. On a CPU those of episodes that go on are kept from call to call."""
        if self.device.type != "cpu":  # looking at which episodes are new would stall a GPU
            if request not in self._alone:
                self._alone[request] = _EpisodeNumbers([request], self._offsets, self.device)
            key = self._key if rows is None else self._key[rows]
            return self._alone[request].draw(key)[:, : request.size]
        if request not in self._episodes.columns:
            self._episodes = _EpisodeNumbers([*self._episodes.columns, request], self._offsets, self.device)
        numbers = self._episodes.of(self._key)[:, self._episodes.columns[request]]
        return numbers.clone() if rows is None else numbers[rows]

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self._seed, "episode": self.episode, "key": self._key, "step": self._step.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._seed, self.episode = state["seed"].clone(), state["episode"].clone()
        self._key = state["key"].clone()
        self.set_step(state["step"].clone())

    def _offsets(self, tag: str, size: int) -> Tensor:
        key = (tag, size)
        if key not in self._tags:
            start = _signed(zlib.crc32(tag.encode()) * 0x9E3779B97F4A7C15)
            self._tags[key] = mix(start + torch.arange(1, size + 1, device=self.device) * _GOLDEN)
        return self._tags[key]


def _uniform(bits: Tensor) -> Tensor:
    """The upper 52 bits as a float64 in (0, 1); with 53 the largest would round to 1.

    As the mantissa of a number in [1, 2), less 1 - 2^-53: processors convert integers of 64 bits slowly.
    """
    mantissa = (bits >> 12).bitwise_and_((1 << 52) - 1).bitwise_or_(0x3FF << 52)
    return mantissa.view(torch.float64).sub_(1.0 - 2.0**-53)


def _box_muller(u: Tensor, half: int) -> Tensor:
    radius = torch.log(u[..., :half]).mul_(-2.0).sqrt_()
    angle = (2.0 * math.pi) * u[..., half:]
    return torch.cat((torch.cos(angle).mul_(radius), torch.sin(angle).mul_(radius)), dim=-1)


def _quick_normal(bits: Tensor) -> Tensor:
    """Two standard normal numbers for each of k random integers: [..., 2 k] float64, computed in float32.

    Box-Muller on the integers' halves; the largest that can come out is 6.7.
    """
    halves = bits.view(torch.int32).float()  # [..., 2 k] in [-2^31, 2^31)
    first, second = halves.chunk(2, dim=-1)
    radius = first.abs().add_(0.5).mul_(2.0**-31).log_().mul_(-2.0).sqrt_()
    angle = second * (math.pi * 2.0**-31)
    return torch.cat((torch.cos(angle).mul_(radius), torch.sin(angle).mul_(radius)), dim=-1).double()
