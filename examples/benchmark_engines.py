"""Compare the engines that can run a backbone: images a second of each, side by side.

    python examples/benchmark_engines.py
    python examples/benchmark_engines.py --networks resnet50 --threads 2 --seconds 10

A `tf.function` with batch norm folded into the convolutions, against ONNX Runtime on the graph
that tripletkit writes, set up as tripletkit does. Weights are random, which changes no time. For
each network and number of threads one process measures both in turns; the largest difference
between their features is shown beside it. On a busy machine take `--cpu-time`: images a second of
processor time, which others cannot take away.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

NETWORKS = {
    "resnet50": "ResNet50",
    "efficientnet-lite0": "build_lite0",
    "efficientnet-lite2": "build_lite2",
    "mobilenetv2": "MobileNetV2",
    "convnext-tiny": "ConvNeXtTiny",
    "efficientnetv2-b0": "EfficientNetV2B0",
}
BATCH_SIZE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=8.0, help="for each measurement")
    parser.add_argument("--cpu-time", action="store_true", help="instead of the time that passes")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        (name,), (n_threads,) = arguments.networks, arguments.threads
        print(json.dumps(measure(name, n_threads, arguments.seconds, arguments.cpu_time)))
        return
    print(f"{'network':20} threads  TensorFlow  ONNX Runtime  ratio  difference  write_s  open_s")
    for name in arguments.networks:
        for n_threads in arguments.threads:
            result = run_child(name, n_threads, arguments.seconds, arguments.cpu_time)
            ratio = result["onnxruntime"] / result["tensorflow"]
            print(
                f"{name:20} {n_threads:7} {result['tensorflow']:11.1f} "
                f"{result['onnxruntime']:13.1f} {ratio:6.2f} {result['difference']:11.1e} "
                f"{result['write_s']:8.1f} {result['open_s']:7.1f}",
                flush=True,
            )


def run_child(name: str, n_threads: int, seconds: float, cpu_time: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", "--networks", name]
    command += ["--threads", str(n_threads), "--seconds", str(seconds)]
    command += ["--cpu-time"] * cpu_time
    environment = os.environ | {
        "OMP_NUM_THREADS": str(n_threads),
        "TF_NUM_INTRAOP_THREADS": str(n_threads),
        "TF_NUM_INTEROP_THREADS": "1",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str, n_threads: int, seconds: float, cpu_time: bool) -> dict[str, float]:
    """Return images a second of both engines in one process."""
    import keras
    import tensorflow as tf

    from tripletkit.features import keras_backbones
    from tripletkit.features.onnx_engine import open_session
    from tripletkit.features.onnx_writer import make_onnx_model

    keras.utils.set_random_seed(0)
    if name.startswith("efficientnet-lite"):
        model = getattr(keras_backbones, NETWORKS[name])(None)
    else:
        build = getattr(keras.applications, NETWORKS[name])
        model = build(weights=None, include_top=False, pooling="avg", input_shape=(224, 224, 3))
    side = model.input_shape[1]
    model.trainable = False
    shape = (BATCH_SIZE, side, side, 3)
    run_tensorflow = tf.function(
        lambda pixels: model(pixels, training=False),
        input_signature=[tf.TensorSpec(shape, tf.float32)],
    )
    start = time.perf_counter()
    written = make_onnx_model(model).SerializeToString()
    write_s = time.perf_counter() - start
    start = time.perf_counter()
    session = open_session(written)
    open_s = time.perf_counter() - start

    pixels = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    engines: dict[str, Callable[[], np.ndarray]] = {
        "tensorflow": lambda: run_tensorflow(tf.constant(pixels)).numpy(),
        "onnxruntime": lambda: session.run(None, {"image": pixels})[0],
    }
    features = {engine: run() for engine, run in engines.items()}
    clock = time.process_time if cpu_time else time.perf_counter
    times: dict[str, list[float]] = {engine: [] for engine in engines}
    stop = time.perf_counter() + 2 * seconds
    while time.perf_counter() < stop or len(times["tensorflow"]) < 3:
        for engine, run in engines.items():
            start = clock()
            run()
            times[engine].append(clock() - start)
    want = features["tensorflow"]
    difference = np.abs(features["onnxruntime"] - want).max() / np.abs(want).max()
    return {
        **{engine: BATCH_SIZE / float(np.median(taken)) for engine, taken in times.items()},
        "difference": float(difference),
        "write_s": write_s,
        "open_s": open_s,
    }


if __name__ == "__main__":
    main()
