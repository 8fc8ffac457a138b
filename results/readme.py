"""Fills the README's tables from the built nets and the committed measurements.

    python results/readme.py            rewrite the tables
    python results/readme.py --check    exit with 1 if one of them is stale
"""
from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

README = ROOT / "README.md"
DENSENET = ROOT / "results" / "densenet_cifar10"


def rows(path: Path) -> list[dict]:
    with open(path) as file:
        return list(csv.DictReader(file))


def table(header: list[str], body: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def zoo() -> str:
    """Every net of the zoo, as `--list` prints them."""
    from train_torch import trace
    from zoo.summary import net_rows
    header, *body = net_rows(trace)
    return table(list(header), [[f"`{row[0]}`", *row[1:]] for row in body])


def densenet() -> str:
    """Accuracy, losses and times of both trainers in the committed run."""
    body = []
    for framework in ("torch", "jittor"):
        folder = DENSENET / framework
        args, result = (json.loads((folder / f"{name}.json").read_text()) for name in ("args", "result"))
        log = rows(folder / "log.csv")
        epochs = sorted(float(row["seconds"]) for row in log[1:])
        version = args["versions"][framework]
        body.append([f"{framework} {version}", f"{float(log[-1]['train_loss']):.4f}",
                     f"{float(log[-1]['val_acc']):.2%}", f"{result['test_acc']:.2%}",
                     f"{float(log[0]['seconds']):.0f} s",
                     f"{epochs[0]:.0f} to {epochs[-1]:.0f} s"])
    note = (f"Seed {args['options']['seed']}, {args['precision']}, {args['device']}: {args['cpu']}, "
            f"{args['cores']} cores, Python {args['python']}. Data: {args['data']}.")
    return table(["framework", "train loss, epoch 3", "validation", "test (last epoch)",
                  "first epoch (Jittor compiles in it)", "epochs 2 and 3"], body) + "\n\n" + note


def losses() -> str:
    """The first losses: Jittor's distance from PyTorch beside PyTorch's own from one ulp away."""
    found = rows(DENSENET / "first_losses.csv")
    moved = [name for name in found[0] if name.startswith("torch_ulp")]
    body = []
    for row in found:
        if int(row["step"]) not in (1, 2, 3, 5, 10, 15, 20):
            continue
        torch = float(row["torch"])
        own = [abs(float(row[name]) - torch) / torch for name in moved]
        body.append([row["step"], f"{torch:.6f}", f"{float(row['jittor']):.6f}",
                     f"{abs(float(row['jittor']) - torch) / torch:.1e}",
                     f"{min(own):.1e} to {max(own):.1e}"])
    return table(["step", "loss, torch", "loss, jittor", "relative difference",
                  f"torch itself, {len(moved)} runs from one ulp away"], body)


TABLES = {"zoo": zoo, "densenet": densenet, "losses": losses}


def filled(text: str) -> str:
    """The README with every table made anew."""
    for name, make in TABLES.items():
        block = re.compile(rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = block.subn(lambda match: f"{match[1]}{make()}\n{match[2]}", text)
        if count != 1:
            raise SystemExit(f"README.md has {count} tables named {name}")
    return text


def main() -> int:
    old = README.read_text(encoding="utf-8")
    new = filled(old)
    if "--check" in sys.argv[1:]:
        return int(new != old)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
