"""Train from Python: the configuration is a mapping, the figures come back as numbers.

python examples/train_from_python.py [ENV_STEPS]
"""

import sys

import simreal

config = {  # what a YAML file would hold; docs/train.md
    "task": "FetchReach-v4",
    "num_envs": 16,
    "learner": {
        "algorithm": "sac",
        "hidden": [64, 64],
        "gamma": 0.95,
        "updates_per_step": 0.25,
        "updates_per_cycle": 8,
    },
    "randomization": {
        "sampler": "adr",  # ranges start at the calibrated world and widen while the policy succeeds at their ends
        "adr": {"buffer_size": 4},
        "parameters": {
            "joint_damping": {"of": "robot0:*", "range": [0.5, 2.0]},  # factor
            "action_delay": {"range": [0, 40]},  # ms
        },
    },
    "train": {"env_steps": int(sys.argv[1]) if len(sys.argv) > 1 else 20_000},
    "evaluate": {"episodes": 20},
}
run = simreal.train(config)  # trains, evaluates, exports; returns the run directory

policy = simreal.load(run)
for parameter in policy.parameters:
    low, high = parameter.limits
    print(f"trained in {parameter.name} from {low:.3g} to {high:.3g} [{parameter.unit}]")
for world in simreal.evaluate(policy, ["nominal", "trained"], episodes=50)["worlds"]:
    low, high = world["success_ci95"]
    print(f"{world['name']}: {world['success_rate']:.0%} of episodes succeed (95 % interval {low:.0%} to {high:.0%})")
print(f"for the robot: {run / 'bundle'}")
