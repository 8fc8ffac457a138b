"""How long an epoch takes beside its steps: what the trainers' loop and the making of batches add on a CPU.

    python results/pipeline.py     rewrites results/pipeline.json

The net whose steps are the shortest, whole epochs of as many random images as CIFAR-10's training has. An epoch's seconds
are divided by those of them that passed in the framework's half, where the steps are made and their results fetched; as
both are of the same epoch, other work on the machine does not tell. A step begins with carrying its batch out (gather, crop,
flip, normalise), which is timed alone after the epochs.
"""
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from training import loop, options  # noqa: E402
from training.benchmark import spread  # noqa: E402
from training.data import Data, Split  # noqa: E402
from training.files import write_json  # noqa: E402
from training.run import environment  # noqa: E402

NET, BATCH_SIZES, FRAMEWORKS = "cnn_1x1", (32, 128), ("torch", "jittor")
EPOCHS, IMAGES = 5, 45_000


def row(framework: str, batch_size: int) -> dict:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 3, 32, 32), "uint8")
    split = Split(images, rng.integers(0, 10, IMAGES, "int32"))
    data = Data("random", split, Split(images[:0], split.labels[:0]), split, tuple("0123456789"), (0.5,) * 3, (0.25,) * 3,
                4, True, "random pixels")
    args = options.parse(framework, ["--net", NET, "-b", str(batch_size)])
    engine = importlib.import_module(f"train_{framework}").Engine(args, data)
    plan, schedule = loop.plan_and_schedule(args, data)
    passed = {}

    def timed(part, call):
        def called(*args):
            start = time.perf_counter()
            try:
                return call(*args)
            finally:
                passed[part] += time.perf_counter() - start
        return called

    engine.step, engine.fetch = timed("steps", engine.step), timed("steps", engine.fetch)
    batches = plan.epoch
    plan.epoch = lambda k: iter(timed("making", batches(k).__next__), None)
    epochs = []
    for k in range(1 + EPOCHS):
        passed.update(steps=0.0, making=0.0)
        epochs.append({"epoch": loop._train_epoch(engine, plan, schedule, 1, args, None)["seconds"], **passed})
    del epochs[0]  # it warms
    carrying = []
    for batch in plan.epoch(1):
        start = time.perf_counter()
        engine.inputs("train", batch)[0].numpy()
        carrying.append(time.perf_counter() - start)
    ratio, least, largest = spread([seconds["epoch"] / seconds["steps"] for seconds in epochs])
    return {"framework": framework, "batch_size": batch_size, "ratio": ratio, "least": least, "largest": largest,
            "carrying_ms": 1e3 * spread(carrying)[0],
            **{f"{part}_ms": 1e3 * spread([seconds[part] for seconds in epochs])[0] / len(plan) for part in passed}}


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(row(sys.argv[1], int(sys.argv[2]))))
        return
    rows = [json.loads(subprocess.run([sys.executable, __file__, framework, str(size)], cwd=ROOT, check=True,
                                      capture_output=True, text=True).stdout.splitlines()[-1])
            for size in BATCH_SIZES for framework in FRAMEWORKS]
    write_json(Path(__file__).with_suffix(".json"), {
        "net": NET, "epochs": EPOCHS, "images": IMAGES, "rows": rows,
        "environment": environment(("jittor", "torch", "numpy"))})


if __name__ == "__main__":
    main()
