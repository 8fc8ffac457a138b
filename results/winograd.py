"""3x3 convolutions of ResNet's and other nets' shapes on a CPU: `jt_models.winograd` and Jittor's oneDNN, in turn.

    python results/winograd.py     rewrites results/winograd.json

Per shape the median seconds of a forward pass, and of one with both gradients, with the ratio of each pair of turns; and
the worst error of outputs and gradients, of the first four images, against PyTorch in float64.
"""
import statistics
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from jt_models.winograd import Winograd  # noqa: E402  (imports PyTorch first)
import jittor as jt  # noqa: E402
import torch  # noqa: E402
from parity.truth import U, error  # noqa: E402
from training.benchmark import spread  # noqa: E402
from training.files import write_json  # noqa: E402
from training.run import environment  # noqa: E402

# Images, channels in and out, height and width.
SHAPES = [(32, 64, 64, 32), (32, 128, 128, 16), (32, 256, 256, 8), (32, 512, 512, 4), (128, 512, 512, 4), (32, 16, 16, 32),
          (32, 32, 32, 32), (32, 128, 32, 16), (32, 64, 96, 7), (8, 64, 64, 112), (1, 64, 64, 32), (32, 8, 8, 32)]
ROUNDS, CHECKED = 9, 4
WAYS = {"onednn": lambda x, weight: jt.nn.conv2d(x, weight, None, 1, 1), "winograd": lambda x, weight: Winograd(1)(x, weight)}


def forward(way, x, weight, g):
    with jt.no_grad():
        return [way(x, weight)]


def training(way, x, weight, g):
    y = way(x, weight)
    return [y, *jt.grad((y * g).sum(), [x, weight])]


def seconds(work, *arguments) -> float:
    jt.sync_all(True)
    start = time.perf_counter()
    jt.sync(work(*arguments), True)
    return time.perf_counter() - start


def row(shape: tuple[int, int, int, int]) -> dict:
    images, fan_in, fan_out, side = shape
    normal = np.random.default_rng(0).standard_normal
    arrays = [normal(s).astype("float32") for s in (
        (images, fan_in, side, side), (fan_out, fan_in, 3, 3), (images, fan_out, side, side))]
    x, weight, g = map(jt.array, arrays)
    measured = {}
    for phase, work in (("forward", forward), ("training", training)):
        taken = {name: [] for name in WAYS}
        for turn in range(ROUNDS + 1):
            for name in list(WAYS)[::1 if turn % 2 else -1]:
                took = min(seconds(work, WAYS[name], x, weight, g) for _ in range(2))
                taken[name] += [took] if turn else []  # the first compiles
        ratios = [theirs / ours for theirs, ours in zip(taken["onednn"], taken["winograd"])]
        measured[phase] = {**{name: statistics.median(times) for name, times in taken.items()},
                           **dict(zip(("ratio", "least", "largest"), spread(ratios)))}
    few = [arrays[0][:CHECKED], arrays[1], arrays[2][:CHECKED]]
    inputs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in few[:2]]
    y = torch.nn.functional.conv2d(*inputs, padding=1)
    y.backward(torch.tensor(few[2], dtype=torch.float64))
    right = [y.detach().numpy(), *(v.grad.numpy() for v in inputs)]
    errors = {name: [error(a.numpy(), b).worst / U for a, b in zip(training(way, *map(jt.array, few)), right)]
              for name, way in WAYS.items()}
    return {"shape": shape, **measured, "error_u": errors}


if __name__ == "__main__":
    write_json(Path(__file__).with_suffix(".json"), {
        "rounds": ROUNDS, "checked": CHECKED, "environment": environment(("jittor", "torch", "numpy")),
        "rows": [row(shape) for shape in SHAPES]})
