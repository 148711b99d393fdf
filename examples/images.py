"""Pictures under visual randomization: one world per environment, as arrays and as a file to look at.

python examples/images.py [FILE.png]
"""

import sys

import numpy as np
from PIL import Image

import simreal

worlds = {
    "parameters": {
        "camera_position": {"of": "view", "range": [0, 0.1]},  # m
        "light_direction": {"range": [0, 0.8]},  # rad
        "material_hue": {"range": [0, 0.5]},  # turns
        "material_texture": {"range": [0, 0.8]},  # probability
        "image_noise": {"range": [0, 0.03]},  # of full scale
    }
}
envs = simreal.make_vec(
    "FetchPush-v4", num_envs=12, randomization=worlds, seed=0, render_mode="rgb_array", render_size=(240, 240)
)
envs.reset()
for _ in range(20):
    envs.step(envs.action_space.sample())

pictures = envs.images().numpy()  # [N, height, width, 3] uint8; what a policy that sees would get
envs.close()
print(pictures.shape, pictures.dtype, f"mean brightness {pictures.mean():.0f}")
rows = np.concatenate(np.concatenate(pictures.reshape(3, 4, 240, 240, 3), axis=1), axis=1)  # [720, 960, 3]
Image.fromarray(rows).save(sys.argv[1] if len(sys.argv) > 1 else "worlds.png")
