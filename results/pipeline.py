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

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from training import loop, options  # noqa: E402
from training.bench_worker import random_data  # noqa: E402
from training.benchmark import spread  # noqa: E402
from training.files import write_json  # noqa: E402
from training.run import environment  # noqa: E402

NET, BATCH_SIZES, FRAMEWORKS = "cnn_1x1", (32, 128), ("torch", "jittor")
EPOCHS, IMAGES = 5, 45_000


def row(framework: str, batch_size: int) -> dict:
    data = random_data(NET, 32, IMAGES // 2)
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
    for _ in range(1 + EPOCHS):
        passed.update(steps=0.0, making=0.0)
        epochs.append({"epoch": loop._train_epoch(engine, plan, schedule, 1, args, None)["seconds"], **passed})
    del epochs[0]  # it warms
    ratio, least, largest = spread([seconds["epoch"] / seconds["steps"] for seconds in epochs])
    found = {f"{part}_ms": 1e3 * spread([seconds[part] for seconds in epochs])[0] / len(plan) for part in passed}
    passed["carrying"] = 0.0
    carry = timed("carrying", lambda batch: engine.inputs("train", batch)[0].numpy())
    for batch in plan.epoch(1):
        carry(batch)
    return {"framework": framework, "batch_size": batch_size, "ratio": ratio, "least": least, "largest": largest, **found,
            "carrying_ms": 1e3 * passed["carrying"] / len(plan)}


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
