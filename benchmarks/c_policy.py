"""How long a step of an exported policy takes at batch 1: C99, ONNX Runtime and NumPy, which take turns on one thread.

    python benchmarks/c_policy.py [--rounds 5] [--steps 4000] [--json FILE]

Policies for Go1Velocity-v0 (48 values in, 12 out) with random weights: an MLP of 256 x 256 ELU units, and an LSTM of
512 units. The C code is compiled as its Makefile does it, for any processor of the kind (-O3) and for this one
(-march=native), with weights of 32 and of 8 bits; a program of C calls it and reads the clock around every step. p50
and p99 of each round, medians over the rounds, in microseconds; bytes of the object file's code and constants, and of
the struct that is all its memory. What else runs on the machine shows in p99 above all.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch

from simreal.common.layers import LSTM, Activation, Clip, Dense, Layer, Normalize
from simreal.export.bundle import export_bundle
from simreal.export.source import prepare
from simreal.training.build import make_environment, make_learner
from simreal.training.run_config import load_config

POLICIES = {
    "MLP 48-256-256-12": ["learner.actor_hidden=[256,256]"],
    "LSTM 48-512-32-12": [
        "learner.actor_hidden=[32]",
        "learner.memory=lstm",
        "learner.memory_size=512",
        "learner.segment=24",
        "learner.mirror_coef=0",
    ],
}
COMPILERS = {"-O3": ["-O3"], "-O3 -march=native": ["-O3", "-march=native"]}
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
DRIVER = """
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "golden.h"
#include "policy.h"
static int order(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
int main(int count, char **arguments)
{
    static policy one;
    const int steps = count > 1 ? atoi(arguments[1]) : 1000;
    double *us = malloc((size_t)steps * sizeof *us);
    float action[POLICY_ACTION_SIZE], sum = 0.0f;
    int i;
    policy_reset(&one);
    for (i = -steps / 10; i < steps; i++) {
        struct timespec begin, end;
        const float *observation = golden_observations[(i + steps) % GOLDEN_STEPS];
        clock_gettime(CLOCK_MONOTONIC, &begin);
        if (policy_step(&one, observation, action) != POLICY_OK) return 1;
        clock_gettime(CLOCK_MONOTONIC, &end);
        sum += action[0];
        if (i >= 0) us[i] = (double)(end.tv_sec - begin.tv_sec) * 1e6 + (double)(end.tv_nsec - begin.tv_nsec) * 1e-3;
    }
    qsort(us, (size_t)steps, sizeof *us, order);
    printf("%g %g %lu %g\\n", us[steps / 2], us[steps * 99 / 100], (unsigned long)sizeof one, (double)sum);
    return 0;
}
"""


def compile_c(folder: Path, compiler: str, flags: list[str]) -> tuple[Path, int]:
    """The driver with a policy, and bytes of the policy's code and constants."""
    (folder / "driver.c").write_text(DRIVER)
    subprocess.run([compiler, *STRICT, *flags, "-c", "policy.c"], cwd=folder, check=True)
    size = subprocess.run(["size", "policy.o"], cwd=folder, check=True, capture_output=True, text=True)
    program = folder / f"driver-{compiler}{''.join(flags)}"
    posix = ["-D_POSIX_C_SOURCE=199309L", *flags, "driver.c", "policy.o", "-o", program.name, "-lm"]
    subprocess.run([compiler, *STRICT, *posix], cwd=folder, check=True)
    text, data = size.stdout.split("\n")[1].split()[:2]
    return program, int(text) + int(data)


def run_c(program: Path, steps: int) -> list[float]:
    """p50, p99 and bytes of memory."""
    done = subprocess.run([program, str(steps)], check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()[:3]]


def timed(step: Callable[[np.ndarray], Any], observations: np.ndarray, steps: int) -> list[float]:
    """p50 and p99 of a step in Python."""
    seconds = []
    for i in range(-steps // 10, steps):
        row = observations[i % len(observations)]
        begin = time.perf_counter()
        step(row)
        if i >= 0:
            seconds.append(time.perf_counter() - begin)
    return [float(np.quantile(seconds, q)) * 1e6 for q in (0.5, 0.99)]


def with_numpy(layers: list[Layer]) -> Callable[[np.ndarray], np.ndarray]:
    """The layers in NumPy."""
    state: list[np.ndarray] = [np.zeros(512, np.float32), np.zeros(512, np.float32)]

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(-x))

    def step(x: np.ndarray) -> np.ndarray:
        for layer in layers:
            match layer:
                case Normalize():
                    x = np.clip((x - layer.mean - layer.rest) * layer.inverse, -layer.clip, layer.clip)
                case Dense():
                    x = layer.weight @ x + layer.bias
                case Activation():
                    x = np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0)))
                case Clip():
                    x = np.clip(x, layer.low, layer.high)
                case LSTM():
                    gates = layer.read @ x + layer.read_bias + layer.recall @ state[0] + layer.recall_bias
                    i, f, g, o = np.split(gates, 4)
                    state[1] = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
                    x = state[0] = sigmoid(o) * np.tanh(state[1])
                case _:
                    raise AssertionError(layer)
        return x

    return step


def with_onnx_runtime(bundle: Path, remembers: bool) -> Callable[[np.ndarray], Any]:
    """A session on one thread, as `simreal.deploy` makes it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        (bundle / "policy.onnx").read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    state: list[Any] = [np.zeros((1, 1024), np.float32)]

    def step(x: np.ndarray) -> Any:
        if not remembers:
            return session.run(None, {"observation": x[None]})
        action, state[0] = session.run(None, {"observation": x[None], "state": state[0]})
        return action

    return step


def measure(name: str, rounds: int, steps: int, folder: Path) -> dict[str, dict[str, float]]:
    """Figures of one policy by who computes it."""
    config = load_config("go1_velocity", POLICIES[name])
    environment = make_environment(config.task, 1, config.randomization, engine="cpu", explore=False)
    environment.reset()
    torch.manual_seed(0)
    alone = {"num_envs": 1, "learner": config.learner.without_experience()}
    policy = make_learner(config.model_copy(update=alone), environment).policy
    task, bundle = environment.task, folder / "bundle"
    c = {"float32": folder / "float32", "int8": folder / "int8"}
    export_bundle(policy, task, bundle, c=c["float32"])
    export_bundle(policy, task, bundle, c=c["int8"], int8_limit=2.0)
    layers = prepare(policy, task).layers
    assert layers is not None
    remembers = any(isinstance(layer, LSTM) for layer in layers)
    observations = np.load(bundle / "golden.npz")["observations"]
    python = {"ONNX Runtime": with_onnx_runtime(bundle, remembers), "NumPy": with_numpy(layers)}
    programs: dict[str, Path] = {}
    found: dict[str, dict[str, float]] = {}
    for compiler in filter(shutil.which, ("gcc", "clang")):
        for flags, words in COMPILERS.items():
            for weights, where in c.items():
                who = f"C, {compiler} {flags}, {weights}"
                programs[who], found.setdefault(who, {})["bytes"] = compile_c(where, compiler, words)
    samples: dict[str, list[list[float]]] = {who: [] for who in (*python, *programs)}
    for _ in range(rounds):
        for who, step in python.items():
            samples[who].append(timed(step, observations, steps))
        for who, program in programs.items():
            samples[who].append(run_c(program, steps))
    for who, each in samples.items():
        keys = ("p50", "p99", "memory")[: len(each[0])]
        found.setdefault(who, {}).update({key: median(row[i] for row in each) for i, key in enumerate(keys)})
    return {who: found[who] for who in samples}


def main() -> None:
    """Measure, print tables, and write the JSON file."""
    parser = argparse.ArgumentParser(description="Microseconds of a step.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--policies", nargs="+", choices=list(POLICIES), default=list(POLICIES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name in options.policies:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(name, options.rounds, options.steps, Path(folder))
        print(f"{name:42}{'p50':>9}{'p99':>9}{'code and constants':>22}{'memory':>10}")
        for who, row in found[name].items():
            sizes = f"{row['bytes']:22,.0f}{row['memory']:10,.0f}" if "bytes" in row else ""
            print(f"  {who:40}{row['p50']:9.1f}{row['p99']:9.1f}{sizes}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
