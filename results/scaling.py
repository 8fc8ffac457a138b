"""Training on several devices: measured with processes on this machine, calculated for more.

    python results/scaling.py            rewrites results/scaling.json; some minutes
"""
from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from training.finished import read  # noqa: E402
from training.files import write_json  # noqa: E402
from training.run import environment  # noqa: E402

FILE = ROOT / "results" / "scaling.json"
BENCH = ROOT / "results" / "gpu" / "bench" / "NVIDIA_H200-jittor1.3.11.0-torch2.11.0-float32.json"
MEASURED = ("lenet_bn", "mobilenet_slim")
CALCULATED = ("resnet18", "vgg16_bn", "densenet121", "mobilenet")
OPTIONS = ["--dataset", "digits", "-b", "64", "--epochs", "4", "--limit-batches", "5"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
# Words before and after the number of ranks.
LAUNCHERS = {"torch": (TORCHRUN, []),
             "jittor": (["mpirun", "--oversubscribe", "--bind-to", "none", "-np"], [sys.executable])}


def measure() -> list[dict]:
    """Images per second of the epochs after the first, on one and on two ranks of one thread each."""
    rows = []
    for net in MEASURED:
        for framework, (before, after) in LAUNCHERS.items():
            row = {"net": net, "framework": framework}
            for ranks in (1, 2):
                with tempfile.TemporaryDirectory() as folder:
                    subprocess.run([*before, str(ranks), *after, str(ROOT / f"train_{framework}.py"),
                                    "--net", net, *OPTIONS, "--output-dir", f"{folder}/run"], cwd=ROOT,
                                   check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
                    log = read(Path(folder) / "run").log[1:]
                row[str(ranks)] = sorted(epoch["images_per_second"] for epoch in log)
            rows.append(row)
            print(row, flush=True)
    return rows


@dataclass(frozen=True)
class Machine:
    """What gradients travel through.

    Attributes:
        inside, network: bytes a second in one direction, between the devices of a node and between nodes.
        latency: seconds of one hop.
        node: devices of a node.
    """
    inside: float
    network: float
    latency: float
    node: int = 8


def ring(size: float, devices: int, machine: Machine) -> float:
    """Seconds of a ring all-reduce of so many bytes: each device sends 2 (n - 1) messages of size / n
    (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations"), and the
    ring is as fast as its slowest link."""
    bandwidth = machine.inside if devices <= machine.node else min(machine.inside, machine.network)
    return 2 * (devices - 1) * (size / devices / bandwidth + machine.latency)


def step(compute: float, params: int, devices: int, machine: Machine) -> tuple[float, float]:
    """(seconds of a training step, seconds of it in which a device waits for gradients).

    The backward pass has twice the operations of the forward pass, and gradients are sent while it runs.

    Args:
        compute: seconds of a step on one device.
        params: float32 numbers of the gradient.
    """
    waits = max(0.0, ring(4 * params, devices, machine) - compute * 2 / 3) if devices > 1 else 0.0
    return compute + waits, waits


def hidden_up_to(compute: float, params: int, machine: Machine, most: int = 4096) -> int:
    """The largest number of devices, of powers of two up to `most`, at which no device waits."""
    counts = [2 ** k for k in range(most.bit_length())]
    return max(n for n in counts if step(compute, params, n, machine)[1] == 0)


# Assumed, not measured: an H200's NVLink in one direction (its data sheet: 900 GB/s in both), and 5 microseconds a hop.
LINKS = {"25 Gb/s": 25e9 / 8, "100 Gb/s": 100e9 / 8, "400 Gb/s": 400e9 / 8}
NVLINK, LATENCY = 450e9, 5e-6
DEVICES = (1, 8, 64, 256, 512)


def measured_rows() -> tuple[list[str], list[list[str]]]:
    """Header and rows of the committed measurement."""
    body = []
    for row in json.loads(FILE.read_text())["rows"]:
        one, two = (statistics.median(row[ranks]) for ranks in ("1", "2"))
        spread = [f"{row[ranks][0]:.1f} to {row[ranks][-1]:.1f}" for ranks in ("1", "2")]
        body.append([f"`{row['net']}`", row["framework"], f"{one:.1f} ({spread[0]})",
                     f"{two:.1f} ({spread[1]})", f"{two / one:.2f}"])
    return ["net", "framework", "images/s, 1 rank", "images/s, 2 ranks", "ratio of the medians"], body


def measured_steps() -> tuple[dict[tuple[str, str], float], dict]:
    """(net, framework) -> seconds of a training step on one GPU, the median of the committed rounds, of PyTorch's layouts
    the faster one; and bench.py's record of them."""
    made = json.loads(BENCH.read_text())
    found: dict[tuple[str, str], float] = {}
    for row in made["rows"]:
        key, seconds = (row["net"], row["column"].split("-")[0]), statistics.median(row["seconds"]["train"])
        found[key] = min(seconds, found.get(key, seconds))
    return found, made


def calculated_rows() -> tuple[list[str], list[list[str]]]:
    """Header and rows of what follows from the measured steps and the assumptions above."""
    import torch
    import torch_ref
    steps, made = measured_steps()
    (size,) = {row["image_size"] for row in made["rows"]}
    body = []
    for net in CALCULATED:
        with torch.device("meta"):
            params = sum(p.numel() for p in torch_ref.create(net, 10, 3, size).parameters())
        for framework in ("torch", "jittor"):
            compute = steps[net, framework]
            for link, bandwidth in LINKS.items():
                machine = Machine(NVLINK, bandwidth, LATENCY)
                cells = []
                for n in DEVICES:
                    seconds, waits = step(compute, params, n, machine)
                    cells.append(f"{1e3 * seconds:.1f} ms" + (f" ({waits / seconds:.0%})" if waits else ""))
                most = hidden_up_to(compute, params, machine)
                body.append([f"`{net}`", f"{4 * params / 1e6:.0f} MB", framework, link, *cells,
                             f"{most} GPUs" if most > 1 else "never"])
    counts = [f"{n} GPU{'s' if n > 1 else ''}" for n in DEVICES]
    return ["net", "gradient", "framework", "link of a node", *counts, "hidden up to"], body


def main() -> int:
    rows = measure()
    write_json(FILE, {"command": "python results/scaling.py", "options": OPTIONS, "rows": rows,
                      **environment(("jittor", "torch", "numpy"))})
    return 0


if __name__ == "__main__":
    sys.exit(main())
