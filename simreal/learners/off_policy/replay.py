"""Replay of experience with hindsight relabelling (Andrychowicz et al. 2017, "future" strategy)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from envs.common.ranks import ALONE, Share
from simreal.common.errors import UserError
from simreal.learners.history import HistoryLayout
from simreal.learners.off_policy.hindsight import Hindsight
from simreal.learners.off_policy.transitions import ReplayBatch, Returns

LAG = 16
"""Control steps after which experience counts. What a simulation shows in the last steps before it becomes unstable is
finite and means nothing, and so does all that its episode has shown: none of it is learnt from."""

_MOST_CONTRADICTIONS = 10

NewGoal = tuple[Tensor, Tensor]
"""A goal [B, G] for each transition of a batch, and which of them [B] get it instead of their own."""


class HerReplayBuffer:
    """The last `capacity` transitions of N environments, in float32; sampling relabels goals, vectorised.

    Transitions lie in one array [slots, N, row] with row = observation | next observation | action |
    next achieved goal | what does not follow from the goal, where goals are relabelled: rest of the reward, terminated
    for other reasons | reward | terminated, so that a batch is one gather, plus one for hindsight goals. What a policy
    remembers at an observation is gathered from the rows before it: a history takes no memory, but for the few rows
    that are kept as the past of the oldest transitions.

    Args:
        capacity: transitions kept over all environments.
        num_envs: N.
        observation_size: of the policy group; its last `goal_size` values are the desired goal.
        action_size: A.
        goal_size: 0 for tasks without goals.
        her_k: hindsight goals per original one ("future" strategy); 0 never relabels.
        hindsight: what follows from the goal; needed to relabel.
        history: what the policy remembers; None: nothing.
        lag: steps that experience is held back, in which its simulation may prove unstable.
        device: where it lies.
        share: which environments of a run on many ranks these N are; None: all. Each rank holds its environments';
            batches are drawn from those of the whole run.
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
        history: HistoryLayout | None = None,
        lag: int = 0,
        device: torch.device | str = "cpu",
        share: Share | None = None,
    ) -> None:
        if her_k > 0 and (goal_size == 0 or hindsight is None):
            raise ValueError("hindsight relabelling needs a goal task, and what follows from its goals")
        self.share = share or ALONE.share(num_envs)
        self.num_envs, self.slots = num_envs, max(capacity // self.share.total, 1)
        self.observation_size, self.action_size, self.goal_size = observation_size, action_size, goal_size
        self.relabel_probability = her_k / (1.0 + her_k)
        self.hindsight = hindsight if her_k > 0 else None
        self.history = history or HistoryLayout(0, 0, observation_size - goal_size, action_size)
        self.lag = min(lag, self.slots - 1)
        self._ring = self.slots + self.history.steps
        self.device = torch.device(device)
        row = 2 * observation_size + action_size + goal_size + 2 + (2 if self.hindsight else 0)
        self._rows = torch.zeros(self._ring, num_envs, row, device=self.device)
        # Step index at which the episode of a slot ended; -1 while it goes on.
        self._end = torch.full((self._ring, num_envs), -1, dtype=torch.int64, device=self.device)
        self._valid = torch.zeros(self._ring, num_envs, dtype=torch.bool, device=self.device)
        # Whether a slot's next observation is the observation of the slot after it: a checkpoint has it once.
        self._follows = torch.zeros(self._ring, num_envs, dtype=torch.bool, device=self.device)
        self._start = torch.zeros(num_envs, dtype=torch.int64, device=self.device)  # of the present episodes
        self._time = 0  # steps added so far
        # Steps that agree with and contradict what is held to end an episode.
        self._evidence = torch.zeros(2, dtype=torch.int64, device=self.device)

    def __len__(self) -> int:
        """Transitions held, on all ranks."""
        return min(self._time, self.slots) * self.share.total

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
        slot = self._time % self._ring
        self._rows[slot] = self._row(
            observation, action, reward, next_observation, terminated, achieved_goal, success
        )  # fmt: skip
        self._note_what_follows(slot)
        self._end[slot] = -1
        self._valid[slot] = True
        if bool(done.any()):
            self._close(done, torch.zeros_like(done) if diverged is None else diverged)
        self._time += 1

    def _row(
        self, observation: Tensor, action: Tensor, reward: Tensor, next_observation: Tensor, terminated: Tensor,
        achieved_goal: Tensor | None, success: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """Transitions [K] as rows [K, row]."""
        parts = [observation, next_observation, action]
        parts += [achieved_goal] if achieved_goal is not None else []
        if self.hindsight is not None:
            parts.append(self._apart(observation, reward, terminated, achieved_goal, success))
        scalars = torch.stack((reward.float(), terminated.float()), dim=1)
        return torch.cat([part.float() for part in parts] + [scalars], dim=1)

    def fill(
        self, observation: Tensor, action: Tensor, reward: Tensor, next_observation: Tensor, terminated: Tensor,
        episode: Tensor, achieved_goal: Tensor | None = None, success: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Hold K recorded transitions of one environment, in place of what was held.

        Args:
            observation, action, reward, next_observation, terminated, achieved_goal, success: as for `add`, K of each,
                where K is the capacity; episodes come one after the other, each in the order of its steps.
            episode: [K] number of the episode; where it changes, or the record ends, one has ended, whatever else.
        """
        self._rows[:, 0] = self._row(observation, action, reward, next_observation, terminated, achieved_goal, success)
        last = torch.cat((episode[1:] != episode[:-1], torch.ones_like(episode[:1], dtype=torch.bool)))
        number = last.cumsum(0) - last.long()  # of the episode, counted from 0
        self._end[:, 0] = last.nonzero().squeeze(1)[number]
        self._valid[:], self._time = True, len(reward)

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
        evidence = self._evidence.clone()
        self.share.ranks.sum_(evidence)
        agree, contradict = evidence.tolist()
        if contradict >= _MOST_CONTRADICTIONS and contradict > agree:
            raise UserError(
                f"learner: hindsight: {contradict} of {agree + contradict} successes ended their episodes otherwise "
                "than the task let expect; implement its goal_terminated(achieved, desired), or set learner.her_k to 0"
            )

    def _note_what_follows(self, slot: int) -> None:
        """Compare the observation of a slot with the one that the step before it led to, bit by bit."""
        n, before = self.observation_size, (slot - 1) % self._ring
        self._follows[slot] = False
        if self._time > 0 and self._ring > 1:
            led_to, found = self._rows[before, :, n : 2 * n], self._rows[slot, :, :n]
            self._follows[before] = (led_to.view(torch.int32) == found.view(torch.int32)).all(dim=1)

    def _close(self, done: Tensor, diverged: Tensor) -> None:
        """Note the present step as the end of the episodes in `done` [N]; leave out those in `diverged` [N]."""
        envs = done.nonzero().squeeze(1)
        length = min(int((self._time - self._start[envs]).max()) + 1, self._ring)
        steps = self._time - torch.arange(length, device=self.device)[:, None]  # [length, 1], back from now
        inside = steps >= self._start[envs]
        slots = (steps % self._ring).expand(-1, len(envs))
        columns = envs.expand(length, -1)
        self._end[slots[inside], columns[inside]] = self._time
        spoilt = inside & diverged.to(self.device)[envs]
        self._valid[slots[spoilt], columns[spoilt]] = False
        self._start[envs] = self._time + 1

    def _ripe(self) -> int:
        """Steps whose experience counts. The lag grows with what is held, so that there is always some."""
        return self._time - min(self.lag, self._time // 2)

    def sound(self) -> bool:
        """Whether there is anything to sample, on any rank."""
        if self.share.ranks.size == 1:
            return self._sound_here()
        found = torch.tensor([float(self._sound_here())])
        self.share.ranks.sum_(found)
        return bool(found[0])

    def _sound_here(self) -> bool:
        ripe = self._ripe()
        if ripe and bool(self._valid[(ripe - 1) % self._ring].any()):  # nearly always
            return True
        counted = torch.arange(max(self._time - self.slots, 0), ripe, device=self.device) % self._ring
        return bool(self._valid[counted].any())

    def ripened(self) -> Tensor:
        """Observations [B, nobs] of the policy group that count since the last step was added. Where goals are
        relabelled, once more with the goal just achieved: networks see such goals too."""
        ripe = self._ripe()
        if ripe == self._time - 1 - min(self.lag, (self._time - 1) // 2):
            return self._rows[:0, 0, : self.observation_size]
        slot = (ripe - 1) % self._ring
        return self._with_achieved(self._rows[slot][self._valid[slot]])

    def everything(self) -> Tensor:
        """As `ripened`, of all that `fill` has put in."""
        return self._with_achieved(self._rows[:, 0])

    def _with_achieved(self, rows: Tensor) -> Tensor:
        """Observations of rows; where goals are relabelled, once more with the goal that each row achieved."""
        n = self.observation_size
        observation = rows[:, :n]
        if self.hindsight is None:
            return observation
        start = 2 * n + self.action_size
        relabelled = observation.clone()
        self._replace_goal(relabelled, rows[:, start : start + self.goal_size])
        return torch.cat((observation, relabelled))

    def sample(self, batch_size: int, generator: torch.Generator, steps: int = 1, gamma: float = 1.0) -> ReplayBatch:
        """A batch drawn uniformly from what is held; a share k / (k + 1) is relabelled. On many ranks all draw the same
        batch, and each returns what it holds of it.

        Args:
            batch_size: B.
            generator: of the random numbers.
            steps: control steps that a transition spans, where its episode has as many left. Of a relabelled one no
                step counts beyond the first that ends the episode for the new goal.
            gamma: discounts the rewards of these steps.
        """
        if self.hindsight is not None:
            self._check_evidence()
        draw, time, env, flat = self._draw(batch_size, generator)
        if self.share.ranks.size > 1:
            here, _ = self.share.place(env)
            batch = self._sampled(draw[:, here], time[here], env[here] - self.share.start, flat[here], steps, gamma)
            return replace(batch, place=here.nonzero()[:, 0])
        return self._sampled(draw, time, env, flat, steps, gamma)

    def _sampled(self, draw: Tensor, time: Tensor, env: Tensor, flat: Tensor, steps: int, gamma: float) -> ReplayBatch:
        """The batch that these numbers [4, B] give for transitions [B]; see `sample`."""
        relabels = self.relabel_probability > 0
        last = self._last_known(flat) if relabels or steps > 1 else time
        new: NewGoal | None = None
        if relabels:
            future = time + (draw[2] * (last - time + 1)).long()
            new = self._achieved(self._place(future, env)), draw[3] < self.relabel_probability
        first = self._gather(flat, new)
        if steps == 1:
            return self._batch(first, first, time, time, env, new)
        returns, end = Returns(first, gamma), time
        for ahead in range(1, steps):
            step = torch.minimum(time + ahead, last)
            returns.add(self._gather(self._place(step, env), new), step == time + ahead)
            end = torch.where(returns.goes_on, step, end)
        batch = self._batch(first, returns.rows, time, end, env, new)
        return replace(batch, reward=returns.reward, discount=returns.discount)

    def _place(self, time: Tensor, env: Tensor) -> Tensor:
        """Flat indices of steps of environments."""
        return (time % self._ring) * self.num_envs + env

    def _last_known(self, flat: Tensor) -> Tensor:
        """The last step [B] of the episodes of transitions [B] that counts."""
        end = self._end.view(-1)[flat]
        return torch.where(end < 0, self._ripe() - 1, end)

    def _achieved(self, flat: Tensor) -> Tensor:
        """Goals [B, G] that transitions [B] achieved."""
        start = 2 * self.observation_size + self.action_size
        return self._rows.view(-1, self._rows.shape[-1])[:, start : start + self.goal_size].index_select(0, flat)

    def _gather(self, flat: Tensor, new: NewGoal | None) -> Tensor:
        """Rows of transitions [B], some of them for another goal."""
        rows = self._rows.view(-1, self._rows.shape[-1]).index_select(0, flat)
        if new is not None:
            self._relabel(rows, *new)
        return rows

    def _draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Uniform numbers [4, count], and step, environment and flat index [count] of valid transitions."""
        oldest, ripe = max(self._time - self.slots, 0), self._ripe()
        parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        missing = count
        while missing > 0:
            draw = torch.rand(4, missing, generator=generator, device=self.device, dtype=torch.float64)
            time = oldest + (draw[0] * (ripe - oldest)).long()
            env = (draw[1] * self.share.total).long()
            flat = self._place(time, (env - self.share.start).clamp(0, self.num_envs - 1))
            valid = self._valid_anywhere(env, flat)
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

    def _valid_anywhere(self, env: Tensor, flat: Tensor) -> Tensor:
        """[B] Whether transitions of the run's environments [B] count, with flat indices [B] where they are held."""
        valid = self._valid.view(-1)[flat]
        if self.share.ranks.size == 1:
            return valid
        told = (valid & self.share.place(env)[0]).float()
        self.share.ranks.sum_(told)
        return told > 0

    def _relabel(self, rows: Tensor, goal: Tensor, chosen: Tensor) -> None:
        """Replace the goal of the chosen rows by another one [B, G], and all that follows from it."""
        assert self.hindsight is not None
        n, g = self.observation_size, self.goal_size
        achieved = slice(2 * n + self.action_size, 2 * n + self.action_size + g)
        rest, otherwise = rows[:, achieved.stop], rows[:, achieved.stop + 1]
        reward = rest + self.hindsight.reward(rows[:, achieved], goal)
        terminated = otherwise.bool() | self.hindsight.terminated(rows[:, achieved], goal)
        for part in (rows[:, :n], rows[:, n : 2 * n]):
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

    def _batch(
        self, first: Tensor, last: Tensor, time: Tensor, end: Tensor, env: Tensor, new: NewGoal | None
    ) -> ReplayBatch:
        """Transitions whose first and last steps are these rows, and what a policy remembers at both ends."""
        n, a = self.observation_size, self.action_size
        batch = ReplayBatch(first[:, :n], first[:, 2 * n : 2 * n + a], first[:, -2], last[:, n : 2 * n], last[:, -1])
        if not self.history.size:
            return batch
        state = self._remembered(time, env, new)
        before = state if end is time else self._remembered(end, env, new)
        next_state = self.history.after(before, last[:, :n], last[:, 2 * n : 2 * n + a])
        return replace(batch, state=state, next_state=next_state)

    def _remembered(self, time: Tensor, env: Tensor, new: NewGoal | None) -> Tensor:
        """States [B, S], complete, of a policy at steps [B] of environments [B], for goals that may be others."""
        layout, n, depth = self.history, self.observation_size, self.history.steps
        steps = time[:, None] - torch.arange(depth, 0, -1, device=self.device)  # [B, depth] oldest first
        places = self._place(steps, env[:, None])
        # No step counts up to one that ended an episode.
        ended = (self._end.view(-1)[places] == steps) | (steps < 0)
        before = ended.flip(1).cumsum(1).flip(1) > 0
        rows = self._rows.view(-1, self._rows.shape[-1])
        parts: list[Tensor] = []
        if layout.observations:
            begin = time - depth + before.sum(1)
            shown = torch.maximum(steps[:, depth - layout.observations :], begin[:, None])
            seen = rows[:, :n].index_select(0, self._place(shown, env[:, None]).flatten())
            if new is not None and self.hindsight is not None and self.hindsight.columns:
                goal, chosen = (value.repeat_interleave(layout.observations, 0) for value in new)
                self._replace_goal(seen, torch.where(chosen[:, None], goal, seen[:, -self.goal_size :]), chosen)
            parts.append(seen[:, : layout.kept].reshape(len(time), -1))
        taken = places[:, depth - layout.actions :].flatten()
        actions = rows[:, 2 * n : 2 * n + self.action_size].index_select(0, taken).view(len(time), layout.actions, -1)
        parts.append(actions.masked_fill(before[:, depth - layout.actions :, None], 0.0).flatten(1))
        return torch.cat(parts, dim=1)

    def state_dict(self) -> dict[str, Any]:
        """What is held, in little more than half its size: most next observations are those of the next step."""
        held, n = min(self._time, self._ring), self.observation_size
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
        if state["slots"] != self.slots or rows.shape[1:] != shape or held != min(state["time"], self._ring):
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
        return oldest + (slots - oldest) % self._ring
