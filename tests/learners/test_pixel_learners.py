"""What learners that look at pictures keep of them, and how they learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from envs.environment import Observed
from off_policy import result_of
from simreal.learners.base import LearnerSpec
from simreal.learners.networks import GaussianActor
from simreal.learners.options import PPOConfig, SACConfig
from simreal.learners.pixels.encoder import Encoder, shifted
from simreal.learners.pixels.frames import FrameStore
from simreal.learners.pixels.layout import PictureStack, PixelLayout
from simreal.learners.pixels.ppo import PixelPPO
from simreal.learners.pixels.sac import PixelSAC

LAYOUT = PixelLayout(8, 10, (1, 0, 8, 8), 1, 3, 2, (2,), ("c",), True, (4,), 6)
SPEC = LearnerSpec(2, 3, 2, 0, 0, None, torch.device("cpu"), pixels=LAYOUT)


def picture(*numbers: int) -> Tensor:
    """One picture [8, 10, 3] for each number, all of that value."""
    return torch.tensor(numbers, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 8, 10, 3).contiguous()


def played(steps: int, seed: int = 0) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Pictures [2], what each step led to [2] and where the episode ended [2], of two environments; all differ."""
    draw = np.random.default_rng(seed)
    now, found, number = torch.tensor([0, 100]), [], torch.tensor([0, 100])
    for _ in range(steps):
        done = torch.from_numpy(draw.random(2) < 0.25)
        number = number + 1
        led_to = number.clone()
        number = torch.where(done, number + 1, number)
        found.append((now, led_to, done))
        now = number.clone()
    return found


def stacks_of(history: list[tuple[Tensor, Tensor, Tensor]], time: int, env: int, after: bool) -> list[int]:
    """What a stack of three shows, from the record of all that was shown."""
    seen = [int(history[time][0][env])]
    for t in range(time - 1, -1, -1):
        if bool(history[t][2][env]):
            break
        seen.insert(0, int(history[t][0][env]))
    seen += [int(history[time][1][env])] if after else []
    return ([seen[0]] * 3 + seen)[-3:]


def test_every_stack_is_what_was_shown_and_nothing_of_another_episode() -> None:
    slots = 9
    store, history = FrameStore(slots, 2, replace(LAYOUT, crop=(0, 0, 10, 8))), played(60)
    for time, (now, led_to, done) in enumerate(history):
        store.add(picture(*now.tolist()), picture(*led_to.tolist()), done)
        if time == 37:  # a checkpoint in between
            other = FrameStore(slots, 2, replace(LAYOUT, crop=(0, 0, 10, 8)))
            other.load_state_dict(store.state_dict())
            store = other
        times = torch.arange(max(time + 1 - slots, 0), time + 1).repeat_interleave(2)
        envs = torch.tensor([0, 1]).repeat(len(times) // 2)
        for after, found in ((False, store.stack(times, envs)), (True, store.next_stack(times, envs))):
            expected = [stacks_of(history, int(t), int(e), after) for t, e in zip(times, envs, strict=True)]
            assert found[..., 0, 0, 0].tolist() == expected
            assert torch.equal(found, found[..., :1, :1, :1].expand_as(found))
    assert len(store._finals) <= 64  # places of final pictures are used again
    with pytest.raises(ValueError, match="pictures: expected"):
        FrameStore(slots, 2, LAYOUT).load_state_dict(store.state_dict())


def test_a_replay_beyond_the_machines_memory_is_refused() -> None:
    with pytest.raises(ValueError, match=r"replay_size: .* pictures of 10 x 8 take .* GB; expected at most"):
        FrameStore(10**12, 1, replace(LAYOUT, crop=(0, 0, 10, 8)))


def test_stacks_while_acting_are_those_of_gymnasium() -> None:
    class Shows(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(0, 255, (8, 10, 3), np.uint8)
        action_space = gymnasium.spaces.Discrete(2)
        count = 0

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.count += 1
            return picture(self.count)[0].numpy(), {}

        def step(self, action: Any) -> Any:
            self.count += 1
            return picture(self.count)[0].numpy(), 0.0, self.count % 5 == 0, False, {}

    peer = gymnasium.wrappers.FrameStackObservation(Shows(), 3, padding_type="reset")
    ours, shown = PictureStack(3), peer.reset()[0]
    for _ in range(17):
        assert np.array_equal(ours.push(torch.from_numpy(shown[-1:]))[0].numpy(), shown)
        shown, _, done, *_ = peer.step(0)
        if done:
            ours.begin(torch.tensor([True]))
            shown = peer.reset()[0]


def test_pictures_are_moved_as_padding_and_cropping_does() -> None:
    pictures = torch.randint(0, 256, (5, 2, 8, 10, 3), dtype=torch.uint8)
    moved = shifted(pictures, 2, torch.Generator().manual_seed(3))
    rows, columns = torch.randint(0, 5, (2, 5), generator=torch.Generator().manual_seed(3))
    maps = pictures.permute(0, 1, 4, 2, 3).flatten(1, 2).float()
    padded = functional.pad(maps, (2, 2, 2, 2), mode="replicate")
    for i, (y, x) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        expected = padded[i, :, y : y + 8, x : x + 10].unflatten(0, (2, 3)).permute(0, 2, 3, 1)
        assert torch.equal(moved[i].float(), expected)
    assert len({tuple(pair) for pair in torch.stack((rows, columns), 1).tolist()}) > 1
    assert shifted(pictures, 0, torch.Generator()) is pictures


def test_an_encoder_sees_the_mean_of_squares_of_pixels() -> None:
    encoder = Encoder(replace(LAYOUT, height=16, width=20, crop=(0, 0, 20, 16), shrink=2))
    pictures = torch.randint(0, 256, (2, 3, 16, 20, 3), dtype=torch.uint8)
    seen: list[Tensor] = []
    encoder.convolutions[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    assert encoder(pictures).shape == (2, 6)
    means = pictures.double().unflatten(2, (8, 2)).unflatten(4, (10, 2)).mean((3, 5)) / 255 - 0.5
    torch.testing.assert_close(seen[0].double(), means.permute(0, 1, 4, 2, 3).flatten(1, 2), rtol=0, atol=1e-6)


def learner(state_critic: bool, **settings: Any) -> PixelSAC:
    config = SACConfig.model_validate(
        {"hidden": (16,), "batch_size": 8, "warmup_steps": 4, "replay_size": 60, **settings}
    )
    return PixelSAC(replace(SPEC, pixels=replace(LAYOUT, state_critic=state_critic)), config, 0)


def experience(sac: PixelSAC, steps: int) -> None:
    for step in range(steps):
        draw = torch.Generator().manual_seed(step)
        here, there = torch.randn(2, 2, 3, generator=draw)
        pictures = torch.randint(0, 256, (2, 2, 8, 10, 3), generator=draw, dtype=torch.uint8)
        observed = Observed(here, None, None, None, pictures[0])
        done = torch.tensor([step % 5 == 4, False])
        result = result_of(there, torch.ones(2), truncated=done)
        final = replace(result.final, pictures=pictures[1])
        sac.record(observed, sac.act(observed), replace(result, final=final, observed=final))


@pytest.mark.parametrize("state_critic", [True, False])
def test_the_encoder_learns_from_one_loss_alone(state_critic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # With a critic that reads pictures from the critic's, as in DrQ; with one that reads the state from the actor's
    sac = learner(state_critic)
    experience(sac, 8)
    batch = sac.draw()
    taken: list[list[Tensor]] = []
    monkeypatch.setattr(sac.encoder_optimizer, "step", taken.append)
    for part in ("critic_optimizer", "actor_optimizer"):
        monkeypatch.setattr(getattr(sac, part), "step", lambda gradients: None)
    size = sac.config.batch_size
    part, noise, before = batch.batch.rows(0, size), batch.noise[:, :size], sac.generator.get_state()
    sac._update(part, noise)
    # By hand, from the same random numbers
    sac.generator.set_state(before)
    assert part.time is not None
    assert part.env is not None
    actor, alpha = sac.network.actor, 0.1
    assert isinstance(actor, GaussianActor)
    with torch.no_grad():
        z = sac.encoder(shifted(sac.replay.frames.next_stack(part.time, part.env), 2, sac.generator))
        following = torch.cat((part.next_observation[:, [2]], z), dim=1)
        action, log_prob = actor.sample(following, noise[0])
        judged = part.next_observation if state_critic else following
        value = sac.target_critic(judged, action).amin(0) - alpha * log_prob
        target = part.reward + sac.config.gamma * (1.0 - part.terminated) * value
    z = sac.encoder(shifted(sac.replay.frames.stack(part.time, part.env), 2, sac.generator))
    present = torch.cat((part.observation[:, [2]], z), dim=1)
    if state_critic:
        action, log_prob = actor.sample(present, noise[1])
        loss = (alpha * log_prob - sac.critic(part.observation, action).amin(0)).mean()
    else:
        loss = (sac.critic(present, part.action) - target).square().mean(1).sum()
    expected = torch.autograd.grad(loss, list(sac.encoder.parameters()))
    torch.testing.assert_close(taken[0], list(expected), rtol=1e-4, atol=1e-7)
    assert max(float(g.abs().max()) for g in expected) > 0


def test_what_does_not_go_with_pictures_is_said() -> None:
    for settings in ({"average_updates": 5}, {"observation_history": 2}, {"action_history": 1}):
        with pytest.raises(ValueError, match=r"not with pictures, .*; set it to 0"):
            learner(True, **settings)
    for settings, expected in (
        ({"memory": "lstm"}, "memory: 'lstm' does not go with pictures; expected none"),
        ({"objective": "trpo"}, "objective: 'trpo' does not go with pictures; expected another than trpo"),
        ({"actor_reads": "privileged"}, "actor_reads: 'privileged' does not go with pictures; expected policy"),
    ):
        with pytest.raises(ValueError, match=expected):
            PixelPPO(SPEC, PPOConfig.model_validate({"horizon": 16, "minibatches": 2, **settings}), 0)


@pytest.mark.parametrize("state_critic", [True, False])
def test_a_rollout_gathers_the_stacks_that_were_acted_on(state_critic: bool) -> None:
    config = PPOConfig.model_validate(
        {"horizon": 12, "minibatches": 3, "epochs": 1, "actor_hidden": (8,), "critic_hidden": (8,)}
    )
    ppo = PixelPPO(replace(SPEC, pixels=replace(LAYOUT, state_critic=state_critic)), config, 0)
    history, shown = played(30, seed=2), PictureStack(3)
    for time, (now, led_to, done) in enumerate(history):
        observed = Observed(torch.randn(2, 3), None, None, None, picture(*now.tolist()))
        stack = shown.push(LAYOUT.cropped(picture(*now.tolist())))
        action = ppo.act(observed)
        t = time % 12
        places = torch.tensor([2 * t, 2 * t + 1])
        stacks: Any = ppo.stacks
        assert torch.equal(stacks._stack(stacks.age[t], torch.tensor([t, t]), torch.arange(2)), stack)
        with torch.no_grad():
            torch.testing.assert_close(stacks.gather(places), ppo.network.encoder(stack))
        following = history[time + 1][0] if time + 1 < len(history) else led_to
        after = Observed(torch.randn(2, 3), None, None, None, picture(*following.tolist()))
        result = result_of(torch.randn(2, 3), torch.ones(2), truncated=done)
        final = Observed(torch.randn(2, 3), None, None, None, picture(*led_to.tolist()))
        ppo.record(observed, action, replace(result, final=final, observed=after))
        shown.begin(done)
        with torch.no_grad():
            expected = [stacks_of(history, time, env, after=True) for env in range(2)]
            found = torch.stack([picture(*row)[:, :, 1:9] for row in expected])
            torch.testing.assert_close(stacks.before_final(t), ppo.network.encoder(found))
        if ppo.ready():
            before = [p.clone() for p in ppo.network.encoder.parameters()]
            log = ppo.update()
            assert np.isfinite(list(log.values())).all()
            assert all(not torch.equal(a, b) for a, b in zip(before, ppo.network.encoder.parameters(), strict=True))


def shows(place: Tensor) -> Tensor:
    """Pictures [N, 16, 16, 3] of a bar at places [N] in [-1, 1]."""
    columns = torch.arange(16) / 7.5 - 1.0
    bright = (255 * (1.0 - 4.0 * (columns - place[:, None]).abs()).clamp(min=0.0)).to(torch.uint8)
    return bright[:, None, :, None].expand(-1, 16, -1, 3).contiguous()


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "state_critic"), [("sac", True), ("sac", False), ("ppo", True), ("ppo", False)])
def test_where_something_is_is_learnt_from_pictures_alone(algorithm: str, state_critic: bool) -> None:
    # A bar that actions move by up to 0.3, paid minus its squared distance from the middle
    layout = PixelLayout(16, 16, (0, 0, 16, 16), 1, 1, 0, (), (), state_critic, (8, 8), 12)
    spec = LearnerSpec(8, 1, 1, 0, 0, None, torch.device("cpu"), pixels=layout)
    learner: Any
    if algorithm == "sac":
        settings = {"hidden": (32,), "batch_size": 64, "warmup_steps": 200, "gamma": 0.9, "replay_size": 5000}
        learner = PixelSAC(spec, SACConfig.model_validate({**settings, "updates_per_step": 0.25}), 0)
    else:
        settings = {"horizon": 32, "minibatches": 4, "gamma": 0.9, "lr": 0.002, "epochs": 6}
        learner = PixelPPO(spec, PPOConfig.model_validate({**settings, "actor_hidden": (32,)}), 0)
    draw = torch.Generator().manual_seed(1)
    place, age = torch.rand(8, generator=draw) * 2 - 1, torch.arange(8)
    for _ in range(500):
        observed = Observed(place[:, None], None, None, None, shows(place))
        action = learner.act(observed)
        moved = (place + 0.3 * action[:, 0]).clamp(-1.0, 1.0)
        age, done = age + 1, age >= 7
        result = result_of(moved[:, None], -moved.square(), truncated=done)
        final = replace(result.final, pictures=shows(moved))
        place = torch.where(done, torch.rand(8, generator=draw) * 2 - 1, moved)
        age = age.masked_fill(done, 0)
        after = Observed(place[:, None], None, None, None, shows(place))
        learner.record(observed, action, replace(result, final=final, observed=after))
        if learner.ready():
            learner.update()
    places = torch.tensor([-0.8, -0.5, 0.5, 0.8])
    with torch.no_grad():
        actions = learner.policy(shows(places)[:, None], torch.zeros(4, 0))[:, 0]
    assert actions[:2].min() > 0.5
    assert actions[2:].max() < -0.5
