"""Kill parts of `tripletkit extract --ray` at random and see that the features come out right.

    python examples/kill_benchmark.py work/ --images 20000 --workers 2 --kills 10

Makes small distinct images and an encoder of one convolution, fills one folder in a single process
that nobody disturbs, and another on a Ray of this machine of which a worker, the raylet or the
driver is killed (SIGKILL) at random moments, as often as asked; every run that dies is followed by
another. At the end both folders must hold the same rows, bit for bit, and no image twice.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import pyarrow.parquet as pq
from tiny_encoders import write_encoder

VICTIMS = ("worker", "raylet", "driver")
SIDE_PX = 32


def main() -> None:
    """Run one campaign and print what was killed and what came out."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where images and stores are made")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    work = arguments.folder
    work.mkdir(parents=True, exist_ok=True)
    encoder = write_encoder(work / "plain.onnx")
    make_images(work / "images", arguments.images)
    extract = [sys.executable, "-m", "tripletkit", "extract", str(work / "images"), *encoder]
    started_s = time.perf_counter()
    subprocess.run([*extract, "-o", str(work / "single")], check=True)
    print(f"single process: {time.perf_counter() - started_s:.0f} s", flush=True)
    store = work / f"killed-{arguments.workers}-{arguments.seed}"
    on_ray = [*extract, "-o", str(store), "--ray", "--workers", str(arguments.workers)]
    killed = disturb(
        on_ray, arguments.kills, arguments.images, random.Random(arguments.seed), store
    )
    print(f"killed: {', '.join(killed)}", flush=True)
    subprocess.run(on_ray, check=True)
    expected, got = read_rows(work / "single"), read_rows(store)
    assert len(expected) == arguments.images
    assert got == expected, "the stores differ"
    print(f"{len(got):,} images, each once, bit for bit those of the single process")


def make_images(folder: Path, n_images: int) -> None:
    """Write distinct images of smooth noise, those that are not there yet."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (50, 8, 8, 3), np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    for number in range(n_images):
        path = folder / f"{number:06}.png"
        if not path.exists():
            pixels = base[number % len(base)].copy()
            pixels[0, 0] = number & 255, number >> 8 & 255, number >> 16 & 255
            Image.fromarray(pixels).save(path, compress_level=1)


def disturb(
    command: list[str], n_kills: int, n_images: int, rng: random.Random, store: Path
) -> list[str]:
    """Run a command, again whenever it dies, and kill parts of it; return what was killed.

    Each kill comes when the store has reached a number of images drawn beforehand, so that they
    are spread over the work however fast it is; the last quarter is left out, in which a run may
    end before it is noticed. One that ends all the same starts anew on an empty store.
    """
    killed: list[str] = []
    moments = sorted(rng.randrange(n_images * 3 // 4) for _ in range(n_kills))
    while len(killed) < n_kills:
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as driver:
            while driver.poll() is None and len(killed) < n_kills:
                is_time = count_rows(store) >= moments[len(killed)]
                if not is_time or not find_victims(driver.pid, "worker"):
                    time.sleep(0.1)
                    continue
                time.sleep(rng.uniform(0.0, 1.0))
                victim = rng.choice(VICTIMS)
                found = find_victims(driver.pid, victim)
                if found and driver.poll() is None:
                    os.kill(rng.choice(found), signal.SIGKILL)
                    killed.append(f"{victim} at {count_rows(store):,} images")
                    print(f"  {len(killed)}: {killed[-1]}", flush=True)
                    if victim != "worker":
                        break
            if len(killed) == n_kills and driver.poll() is None:
                break
            driver.wait(300)
            end_family(driver.pid)
        if driver.returncode == 0 and len(killed) < n_kills:
            print("  was done; starts anew", flush=True)
            for path in store.glob("*.parquet"):
                path.unlink()
    return killed


def find_victims(driver: int, kind: str) -> list[int]:
    """Return the processes of a kind that a driver has started."""
    if kind == "driver":
        return [driver]
    found = []
    for process in family(driver):
        try:
            words = " ".join(process.cmdline())
        except psutil.Error:
            continue
        is_worker = words.startswith("ray::") and "IDLE" not in words
        is_raylet = "/raylet/raylet " in words
        if (kind == "worker" and is_worker) or (kind == "raylet" and is_raylet):
            found.append(process.pid)
    return found


def family(driver: int) -> list[psutil.Process]:
    """Return all processes below a driver."""
    try:
        return psutil.Process(driver).children(recursive=True)
    except psutil.Error:
        return []


def end_family(driver: int) -> None:
    """End what is left of a run."""
    for process in family(driver):
        try:
            process.kill()
        except psutil.Error:
            continue


def count_rows(store: Path) -> int:
    """Return how many images a folder has."""
    return sum(pq.read_metadata(path).num_rows for path in store.glob("*.parquet"))


def read_rows(store: Path) -> dict[str, tuple]:
    """Return name -> all that a folder has of it; each name may be there once."""
    rows: dict[str, tuple] = {}
    for path in store.glob("*.parquet"):
        table = pq.read_table(path, page_checksum_verification=True)
        vectors = table["vector"].combine_chunks().values.to_numpy().reshape(len(table), -1)
        others = table.drop_columns(["vector"]).to_pylist()
        for row, vector in zip(others, vectors, strict=True):
            assert row["name"] not in rows, f"{row['name']} is there twice"
            rows[row["name"]] = (row["content"], row["problem"], vector.tobytes())
    return rows


if __name__ == "__main__":
    main()
