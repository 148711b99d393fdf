"""The robot's side of arm_reach.py: its bundle, NumPy and ONNX Runtime. Plain MuJoCo takes the place of the arm.

python examples/arm_loop.py BUNDLE [EPISODES] [MS_LATE]
"""

import math
import sys
from collections import deque

import mujoco
import numpy as np

import simreal
from simreal.deploy import Policy  # needs neither torch nor MuJoCo; see docs/deploy.md

bundle, given = sys.argv[1], [int(number) for number in sys.argv[2:]]
episodes, late_ms = (given + [20, 0][len(given) :])[:2]
# The MJCF of your arm; simreal is imported for the place of this one, and for nothing else.
spec = mujoco.MjSpec.from_file(str(simreal.robot_path("ufactory_xarm7", scene=True)))
for joint in spec.joints:
    joint.armature = 0.1  # kg m2, as in training: servos have rotors
model = spec.compile()
data, tool = mujoco.MjData(model), model.site("attachment_site").id
policy = Policy.load(bundle)
steps = round(policy.control_period_s / model.opt.timestep)  # of physics; a robot waits for its clock instead
late = round(1e-3 * late_ms / model.opt.timestep)  # steps after which a command arrives; any number of control steps
home = np.array(policy.contract["action"][0]["offset"])  # rad; episodes begin around it
low, high = (0.30, -0.25, 0.15), (0.55, 0.25, 0.50)  # m, where goals are
rng, distances, jump = np.random.default_rng(0), [], 0.0


def measure() -> dict[str, np.ndarray]:
    """What the arm's encoders say and where they put the flange, what was sent last, and what is wanted."""
    mujoco.mj_kinematics(model, data)
    measured = {"joint_pos": data.qpos, "joint_vel": data.qvel, "tool_pos": data.site_xpos[tool]}
    return measured | {"last_target": sent, "desired_goal": goal}


for _ in range(episodes):
    mujoco.mj_resetData(model, data)
    data.qpos[:] = data.ctrl[:] = sent = home + rng.uniform(-0.3, 0.3, 7)
    goal = rng.uniform(low, high)
    policy.reset()  # an episode begins: smoothing starts from where the joints are
    on_their_way = deque()  # the physics step in which a command arrives, and the command
    for step in range(60 * steps):
        if step % steps == 0:
            action = policy(measure())  # in [-1, 1]
            before, sent = sent, policy.targets(action)["joint_target"]  # rad: scaled, limited, smoothed as in training
            jump = max(jump, float(np.abs(sent - before).max()))
            on_their_way.append((step + late, sent))
        if on_their_way and on_their_way[0][0] <= step:
            data.ctrl[:] = on_their_way.popleft()[1]
        mujoco.mj_step(model, data)
    distances.append(float(np.linalg.norm(measure()["tool_pos"] - goal)))
rate, z = float(np.mean(np.array(distances) < 0.02)), 1.96
middle = (rate + z * z / (2 * episodes)) / (1 + z * z / episodes)  # Wilson's interval
half = z * math.sqrt(rate * (1 - rate) / episodes + z * z / (4 * episodes**2)) / (1 + z * z / episodes)
print(f"success {rate:.3f} [{middle - half:.3f}, {middle + half:.3f}] of {episodes} episodes, {late_ms} ms late")
print(f"mean distance {1e3 * np.mean(distances):.1f} mm, largest step of a command {jump:.2f} rad")
