"""The cost of an eager TensorFlow training step under the watch, as a ratio of the plain step; see `benchmarks.overhead`.

python -m benchmarks.overhead_tensorflow [--rounds N]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from time import process_time_ns

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import tensorflow as tf

from jupyter_inplace import watch

TARGETS = {"MLP": 1.60}
_WARM = 5


def mlp() -> Callable[[], object]:
    """A step of a launch-bound multilayer perceptron with SGD written out: the recorder's worst case."""
    tf.random.set_seed(0)
    sizes = [32, 64, 64, 10]
    shapes = list(pairwise(sizes))
    weights = [tf.Variable(tf.random.normal(shape, stddev=0.1)) for shape in shapes]
    biases = [tf.Variable(tf.zeros(shape[1])) for shape in shapes]
    parameters = [*weights, *biases]
    x, y = tf.random.normal([64, 32]), tf.random.normal([64, 10])

    def step() -> object:
        with tf.GradientTape() as tape:
            h = x
            for w, b in zip(weights, biases, strict=True):
                h = tf.nn.relu(tf.matmul(h, w) + b)
            loss = tf.reduce_mean((h - y) ** 2)
        for p, g in zip(parameters, tape.gradient(loss, parameters), strict=True):
            p.assign_sub(0.01 * g)
        return loss

    return step


def keras_mlp() -> Callable[[], object]:
    """The same with Keras layers and Adam."""
    import keras

    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    model = keras.Sequential([dense(64, "relu"), dense(64, "relu"), dense(10)])
    optimizer = keras.optimizers.Adam()
    x, y = tf.random.normal([64, 32]), tf.random.normal([64, 10])

    def step() -> object:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return step


PROGRAMS = {"MLP": mlp, "Keras MLP": keras_mlp}


def measure(step: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Nanoseconds of CPU time of a step, plain and watched, 10th percentile; the two take turns."""
    times: dict[bool, list[int]] = {False: [], True: []}
    for turn in range(2 * rounds):
        watched = bool(turn % 2)
        gc.collect()
        with watch() if watched else nullcontext():
            for _ in range(_WARM):
                step()
            for _ in range(20):
                start = process_time_ns()
                step()
                times[watched].append(process_time_ns() - start)
    plain, seen = (sorted(found)[len(found) // 10] for found in (times[False], times[True]))
    return float(plain), float(seen)


def rows(rounds: int = 15) -> dict[str, tuple[float, float]]:
    """The measurements of every program."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return {name: measure(make(), rounds) for name, make in PROGRAMS.items()}


def report(rounds: int = 15) -> list[str]:
    """Print a line for each program; a sentence for each target that is missed."""
    missed = []
    for name, (plain, seen) in rows(rounds).items():
        target, ratio = TARGETS.get(name), seen / plain
        limit = "" if target is None else f" (at most {target:.2f})"
        print(f"TensorFlow, {name}: plain {plain / 1e6:.2f} ms, watch {ratio:.2f}{limit}")
        if target is not None and ratio > target:
            missed.append(f"TensorFlow, {name}: watch costs {ratio:.2f}, more than {target:.2f}")
    return missed


def main(arguments: list[str] | None = None) -> int:
    """Print the lines; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    return int(bool(report(parser.parse_args(arguments).rounds)))


if __name__ == "__main__":
    sys.exit(main())
