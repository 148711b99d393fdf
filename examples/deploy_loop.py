"""A robot's control loop: a bundle, NumPy and ONNX Runtime. Plain MuJoCo takes the place of the robot.

python examples/own_task.py && python examples/deploy_loop.py [BUNDLE] [ANGLE_IN_RAD]
"""

import sys

import mujoco
from own_task import MODEL

from simreal.deploy import Policy  # needs neither torch nor MuJoCo; see docs/deploy.md

policy = Policy.load(sys.argv[1] if len(sys.argv) > 1 else "runs/rod/bundle")  # checks every file and the answers
for part in policy.contract["observation"] + policy.contract["action"]:
    print(f"{part['name']}: values {part['index']}, {part['unit']}, joints {part['joints']}")

model = mujoco.MjModel.from_xml_string(MODEL)
data = mujoco.MjData(model)
wanted = float(sys.argv[2]) if len(sys.argv) > 2 else 0.8
steps = round(policy.control_period_s / model.opt.timestep)  # of physics; a robot waits for its clock instead


def measure() -> dict[str, list[float]]:
    """What the robot's sensors say, in the units of the contract, and what is wanted of it."""
    return {"angle": [data.qpos[0]], "speed": [data.qvel[0]], "wanted": [wanted]}


data.ctrl[0] = data.qpos[0] = -0.5  # the motor holds the rod where it is
policy.reset()  # an episode begins: memory and smoothing start from the first observation
for step in range(100):
    action = policy(measure())  # in [-1, 1]
    data.ctrl[:] = policy.targets(action)["target_angle"]  # rad: scaled, limited and smoothed as in training
    mujoco.mj_step(model, data, steps)
    if step % 20 == 19:
        print(f"{data.time:.1f} s: {data.qpos[0]:+.3f} rad, sent {data.ctrl[0]:+.3f}, wanted {wanted:+.3f}")
