"""Convolutions of the nets' shapes on a CPU: `jt_models.winograd` or products of matrices, and Jittor's oneDNN, in turn.

    python results/convolutions.py     rewrites what results/convolutions.json has of this machine

Per shape the median seconds of a forward pass, and of one with both gradients, with the ratio of each pair of turns; and
the worst error of outputs and gradients, of the first four images, against PyTorch in float64.
"""
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from jt_models.folded import Folded, fits  # noqa: E402  (imports PyTorch first)
from jt_models.product import Product  # noqa: E402
from jt_models.winograd import Winograd  # noqa: E402
import jittor as jt  # noqa: E402
import torch  # noqa: E402
from parity.truth import U, error  # noqa: E402
from training.benchmark import spread  # noqa: E402
from training.files import write_json  # noqa: E402
from training.run import environment  # noqa: E402

THREE = (3, 3), 1, (1, 1)
# Images, channels in and out, height and width, kernel, stride, padding.
SHAPES = {
    "filtering": [(32, 64, 64, 32, *THREE), (32, 128, 128, 16, *THREE), (32, 256, 256, 8, *THREE), (32, 512, 512, 4, *THREE),
                  (128, 512, 512, 4, *THREE), (32, 16, 16, 32, *THREE), (32, 32, 32, 32, *THREE), (32, 128, 32, 16, *THREE),
                  (32, 64, 96, 7, *THREE), (8, 64, 64, 112, *THREE), (1, 64, 64, 32, *THREE), (32, 12, 12, 32, *THREE),
                  (32, 8, 8, 32, *THREE)],
    "product": [(32, 128, 256, 16, (3, 3), 2, (1, 1)), (32, 256, 512, 8, (3, 3), 2, (1, 1)),
                (32, 288, 384, 7, (3, 3), 2, (0, 0)), (32, 192, 192, 3, (1, 7), 1, (0, 3)),
                (32, 192, 192, 3, (7, 1), 1, (3, 0)), (32, 384, 384, 1, (1, 3), 1, (0, 1)), (32, 448, 384, 1, *THREE),
                (32, 64, 64, 32, (1, 1), 1, (0, 0)), (32, 256, 128, 16, (1, 1), 1, (0, 0)),
                (32, 128, 256, 16, (1, 1), 2, (0, 0)), (32, 64, 128, 32, (3, 3), 2, (1, 1)), (32, 48, 64, 7, (5, 5), 1, (2, 2))],
}
ROUNDS, CHECKED = 9, 4


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


def row(kind: str, shape: tuple) -> dict:
    images, fan_in, fan_out, side, kernel, stride, padding = shape
    normal = np.random.default_rng(0).standard_normal
    down, across = ((side + 2 * p - k) // stride + 1 for p, k in zip(padding, kernel))
    arrays = [normal(s).astype("float32") for s in (
        (images, fan_in, side, side), (fan_out, fan_in, *kernel), (images, fan_out, down, across))]
    x, weight, g = map(jt.array, arrays)
    by_product = Folded if fits(x, weight, (stride, stride), padding) else Product
    own = Winograd(padding[0]) if kind == "filtering" else by_product((stride, stride), padding)
    ways = {"onednn": lambda x, weight: jt.nn.conv2d(x, weight, None, stride, padding), "ours": own}
    measured = {}
    for phase, work in (("forward", forward), ("training", training)):
        taken = {name: [] for name in ways}
        for turn in range(ROUNDS + 1):
            for name in list(ways)[::1 if turn % 2 else -1]:
                took = min(seconds(work, ways[name], x, weight, g) for _ in range(2))
                taken[name] += [took] if turn else []  # the first compiles
        ratios = [theirs / ours for theirs, ours in zip(taken["onednn"], taken["ours"])]
        measured[phase] = {**{name: statistics.median(times) for name, times in taken.items()},
                           **dict(zip(("ratio", "least", "largest"), spread(ratios)))}
    few = [arrays[0][:CHECKED], arrays[1], arrays[2][:CHECKED]]
    inputs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in few[:2]]
    y = torch.nn.functional.conv2d(*inputs, stride=stride, padding=padding)
    y.backward(torch.tensor(few[2], dtype=torch.float64))
    right = [y.detach().numpy(), *(v.grad.numpy() for v in inputs)]
    errors = {name: [error(a.numpy(), b).worst / U for a, b in zip(training(way, *map(jt.array, few)), right)]
              for name, way in ways.items()}
    return {"kind": kind, "shape": shape, **measured, "error_u": errors}


if __name__ == "__main__":
    path = Path(__file__).with_suffix(".json")
    made = {"rounds": ROUNDS, "checked": CHECKED, "environment": environment(("jittor", "torch", "numpy")),
            "rows": [row(kind, shape) for kind, shapes in SHAPES.items() for shape in shapes]}
    others = [one for one in json.loads(path.read_text()) if one["environment"]["cpu"] != made["environment"]["cpu"]]
    write_json(path, [*others, made])
