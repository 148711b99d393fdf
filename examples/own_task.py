"""A task of one's own: a motor turns a heavy rod to an angle and holds it there. Trains it, and leaves a bundle.

python examples/own_task.py [ENV_STEPS]
"""

import sys

import mujoco
import torch

import simreal

MODEL = """<mujoco> <option timestep="0.005"/>
  <worldbody> <body> <joint name="hinge" axis="0 1 0"/> <geom type="capsule" fromto="0 0 0 0 0 .3" size=".02"/> </body>
  </worldbody> <actuator> <position joint="hinge" kp="4" kv="0.4"/> </actuator>
</mujoco>"""


class Rod(simreal.Task):
    decimation, max_episode_steps = 4, 100  # 50 Hz, 2 s
    state_tensors = ("wanted",)  # what of ours changes during an episode, for runs that go on bit for bit

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_string(MODEL)
        angle = simreal.Component("angle", 1, "rad", "joint", joints=("hinge",))
        speed = simreal.Component("speed", 1, "rad/s", "joint", joints=("hinge",))
        self.observation = (angle, speed, simreal.Component("wanted", 1, "rad", "joint", measured=False))
        self.action = (simreal.ActionComponent(
            "target_angle", 1, "rad", scale=(1.5,), offset=(0.0,), joints=("hinge",),
            target_limits=((-1.4,), (1.4,)), smoothing=0.3, initial_target="angle",
        ),)  # fmt: skip

    def on_attach(self) -> None:  # live views [N, 1] of the engine's arrays
        self.qpos, self.qvel, self.ctrl = (self.engine.data(name) for name in ("qpos", "qvel", "ctrl"))
        self.wanted = torch.zeros_like(self.qpos)

    def reset(self, mask: torch.Tensor) -> None:
        start, wanted = (2.0 * self.rng.episode_uniform("angles", 2) - 1.0).split(1, dim=1)
        for value, new in ((self.qpos, start), (self.ctrl, start), (self.wanted, wanted)):
            value.copy_(torch.where(mask[:, None], new, value))

    def command(self, action: torch.Tensor) -> torch.Tensor:
        return self.ctrl + 0.3 * ((1.5 * action).clamp(-1.4, 1.4) - self.ctrl)

    def observe(self) -> torch.Tensor:
        return torch.cat((self.qpos, self.qvel, self.wanted), dim=1)

    def outcome(self, action: torch.Tensor) -> simreal.Outcome:
        error = (self.qpos - self.wanted).abs()[:, 0]
        return simreal.Outcome(reward=-error, terminated=error > 6.0, success=error < 0.05)


if __name__ == "__main__":
    learner = {"algorithm": "ppo", "horizon": 64, "gamma": 0.95, "lr": 1.0e-3, "lr_schedule": "linear"}
    worlds = {"sampler": "manual", "parameters": {"body_mass": {"range": [0.7, 1.3]}}}
    train = {"env_steps": int(sys.argv[1]) if len(sys.argv) > 1 else 60_000}
    config = {"task": "own_task:Rod", "learner": learner, "randomization": worlds, "train": train}
    simreal.train(config, run_dir="runs/rod")
