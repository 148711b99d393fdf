"""How far does a policy carry? One that was trained in randomized worlds, beside one that was not.

python examples/evaluate_in_worlds.py [ENV_STEPS] [EPISODES]
"""

import sys
from pathlib import Path

import simreal

env_steps = sys.argv[1] if len(sys.argv) > 1 else "120000"
episodes = int(sys.argv[2]) if len(sys.argv) > 2 else 100

settings = [f"train.env_steps={env_steps}", "evaluate.episodes=10"]
sheltered = [*settings, "randomization.sampler=none"]
randomized = simreal.train("inverted_pendulum", settings, run_dir="runs/randomized", quiet=True)
control = simreal.train("inverted_pendulum", sheltered, run_dir="runs/control", quiet=True)

mine = Path("runs/slow_and_heavy.yaml")  # a world of one's own; docs/evaluate.md has all that may stand in it
mine.write_text("""
randomization:
  parameters:
    action_delay: {range: [20, 40]} # ms
model:
  payload: {body: pole, mass: 1.0} # kg
""")
worlds = ["nominal", "latency", "late_and_noisy_joints", str(mine)]  # docs/evaluate.md lists the shipped ones

print(f"{'return in':22} {'randomized':>20} {'control':>20}")
figures = [simreal.evaluate(run, worlds, episodes)["worlds"] for run in (randomized, control)]  # the same episodes
for pair in zip(*figures, strict=True):
    cells = [f"{world['return_mean']:.0f} +- {world['return_se']:.0f}" for world in pair]
    print(f"{pair[0]['name']:22} {cells[0]:>20} {cells[1]:>20}")
