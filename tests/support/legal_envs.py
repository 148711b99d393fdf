"""Gymnasium environments that do what Gymnasium allows and few do; each test names the habit."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import WrapperSpec

XML = """<mujoco><option timestep="0.01"/><worldbody>
<body name="cart"><joint name="x" type="slide" axis="1 0 0" damping="5"/><geom size="0.05" mass="1"/></body>
<body name="ball" pos="0 0 2"><freejoint/><geom size="0.1" mass="0.5" contype="0" conaffinity="0"/></body>
</worldbody><actuator><motor joint="x" gear="10"/></actuator></mujoco>"""
ONE: dict[str, mujoco.MjData] = {}
SHARED = mujoco.MjModel.from_xml_string(XML)


def box(*shape: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, shape, np.float64)


class Cart(gymnasium.Env[Any, Any]):
    """A cart on a rail; `success` says when info tells success, `shape` how goals look, `own` that they are given.

    Args:
        tells: step of the episode from which info has "is_success"; None: never. True from x > 0.1 on.
        goals: shape of a goal; None for an observation that is a Box.
        extra: a fourth key in the dict of goals.
        reads: how compute_reward reads info: "[]", "get" or "".
        shared: "model", or "data": all instances have the same one.
        integers: actions are -3 .. 3.
        live: it returns its own buffer.
        scalars: "0d": everything it returns is an array of no dimension; "one": of one value.
        odd: observations of another kind than Boxes.
        ends: compute_terminated: "batch", "one", "info" or None for none.
    """

    def __init__(
        self, tells: int | None = None, goals: tuple[int, ...] | None = None, extra: bool = False, reads: str = "",
        shared: str = "", integers: bool = False, live: bool = False, scalars: str = "", odd: bool = False,
        ends: str | None = None, value: Any = None, limit: int = 10**6,
    ) -> None:  # fmt: skip
        self.model = SHARED if shared else mujoco.MjModel.from_xml_string(XML)
        self.data = mujoco.MjData(self.model)
        if shared == "data":
            self.data = ONE.setdefault("data", self.data)
        self.tells, self.goals, self.reads, self.live = tells, goals, reads, live
        self.scalars, self.odd, self.value, self.limit = scalars, odd, value, limit
        self.action_space = spaces.Box(-3, 3, (1,), np.int32 if integers else np.float32)
        self.observation_space: Any = box(4)
        if goals is not None:
            keys: dict[str, spaces.Space[Any]] = {
                "observation": box(4),
                "achieved_goal": box(*goals),
                "desired_goal": box(*goals),
            }
            self.observation_space = spaces.Dict(keys | ({"camera": box(2, 3)} if extra else {}))
            self.goal = np.zeros(goals)
        if odd:
            pair, image = spaces.Tuple((box(1), box())), spaces.Box(0, 255, (1, 2), np.uint8)
            bits, phase = spaces.MultiBinary(2), spaces.Discrete(3, start=1)
            self.observation_space = spaces.Dict({"phase": phase, "bits": bits, "pair": pair, "image": image})
        if ends is not None:  # else it has none
            self.compute_terminated = {"batch": self._ends, "one": self._ends_one, "info": self._ends_info}[ends]
        self.buffer, self.t = np.zeros(4), 0
        self.got: list[Any] = []

    def state(self) -> np.ndarray:
        self.buffer[:] = self.data.qpos[0], self.data.qvel[0], self.data.qpos[3], self.t
        return self.buffer if self.live else self.buffer.copy()

    def observe(self) -> Any:
        if self.odd:
            phase = self.t % 3 + 1
            pair = (self.data.qpos[:1].copy(), np.asarray(self.data.qvel[0]))
            image = np.array([[7, 255]], np.uint8)
            return {"image": image, "pair": pair, "bits": np.array([1, 0], np.int8), "phase": np.int64(phase)}
        if self.goals is None:
            return self.state()
        achieved = np.full(self.goals, self.data.qpos[0])
        return {
            "desired_goal": self.goal,
            "camera": np.ones((2, 3)),
            "achieved_goal": achieved,
            "observation": self.state(),
        }

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self.t = 0
        if self.goals is not None:
            self.goal = self.np_random.uniform(-1.0, 1.0, self.goals)
        mujoco.mj_forward(self.model, self.data)
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self.got.append(action)
        self.t += 1
        self.data.ctrl[:] = action
        mujoco.mj_step(self.model, self.data, nstep=5)
        info: dict[str, Any] = {"nested": {"a": 1}, "words": "x", "energy": float(np.square(action).sum())}
        if self.tells is not None and self.t >= self.tells:
            info["is_success"] = self.data.qpos[0] > 0.1 if self.value is None else self.value
        if self.t % 2:
            info["now_and_then"] = 1.0
        reward: Any = float(self.data.qpos[0])
        if self.goals is not None:
            reward = float(self.compute_reward(np.full(self.goals, self.data.qpos[0]), self.goal, info))
        ended: Any = self.t >= self.limit
        if self.scalars:
            shape = () if self.scalars == "0d" else (1,)
            return self.observe(), np.full(shape, reward), np.full(shape, False), np.full(shape, ended), info
        return self.observe(), reward, False, ended, info

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        assert self.goals is not None
        far = np.abs(np.asarray(achieved) - desired) > 0.05
        reward = -far.reshape(*far.shape[: far.ndim - len(self.goals)], -1).any(axis=-1).astype(float)
        if self.reads == "[]":
            reward -= info["energy"]
        return reward - info.get("energy", 0.0) if self.reads == "get" else reward

    def _ends(self, achieved: Any, desired: Any, info: Any) -> Any:
        return self.compute_reward(achieved, desired, info) == 0.0

    def _ends_one(self, achieved: Any, desired: Any, info: Any) -> bool:
        return bool(np.linalg.norm(np.asarray(achieved) - desired) <= 0.05)

    def _ends_info(self, achieved: Any, desired: Any, info: Any) -> bool:
        return bool(info["energy"] > 1.0)


class OnlyInfo(gymnasium.Wrapper):  # pyright: ignore[reportMissingTypeArgument]
    """Somebody's wrapper that adds to infos when an episode reaches its time limit."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, info | ({"success": np.True_} if truncated else {})


class Doubled(gymnasium.ObservationWrapper):  # pyright: ignore[reportMissingTypeArgument]
    """Somebody's wrapper that changes what is observed."""

    def observation(self, observation: Any) -> Any:
        return 2.0 * observation


def cart(**options: Any) -> Cart:
    return Cart(**options)


def monitored(**options: Any) -> Any:
    return OnlyInfo(Cart(**options))


def with_wrappers(names: tuple[str, ...] = ()) -> Any:
    """A cart in wrappers of Gymnasium's by name."""
    env: Any = Doubled(Cart()) if names == ("Doubled",) else Cart()
    arguments: dict[str, tuple[Any, ...]] = {
        "DelayObservation": (2,), "FrameStackObservation": (2,), "RescaleAction": (-1.0, 1.0), "StickyAction": (0.5,),
        "MaxAndSkipObservation": (2,), "DtypeObservation": (np.float32,), "TimeLimit": (5,), "ClipReward": (-1, 1),
        "RepeatAction": (2,), "TransformObservation": (np.flip, None), "ReshapeObservation": ((2, 2),),
    }  # fmt: skip
    for name in names if names != ("Doubled",) else ():
        if name == "TimeAwareObservation":  # as in a list of additional wrappers, which come after this
            env = gymnasium.wrappers.TimeLimit(env, 8)
        env = getattr(gymnasium.wrappers, name)(env, *arguments.get(name, ()))
    return env


def register() -> None:
    """Make these known to Gymnasium; again and again does no harm."""
    specs = (WrapperSpec("OnlyInfo", f"{__name__}:OnlyInfo", {}),)
    for name, entry, wrappers in (
        ("LegalCart-v0", "cart", ()),
        ("LegalMonitored-v0", "cart", specs),
        ("LegalWrapped-v0", "with_wrappers", ()),
    ):
        if name not in gymnasium.registry:
            gymnasium.register(name, f"{__name__}:{entry}", max_episode_steps=8, additional_wrappers=wrappers)
