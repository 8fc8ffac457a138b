"""Checks Jittor's own `jittor.models` against `torchvision.models`, as an outside use of the judge.

    python results/jittor_models.py [NAME ...]      rewrites the rows of results/jittor_models.json

Each pair runs in a process of its own, with ten classes where Jittor's allows it, in float64: weights,
outputs, gradients and buffers. In the file: per level the worst check, where a failure begins, what could not be judged.
"""
from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from parity import report as reports  # noqa: E402
from training.files import write_json  # noqa: E402

RESULTS = ROOT / "results" / "jittor_models.json"
LEVELS = ("weights", "eval", "train", "gradients", "buffers")
# One of each kind that both libraries have; the smallest image that both take, four of them.
SIZES = {"alexnet": 224, "densenet121": 64, "googlenet": 128, "inception_v3": 128, "mnasnet1_0": 64,
         "mobilenet_v2": 64, "resnet18": 64, "resnet50": 64, "shufflenet_v2_x1_0": 64,
         "squeezenet1_1": 64, "vgg11_bn": 224}
ONLY_1000 = ("mnasnet1_0", "mobilenet_v2", "shufflenet_v2_x1_0")  # Jittor's take no num_classes


def main(names: list[str]) -> int:
    rows = {row["net"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.is_file() else {}
    for name in names or SIZES:
        rows[name] = row(name)
        write_json(RESULTS, [rows[n] for n in SIZES if n in rows])
        print(f"{name}: {'passed' if rows[name]['passed'] else rows[name]['text']}", flush=True)
    return 0


def row(name: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        arguments = {} if name in ONLY_1000 else {"num_classes": 10}
        command = [sys.executable, "-m", "parity", "check", f"jittor.models:{name}",
                   f"torchvision.models:{name}", "--input", f"4x3x{SIZES[name]}x{SIZES[name]}",
                   "--args", json.dumps(arguments), "--verdict", "structure",
                   "--level", *LEVELS, "--json", str(path)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              text=True)
        if not path.is_file():
            error = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
            return {"net": name, "passed": False, "levels": {}, "text": (error or ["no report"])[-1],
                    "environment": {}}
        report = reports.load(path)
    levels = {level: {"passed": check.passed, "tensor": check.tensor, "note": check.note,
                      "error_u": check.error if check.error < float("inf") else None}
              for (_, level), check in report.worst().items()}
    where = {key: value for key, value in report.environment.items() if key != "command"}
    return {"net": name, "passed": report.passed, "levels": levels, "text": str(report),
            "environment": where}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
