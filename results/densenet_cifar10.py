"""The main job, measured: DenseNet on CIFAR-10 for 3 epochs in both frameworks.

    python results/densenet_cifar10.py DATA_DIR

DATA_DIR holds the images as train/<class>/* and test/<class>/*. Both trainers start from the same
weights and see the same batches, one after the other, never at once. Then the first 20 losses are
compared with those of PyTorch itself from weights and inputs one ulp away, which is as far as
float32 rounding lets two right programs part. Writes to results/densenet_cifar10/.
"""
from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from parity import weights  # noqa: E402
from parity.truth import all_one_ulp, one_ulp  # noqa: E402
from training import datasets, loop, options, plots  # noqa: E402

OUT = ROOT / "results" / "densenet_cifar10"
OPTIONS = ["--net", "densenet", "--dataset", "folder", "--epochs", "3", "--seed", "0"]
STEPS, SEEDS = 20, (1, 2, 3, 4, 5)
KEPT = ("args.json", "log.csv", "steps.csv", "result.json")


def train(framework: str, data_dir: str, *arguments) -> None:
    """Run one trainer and keep its logs."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        command = [sys.executable, f"train_{framework}.py", *OPTIONS, "--data-dir", data_dir,
                   *map(str, arguments), "--output-dir", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True)
        (OUT / framework).mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            shutil.copy(folder / name, OUT / framework / name)


def losses(engine, data, args) -> list[float]:
    """The first losses of a training."""
    plan, schedule = loop.plan_and_schedule(args, data)
    batches = zip(range(STEPS), plan.epoch(0))
    return engine.fetch([engine.step(batch, schedule(step))[0] for step, batch in batches])


def first_losses(data_dir: str, init: Path) -> None:
    """first_losses.csv: both frameworks, and PyTorch from inputs and weights one ulp away."""
    import train_jittor  # before train_torch: Jittor wants to import torch itself
    import train_torch
    columns, start = {}, weights.read(init)
    trainers = {"jittor": train_jittor, "torch": train_torch}
    runs = [("jittor", "jittor", None), ("torch", "torch", None),
            *((f"torch_ulp{seed}", "torch", seed) for seed in SEEDS)]
    parsed = {framework: options.parse(framework, [*OPTIONS, "--data-dir", data_dir]) for framework in trainers}
    shared = parsed["torch"]
    data = datasets.load(shared.dataset, shared.data_dir, shared.val_fraction, shared.seed)
    for name, framework, seed in runs:
        args = parsed[framework]
        engine = trainers[framework].Engine(args, data)
        arrays = start
        if seed is not None:
            rng = np.random.default_rng(seed)
            arrays = all_one_ulp(rng, start)
            engine.inputs.table = engine.inputs._put(one_ulp(rng, data.table()))
        weights.load(engine.net, arrays)
        columns[name] = losses(engine, data, args)
    with open(OUT / "first_losses.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *columns])
        writer.writerows([i + 1, *(f"{v:.9g}" for v in row)]
                         for i, row in enumerate(zip(*columns.values())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", metavar="DATA_DIR", help="images as train/CLASS/*, test/CLASS/*")
    data_dir = parser.parse_args().data_dir
    with tempfile.TemporaryDirectory() as scratch:
        init = Path(scratch) / "init.safetensors"
        train("torch", data_dir, "--save-init", init)
        train("jittor", data_dir, "--init-from", init)
        first_losses(data_dir, init)
    plots.compare_curves({name: OUT / name / "log.csv" for name in ("torch", "jittor")},
                         OUT / "curves.png", "densenet on CIFAR-10 (JPEG copy), 3 epochs")


if __name__ == "__main__":
    main()
