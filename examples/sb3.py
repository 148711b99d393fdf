"""stable-baselines3 trains on simreal's batched environments, under simreal's randomization.

python examples/sb3.py [STEPS]        # needs: pip install stable-baselines3
"""

import sys

from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

import simreal
from simreal.gym.sb3 import as_sb3

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
worlds = {
    "parameters": {
        "body_mass": {"range": [0.5, 2.0]},  # factor
        "joint_damping": {"range": [0.5, 2.0]},  # factor
        "action_delay": {"range": [0, 30]},  # ms
        "observation_noise": {"range": [0, 0.01]},  # m, rad, m/s, rad/s: standard deviation
    }
}
envs = as_sb3(simreal.make_vec("InvertedPendulum-v5", num_envs=16, randomization=worlds, seed=0))
learner = PPO("MlpPolicy", envs, n_steps=128, batch_size=256, gamma=0.98, learning_rate=1.0e-3, seed=0)
learner.learn(steps)

calibrated = as_sb3(simreal.make_vec("InvertedPendulum-v5", num_envs=16, seed=1))
for name, test in (("the randomized worlds", envs), ("the calibrated world", calibrated)):
    mean, deviation = evaluate_policy(learner, test, n_eval_episodes=32)
    print(f"steps upright in {name}: {mean:.0f} +- {deviation:.0f} of 1000")
