"""One process of a benchmark (see training.benchmark): a net in one framework, which runs when it is told to.

    python -m training.bench_worker COLUMN NET IMAGE_SIZE BATCH_SIZE

It imports the framework, says so, and does no more before the first line on stdin, "build 1". Each further one is a
phase and a number of batches, "train 3" or "evaluate 3", before which one runs that does not count: after the turns
of others caches are cold. The answer to a line is a line of JSON on stdout. What a framework prints goes to stderr.
"""
from __future__ import annotations

import importlib
import itertools
import json
import os
import sys
import time

import numpy as np

from zoo.catalog import NETS, input_size

from . import loop, options
from .data import Data, Split, evaluation_batches

COLUMNS = {
    "torch": ("torch", []),
    "torch-channels-last": ("torch", ["--channels-last"]),
    "torch-compile": ("torch", ["--compile"]),
    "torch-amp": ("torch", ["--amp"]),
    "jittor": ("jittor", []),
    "jittor-stock": ("jittor", ["--kernels", "stock"]),
}


def image_size(net: str, wanted: int | None = None) -> int:
    """Pixels of a net's images: `wanted`, else those of CIFAR-10 or MNIST; more if the net needs them."""
    return input_size(net, wanted or (28 if NETS[net].channels == 1 else 32))


def random_data(net: str, size: int, batch_size: int) -> Data:
    """Two batches of random images to train on and one to evaluate, as large as CIFAR-10's are augmented."""
    rng, channels, classes = np.random.default_rng(0), NETS[net].channels, NETS[net].classes

    def split(n):
        return Split(rng.integers(0, 256, (n, channels, size, size), "uint8"),
                     rng.integers(0, classes, n, "int32"))
    return Data("random", split(2 * batch_size), split(0), split(batch_size), tuple(map(str, range(classes))),
                (0.5,) * channels, (0.25,) * channels, size // 8, True, "random pixels")


class Work:
    """A trainer's engine on random images.

    Attributes:
        first: seconds of the first training step, in which Jittor compiles what its cache lacks.
    """

    def __init__(self, column: str, net: str, size: int, batch_size: int):
        self.framework, chosen = COLUMNS[column]
        trainer = importlib.import_module(f"train_{self.framework}")
        data = random_data(net, size, batch_size)
        args = options.parse(self.framework, ["--net", net, "-b", str(batch_size), *chosen])
        self.engine = trainer.Engine(args, data)
        plan, schedule = loop.plan_and_schedule(args, data)
        self.batches = itertools.chain.from_iterable(map(plan.epoch, itertools.count()))
        self.test = next(evaluation_batches(batch_size, batch_size, size))
        self.rate = schedule(0)
        self.first = self.train(1)

    def train(self, count: int) -> float:
        """Seconds of so many training steps."""
        batches, values = list(itertools.islice(self.batches, count)), []
        start = time.perf_counter()
        for batch in batches:
            values += self.engine.step(batch, self.rate)
        self.engine.fetch(values)  # all, as the loop does: Jittor does not compute what nobody asks for
        self._wait()
        return time.perf_counter() - start

    def evaluate(self, count: int) -> float:
        """Seconds of the logits of so many batches, in evaluation mode."""
        self._wait()
        start = time.perf_counter()
        for _ in self.engine.outputs("test", [self.test] * count):
            pass
        return time.perf_counter() - start

    def _wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.framework == "jittor":
            self.engine.jt.sync_all(True)
        elif self.engine.device.type == "cuda":
            self.engine.torch.cuda.synchronize()


def limits() -> dict:
    """What the device of the trainers can do, by PyTorch in float32: "flops" (a second, in a product of two
    square matrices) and "bytes" (a second, read and written in a copy), the best of five each; and the name
    of the "gpu", or None. On a CPU matrices have 2048 rows and copies 256 MB, on a GPU 8192 and 4 GB."""
    import torch
    gpu = torch.cuda.is_available()
    side, numbers = (8192, 2**30) if gpu else (2048, 2**26)
    device = "cuda" if gpu else "cpu"
    a, b, c = (torch.rand(side, side, device=device) for _ in range(3))
    source, target = torch.rand(numbers, device=device), torch.empty(numbers, device=device)

    def best(work) -> float:
        times = []
        for _ in range(6):  # the first warms
            start = time.perf_counter()
            work()
            if gpu:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return min(times[1:])
    return {"flops": 2 * side**3 / best(lambda: torch.mm(a, b, out=c)),
            "bytes": 2 * 4 * numbers / best(lambda: target.copy_(source)),
            "gpu": torch.cuda.get_device_name() if gpu else None}


def main(argv: list[str]) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value) -> None:
        print(json.dumps(value), file=answers, flush=True)

    if argv == ["limits"]:
        return answer(limits())
    column, net, size, batch_size = argv
    importlib.import_module(options.ZOOS[COLUMNS[column][0]])
    answer("imported")
    if not sys.stdin.readline():
        return  # the benchmark has ended
    work = Work(column, net, int(size), int(batch_size))
    answer({"first_step": work.first, "environment": work.engine.environment()})
    for line in sys.stdin:
        phase, count = line.split()
        turn = getattr(work, phase)
        turn(1)
        seconds = turn(int(count))
        answer({"seconds": seconds, "peak_memory_mb": work.engine.peak_memory()})


if __name__ == "__main__":
    main(sys.argv[1:])
