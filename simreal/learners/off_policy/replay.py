"""Replay of experience with hindsight relabelling (Andrychowicz et al. 2017, "future" strategy)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from simreal.common.errors import UserError
from simreal.learners.normalizer import Normalizer
from simreal.learners.off_policy.action_history import features
from simreal.learners.off_policy.hindsight import Hindsight

LAG = 16
"""Control steps after which experience counts. What a simulation shows in the last steps before it becomes unstable is
finite and means nothing, and so does all that its episode has shown: none of it is learnt from."""

_MOST_CONTRADICTIONS = 10


@dataclass(frozen=True)
class ReplayBatch:
    """Transitions for an update. Observations include the goal that the transition is learnt for."""

    observation: Tensor  # [B, nobs]
    action: Tensor  # [B, A]
    reward: Tensor  # [B]
    next_observation: Tensor  # [B, nobs]
    terminated: Tensor  # [B] 0 or 1; a truncated episode goes on, so it counts as 0

    def rows(self, start: int, stop: int) -> ReplayBatch:
        """Transitions start to stop."""
        return ReplayBatch(*(value[start:stop] for value in vars(self).values()))


class HerReplayBuffer:
    """The last `capacity` transitions of N environments, in float32; sampling relabels goals, vectorised.

    Transitions lie in one array [slots, N, row] with row = observation | next observation | action |
    next achieved goal | what does not follow from the goal, where goals are relabelled: rest of the reward, terminated
    for other reasons | reward | terminated, so that a batch is one gather, plus one for hindsight goals.

    Args:
        capacity: transitions kept over all environments.
        num_envs: N.
        observation_size: of the policy group; its last `goal_size` values are the desired goal.
        action_size: A.
        goal_size: 0 for tasks without goals.
        her_k: hindsight goals per original one ("future" strategy); 0 never relabels.
        hindsight: what follows from the goal; needed to relabel.
        past_size: values of the observation that come before those of the policy group: past actions.
        lag: steps that experience is held back, in which its simulation may prove unstable.
        device: where it lies.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        observation_size: int,
        action_size: int,
        goal_size: int = 0,
        her_k: float = 0.0,
        hindsight: Hindsight | None = None,
        past_size: int = 0,
        lag: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if her_k > 0 and (goal_size == 0 or hindsight is None):
            raise ValueError("hindsight relabelling needs a goal task, and what follows from its goals")
        self.num_envs, self.slots = num_envs, max(capacity // num_envs, 1)
        self.observation_size, self.action_size, self.goal_size = observation_size, action_size, goal_size
        self.relabel_probability = her_k / (1.0 + her_k)
        self.hindsight = hindsight if her_k > 0 else None
        self.past_size, self.lag = past_size, min(lag, self.slots - 1)
        self.device = torch.device(device)
        row = 2 * observation_size + action_size + goal_size + 2 + (2 if self.hindsight else 0)
        self._rows = torch.zeros(self.slots, num_envs, row, device=self.device)
        # Step index at which the episode of a slot ended; -1 while it goes on.
        self._end = torch.full((self.slots, num_envs), -1, dtype=torch.int64, device=self.device)
        self._valid = torch.zeros(self.slots, num_envs, dtype=torch.bool, device=self.device)
        # Whether a slot's next observation is the observation of the slot after it: a checkpoint has it once.
        self._follows = torch.zeros(self.slots, num_envs, dtype=torch.bool, device=self.device)
        self._start = torch.zeros(num_envs, dtype=torch.int64, device=self.device)  # of the present episodes
        self._time = 0  # steps added so far
        # Steps that agree with and contradict what is held to end an episode.
        self._evidence = torch.zeros(2, dtype=torch.int64, device=self.device)

    def __len__(self) -> int:
        """Transitions held."""
        return min(self._time, self.slots) * self.num_envs

    def add(
        self,
        observation: Tensor,
        action: Tensor,
        reward: Tensor,
        next_observation: Tensor,
        terminated: Tensor,
        done: Tensor,
        achieved_goal: Tensor | None = None,
        diverged: Tensor | None = None,
        success: Tensor | None = None,
    ) -> None:
        """Add one step of every environment.

        Args:
            observation, next_observation: [N, nobs]; the next one is the final one where an episode ended.
            action: [N, A].
            reward, terminated: [N].
            done: [N] bool, terminated or truncated: futures do not reach beyond it.
            achieved_goal: [N, G] reached by the step.
            diverged: [N] bool, the simulation became unstable: nothing of its episode is sampled any more.
            success: [N] bool, as the task sees it; to notice where goals end episodes otherwise than is thought.
        """
        slot = self._time % self.slots
        parts = [observation, next_observation, action]
        parts += [achieved_goal] if achieved_goal is not None else []
        if self.hindsight is not None:
            parts.append(self._apart(observation, reward, terminated, achieved_goal, success))
        scalars = torch.stack((reward.float(), terminated.float()), dim=1)
        self._rows[slot] = torch.cat([part.float() for part in parts] + [scalars], dim=1)
        self._note_what_follows(slot)
        self._end[slot] = -1
        self._valid[slot] = True
        if bool(done.any()):
            self._close(done, torch.zeros_like(done) if diverged is None else diverged)
        self._time += 1

    def _apart(
        self, observation: Tensor, reward: Tensor, terminated: Tensor, achieved: Tensor | None, success: Tensor | None
    ) -> Tensor:
        """Of a step, what does not follow from the goal [N, 2]: the rest of the reward, the end for other reasons."""
        assert self.hindsight is not None
        assert achieved is not None
        goal = observation[:, observation.shape[1] - self.goal_size :].to(achieved)
        ends = self.hindsight.terminated(achieved, goal)
        if success is not None:
            agrees = terminated == ends
            self._evidence += torch.stack(((agrees & (ends | success)).sum(), (~agrees & (ends | success)).sum()))
        return torch.stack((reward - self.hindsight.reward(achieved, goal), terminated & ~ends), dim=1)

    def _check_evidence(self) -> None:
        """Raise UserError if successes end episodes otherwise than is thought."""
        agree, contradict = self._evidence.tolist()
        if contradict >= _MOST_CONTRADICTIONS and contradict > agree:
            raise UserError(
                f"learner: hindsight: {contradict} of {agree + contradict} successes ended their episodes otherwise "
                "than the task let expect; implement its goal_terminated(achieved, desired), or set learner.her_k to 0"
            )

    def _note_what_follows(self, slot: int) -> None:
        """Compare the observation of a slot with the one that the step before it led to, bit by bit."""
        n, before = self.observation_size, (slot - 1) % self.slots
        self._follows[slot] = False
        if self._time > 0 and self.slots > 1:
            led_to, found = self._rows[before, :, n : 2 * n], self._rows[slot, :, :n]
            self._follows[before] = (led_to.view(torch.int32) == found.view(torch.int32)).all(dim=1)

    def _close(self, done: Tensor, diverged: Tensor) -> None:
        """Note the present step as the end of the episodes in `done` [N]; leave out those in `diverged` [N]."""
        envs = done.nonzero().squeeze(1)
        length = min(int((self._time - self._start[envs]).max()) + 1, self.slots)
        steps = self._time - torch.arange(length, device=self.device)[:, None]  # [length, 1], back from now
        inside = steps >= self._start[envs]
        slots = (steps % self.slots).expand(-1, len(envs))
        columns = envs.expand(length, -1)
        self._end[slots[inside], columns[inside]] = self._time
        spoilt = inside & diverged.to(self.device)[envs]
        self._valid[slots[spoilt], columns[spoilt]] = False
        self._start[envs] = self._time + 1

    def _ripe(self) -> int:
        """Steps whose experience counts. The lag grows with what is held, so that there is always some."""
        return self._time - min(self.lag, self._time // 2)

    def sound(self) -> bool:
        """Whether there is anything to sample."""
        ripe = self._ripe()
        if ripe and bool(self._valid[(ripe - 1) % self.slots].any()):  # nearly always
            return True
        waiting = torch.arange(ripe, self._time, device=self.device) % self.slots
        return bool(self._valid.sum() > self._valid[waiting].sum())

    def ripened(self) -> Tensor:
        """Observations [B, nobs] of the policy group that count since the last step was added. Where goals are
        relabelled, once more with the goal just achieved: networks see such goals too."""
        ripe = self._ripe()
        if ripe == self._time - 1 - min(self.lag, (self._time - 1) // 2):
            return self._rows[:0, 0, self.past_size : self.observation_size]
        slot = (ripe - 1) % self.slots
        rows, n = self._rows[slot][self._valid[slot]], self.observation_size
        observation = rows[:, self.past_size : n]
        if self.hindsight is None:
            return observation
        start = 2 * n + self.action_size
        relabelled = observation.clone()
        self._replace_goal(relabelled, rows[:, start : start + self.goal_size])
        return torch.cat((observation, relabelled))

    def sample(self, batch_size: int, generator: torch.Generator) -> ReplayBatch:
        """A batch drawn uniformly from what is held; a share k / (k + 1) is relabelled."""
        if self.hindsight is not None:
            self._check_evidence()
        draw, time, env, flat = self._draw(batch_size, generator)
        rows = self._rows.view(-1, self._rows.shape[-1]).index_select(0, flat)
        if self.relabel_probability > 0:
            end = self._end.view(-1)[flat]
            end = torch.where(end < 0, self._ripe() - 1, end)
            future = time + (draw[2] * (end - time + 1)).long()
            self._relabel(rows, (future % self.slots) * self.num_envs + env, draw[3] < self.relabel_probability)
        return self._batch(rows)

    def _draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Uniform numbers [4, count], and step, environment and flat index [count] of valid transitions."""
        oldest, ripe = max(self._time - self.slots, 0), self._ripe()
        parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        missing = count
        while missing > 0:
            draw = torch.rand(4, missing, generator=generator, device=self.device, dtype=torch.float64)
            time = oldest + (draw[0] * (ripe - oldest)).long()
            env = (draw[1] * self.num_envs).long()
            flat = (time % self.slots) * self.num_envs + env
            valid = self._valid.view(-1)[flat]
            if bool(valid.all()):
                parts.append((draw, time, env, flat))
                break
            # Rare: transitions of simulations that diverged. Draw again for those.
            if not parts and not self.sound():
                raise RuntimeError("no valid transition to sample")
            parts.append((draw[:, valid], time[valid], env[valid], flat[valid]))
            missing -= int(valid.sum())
        if len(parts) == 1:
            return parts[0]
        draws, *indices = zip(*parts, strict=True)
        return (torch.cat(draws, dim=1), *(torch.cat(part) for part in indices))  # pyright: ignore[reportReturnType]

    def _relabel(self, rows: Tensor, future: Tensor, chosen: Tensor) -> None:
        """Replace the goal of the chosen rows by what was achieved at `future`, and all that follows from it."""
        assert self.hindsight is not None
        n, g, past = self.observation_size, self.goal_size, self.past_size
        achieved = slice(2 * n + self.action_size, 2 * n + self.action_size + g)
        goal = self._rows.view(-1, rows.shape[-1])[:, achieved].index_select(0, future)
        rest, otherwise = rows[:, achieved.stop], rows[:, achieved.stop + 1]
        reward = rest + self.hindsight.reward(rows[:, achieved], goal)
        terminated = otherwise.bool() | self.hindsight.terminated(rows[:, achieved], goal)
        for part in (rows[:, past:n], rows[:, n + past : 2 * n]):  # as the policy group has it
            self._replace_goal(part, torch.where(chosen[:, None], goal, part[:, -g:]), chosen)
        rows[:, -2] = torch.where(chosen, reward, rows[:, -2])
        rows[:, -1] = torch.where(chosen, terminated.to(rows), rows[:, -1])

    def _replace_goal(self, observation: Tensor, goal: Tensor, chosen: Tensor | None = None) -> None:
        """Put goals [B, G] into observations [B, nobs] of the policy group, and where `chosen` [B] what follows."""
        assert self.hindsight is not None
        observation[:, -self.goal_size :] = goal
        if self.hindsight.columns:
            columns, derived = list(self.hindsight.columns), self.hindsight.rederived(observation)
            kept = derived if chosen is None else torch.where(chosen[:, None], derived, observation[:, columns])
            observation[:, columns] = kept

    def _batch(self, rows: Tensor) -> ReplayBatch:
        n, a = self.observation_size, self.action_size
        return ReplayBatch(rows[:, :n], rows[:, 2 * n : 2 * n + a], rows[:, -2], rows[:, n : 2 * n], rows[:, -1])

    def state_dict(self) -> dict[str, Any]:
        """What is held, in little more than half its size: most next observations are those of the next step."""
        held, n = min(self._time, self.slots), self.observation_size
        rows = self._rows[:held]
        follows, end = self._follows[:held], self._end[:held]
        return {
            "rows": torch.cat((rows[..., :n], rows[..., 2 * n :]), dim=2),
            "follows": follows,
            "next": rows[..., n : 2 * n][~follows],
            "length": torch.where(end < 0, end, end - self._times(held)).int(),
            "valid": self._valid[:held],
            "start": self._start,
            "time": self._time,
            "slots": self.slots,
            "evidence": self._evidence,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`. Raises ValueError where it is of another size."""
        rows, held, n = state["rows"], state["rows"].shape[0], self.observation_size
        shape = (self.num_envs, self._rows.shape[2] - n)
        if state["slots"] != self.slots or rows.shape[1:] != shape or held != min(state["time"], self.slots):
            raise ValueError(f"replay: expected {self.slots} slots of {shape}, got another size")
        self._rows[:held, :, :n], self._rows[:held, :, 2 * n :] = rows[..., :n], rows[..., n:]
        self._rows[: held - 1, :, n : 2 * n] = self._rows[1:held, :, :n]
        self._rows[held - 1, :, n : 2 * n] = self._rows[0, :, :n]
        self._follows[:held] = state["follows"]
        self._rows[:held, :, n : 2 * n][~self._follows[:held]] = state["next"].to(self.device)
        self._time = state["time"]
        length = state["length"].to(self.device).long()
        self._end[:held] = torch.where(length < 0, length, length + self._times(held))
        self._valid[:held] = state["valid"]
        self._start.copy_(state["start"])
        self._evidence.copy_(state["evidence"])

    def _times(self, held: int) -> Tensor:
        """[held, 1] the step that a slot holds."""
        slots = torch.arange(held, device=self.device)[:, None]
        oldest = self._time - held
        return oldest + (slots - oldest) % self.slots


def normalized(batch: ReplayBatch, normalizer: Normalizer, past_size: int = 0) -> ReplayBatch:
    """The batch with observations as the networks see them; their first `past_size` values are past actions."""
    with torch.no_grad():
        return replace(
            batch,
            observation=features(batch.observation, past_size, normalizer),
            next_observation=features(batch.next_observation, past_size, normalizer),
        )
