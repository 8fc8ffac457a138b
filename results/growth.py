"""How the cost of a training step grows with batch size and image size.

    python results/growth.py        runs bench.py, then draws results/growth/growth.png

An hour or less on two cores.
"""
import csv
import shutil
import subprocess
import sys
from pathlib import Path

from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "results" / "growth"
NETS = ("cnn_1x1", "resnet20_cifar", "densenet", "mobilenet")
COLUMNS = {"torch": "-", "jittor": "--"}
BATCHES, SIDES, SMALLEST = (8, 32, 128, 512), (32, 64, 128, 224), 8


def measure() -> int:
    """bench.py's exit code."""
    for side in SIDES:
        batches = BATCHES if side == SIDES[0] else (SMALLEST,)
        shutil.rmtree(OUT / str(side), ignore_errors=True)  # which may be of another machine
        code = subprocess.run([sys.executable, "bench.py", *NETS, "-b", *map(str, batches), "--image-size", str(side),
                               "--columns", *COLUMNS, "--rounds", "3", "--batches", "1",
                               "--output-dir", f"results/growth/{side}"], cwd=ROOT).returncode
        if code:
            return code
    return 0


def draw() -> None:
    """One colour a net, PyTorch solid and Jittor dashed."""
    found = {}
    for side in SIDES:
        path, = (OUT / str(side)).glob("*.csv")  # of one machine and its versions
        for row in csv.DictReader(path.open()):
            key = row["phase"], row["net"], row["column"], int(row["batch_size"]), int(row["image_size"])
            found[key] = float(row["images_per_second"])
    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, net in enumerate(NETS):
        for column, style in COLUMNS.items():
            look = {"color": f"C{number}", "linestyle": style, "marker": "."}
            left.plot(BATCHES, [found["train", net, column, batch, SIDES[0]] for batch in BATCHES], **look,
                      label=f"{net}, {column}")
            right.plot(SIDES, [found["train", net, column, SMALLEST, side] * side**2 / 1e6 for side in SIDES], **look)
    left.set(xlabel=f"images a batch, of {SIDES[0]}x{SIDES[0]}", ylabel="images a second")
    right.set(xlabel=f"height and width of {SMALLEST} images", ylabel="megapixels a second")
    for axis, ticks in ((left, BATCHES), (right, SIDES)):
        axis.set(xscale="log", yscale="log")
        axis.set_xticks(ticks, labels=map(str, ticks))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    figure.savefig(OUT / "growth.png", metadata={"Software": None})


if __name__ == "__main__":
    failed = measure()
    if not failed:
        draw()
    sys.exit(failed)
