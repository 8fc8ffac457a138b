"""Speed and memory of nets in both frameworks, measured in processes that take turns.

    python bench.py resnet18 densenet --batch-size 32 128

Training steps are the trainers' own: augmentation on the device, forward, loss, backward, optimizer. Other
work on the machine spoils the times; the spread of the ratios tells. On a GPU, where there is one; the
variable NVIDIA_TF32_OVERRIDE=0 keeps its convolutions from TF32.
"""
from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from operator import itemgetter
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from train_torch import trace
from training import benchmark, cli, options
from training.bench_worker import COLUMNS, image_size
from training.files import check_writable, csv_text, write_json, write_text
from training.gpu import precision
from training.run import command, environment
from zoo.summary import totals


def main(argv: list[str] | None = None) -> int:
    return cli.main(lambda: _run(sys.argv[1:] if argv is None else argv))


def _parser() -> argparse.ArgumentParser:
    whole = options.number(int, 1)
    parser = options.Parser(
        prog="bench.py", formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__,
        epilog="Exit code: 0 done; 2 bad input, or a column broke (one line says which); 130 interrupted.")
    parser.add_argument("nets", metavar="NET", nargs="+", type=options.net, help="nets of the zoo")
    parser.add_argument("-b", "--batch-size", type=whole, nargs="+", default=[32], metavar="N",
                        help="images a step (default: 32)")
    parser.add_argument("--image-size", type=whole, metavar="PIXELS",
                        help="default: 32, and 28 for nets of one channel; a net may need more")
    parser.add_argument("--columns", nargs="+", metavar="COLUMN",
                        default=["torch", "torch-channels-last", "jittor"],
                        help=f"of {', '.join(COLUMNS)} (default: torch, torch-channels-last, jittor)")
    parser.add_argument("--rounds", type=whole, default=7, metavar="N",
                        help="how often each column has its turn (default: %(default)s)")
    parser.add_argument("--batches", type=whole, default=3, metavar="N",
                        help="batches in a turn (default: %(default)s)")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/bench"), metavar="DIR",
                        help="for the CSV and JSON files, named after hardware, versions and precision "
                        "(default: %(default)s)")
    return parser


def _run(argv: list[str]) -> None:
    args = _parser().parse_args(argv)
    columns = benchmark.columns(args.columns)
    check_writable(args.output_dir / "*")
    limits = benchmark.limits()
    where = {**environment(("jittor", "torch", "numpy")), "command": command("bench.py", argv), "seed": 0,
             "precision": precision("cuda" if limits["gpu"] else "cpu"), "limits": limits}
    path, name = args.output_dir, _name(where)
    cases = [(net, size, macs, batch) for net in dict.fromkeys(args.nets)
             for size in [image_size(net, args.image_size)] for macs in [totals(trace(net, size))[1]]
             for batch in dict.fromkeys(args.batch_size)]
    # A GPU's host has cores to spare.
    measured = benchmark.measured(cases, columns, args.rounds, args.batches,
                                  ahead=int(bool(limits["gpu"]) and where["cores"] >= 8))
    rows = []
    for own in tqdm(measured, "measuring", total=len(cases), leave=False, disable=None):  # where stderr is a terminal
        rows += own
        found = benchmark.table(rows, limits["flops"])
        write_json(path / f"{name}.json", {**where, "rows": [asdict(row) for row in rows]})
        write_text(path / f"{name}.csv", csv_text([benchmark.HEADER, *found]))
    Console().print(*_shown(found))
    print(f"{_hardware(where)}: {limits['flops'] / 1e9:.0f} GFLOP/s, {limits['bytes'] / 1e9:.1f} GB/s")
    print(f"{path / name}.csv, .json")


def _name(where: dict) -> str:
    versions = "-".join(f"{name}{where['versions'][name]}" for name in ("jittor", "torch"))
    return re.sub(r"[^\w.+-]+", "_", f"{_hardware(where)}-{versions}-{where['precision']}")


def _hardware(where: dict) -> str:
    return where["limits"]["gpu"] or f"{where['cpu']}, {where['cores']} cores"


def _shown(found: list[tuple]) -> Iterator[Table]:
    """A table for each net, batch and phase, of less than 80 columns, which is what a terminal has at least."""
    rows = [dict(zip(benchmark.HEADER, row)) for row in found]
    for (net, size, batch, phase), own in itertools.groupby(
            rows, itemgetter("net", "image_size", "batch_size", "phase")):
        table = Table("column", "ms", "of torch (spread)", "of peak", "first step", "memory", box=None,
                      padding=(0, 1, 0, 0), pad_edge=False, title_justify="left",
                      title=f"\n{net}, {batch} of {size}x{size}: {phase}")
        for row in own:
            ratio = "" if row["ratio"] is None else \
                f"{row['ratio']:.2f}x ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
            table.add_row(row["column"], f"{1e3 * row['seconds']:.1f}", ratio,
                          f"{row['share_of_peak']:.0%}", f"{row['first_step_seconds']:.1f} s",
                          f"{row['peak_memory_mb']:.0f} MB")
        yield table


if __name__ == "__main__":
    sys.exit(main())
