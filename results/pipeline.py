"""How long an epoch takes beside its steps: what the trainers' loop and the making of batches add on a CPU.

    python results/pipeline.py     rewrites results/pipeline.json

The net whose steps are the shortest, on as many random images as CIFAR-10 has. The training loop and the same steps on
batches that were made before take turns; so does the making of these, alone.
"""
import importlib
import itertools
import json
import statistics
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
STEPS, ROUNDS, IMAGES = 100, 45, 45_000


def row(framework: str, batch_size: int) -> dict:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 3, 32, 32), "uint8")
    split = Split(images, rng.integers(0, 10, IMAGES, "int32"))
    data = Data("random", split, Split(images[:0], split.labels[:0]), split, tuple("0123456789"), (0.5,) * 3, (0.25,) * 3,
                4, True, "random pixels")
    args = options.parse(framework, ["--net", NET, "-b", str(batch_size), "--limit-batches", str(STEPS)])
    engine = importlib.import_module(f"train_{framework}").Engine(args, data)
    plan, schedule = loop.plan_and_schedule(args, data)

    def epoch() -> float:
        return loop._train_epoch(engine, plan, schedule, 1, args, None)["seconds"]

    def making() -> float:
        start = time.perf_counter()
        batches[:] = itertools.islice(plan.epoch(0), STEPS)
        return time.perf_counter() - start

    def steps() -> float:
        start, values = time.perf_counter(), []
        for index, batch in enumerate(batches, 1):
            values += engine.step(batch, schedule(0))
            if index % loop.FETCH == 0 or index in (1, STEPS):
                engine.fetch(values)
                values = []
        return time.perf_counter() - start
    batches, turns = [], []
    for turn in range(ROUNDS + 1):
        kinds = [making, steps, epoch] if turn % 2 else [epoch, making, steps]
        turns.append({kind: kind() for kind in kinds})
    del turns[0]  # it warms
    ratios = [turn[epoch] / turn[steps] for turn in turns]
    return {"framework": framework, "batch_size": batch_size, **dict(zip(("ratio", "least", "largest"), spread(ratios))),
            **{f"{kind.__name__}_ms": 1e3 * statistics.median(turn[kind] for turn in turns) / STEPS
                                       for kind in (steps, making)}}


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(row(sys.argv[1], int(sys.argv[2]))))
        return
    rows = [json.loads(subprocess.run([sys.executable, __file__, framework, str(size)], cwd=ROOT, check=True,
                                      capture_output=True, text=True).stdout.splitlines()[-1])
            for size in BATCH_SIZES for framework in FRAMEWORKS]
    write_json(Path(__file__).with_suffix(".json"), {
        "net": NET, "steps": STEPS, "rounds": ROUNDS, "images": IMAGES, "rows": rows,
        "environment": environment(("jittor", "torch", "numpy"))})


if __name__ == "__main__":
    main()
