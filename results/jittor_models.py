"""Checks Jittor's own `jittor.models` against `torchvision.models`, as an outside use of the judge.

    python results/jittor_models.py [NAME ...] [--jobs N]      rewrites the rows of results/jittor_models.json

Each pair runs in a process of its own, with ten classes where Jittor's allows it, in float64: weights,
outputs, gradients and buffers. That models fail is what it finds; the exit code is then 1.
"""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import judged  # noqa: E402

LEVELS = ("weights", "eval", "train", "gradients", "buffers")
# One of each kind that both libraries have; the smallest image that both take, four of them.
SIZES = {"alexnet": 224, "densenet121": 64, "googlenet": 128, "inception_v3": 299, "mnasnet1_0": 64,
         "mobilenet_v2": 64, "resnet18": 64, "resnet50": 64, "shufflenet_v2_x1_0": 64,
         "squeezenet1_1": 64, "vgg11_bn": 224}
ONLY_1000 = ("mnasnet1_0", "mobilenet_v2", "shufflenet_v2_x1_0")  # Jittor's take no num_classes


def check(name: str, threads: int | None) -> dict:
    options = {} if name in ONLY_1000 else {"num_classes": 10}
    return judged.row(name, [f"jittor.models:{name}", f"torchvision.models:{name}", "--input",
                             f"4x3x{SIZES[name]}x{SIZES[name]}", "--args", json.dumps(options),
                             "--verdict", "structure", "--level", *LEVELS], threads)


if __name__ == "__main__":
    sys.exit(judged.main(__doc__, "jittor_models.json", list(SIZES), check))
