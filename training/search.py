"""Try every combination of options of a trainer, and rank them by validation accuracy.

    python -m training.search --net lenet_bn --lr 0.004 0.0001 --dropout 0.1 0.2 0.4 --batch-size 128

An option with several values is an axis of the grid. A search with --output-dir that was interrupted goes on
with the same command.
"""
from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from . import cli, finished, launch, options, plots
from .errors import UserError
from .files import check_writable, csv_text, write_text
from .run import default_folder


def main(argv: list[str] | None = None) -> int:
    return cli.main(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: list[str]) -> None:
    parser = options.Parser(prog="python -m training.search", description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter,
                            epilog="All other options are the trainer's (see train_torch.py --help). The "
                                   "ranking is by the validation images.")
    parser.add_argument("--framework", choices=finished.FRAMEWORKS, default="jittor",
                        help="whose trainer (default: %(default)s)")
    parser.add_argument("--output-dir", type=Path, metavar="DIR",
                        help="for the runs, search.csv and search.png (default: runs/search-TIME)")
    args, rest = parser.parse_known_args(argv)
    axes, fixed = split(rest)
    trials = [dict(zip(axes, values)) for values in itertools.product(*axes.values())]
    commands = [[*fixed, *itertools.chain.from_iterable(trial.items())] for trial in trials]
    for arguments in commands:  # bad options are told before anything is trained
        if options.parse(args.framework, arguments).val_fraction == 0:
            raise UserError("a search needs validation images: --val-fraction above 0")
    folder = args.output_dir or default_folder("search")
    check_writable(folder / "search.csv", file=True)
    found = []
    for number, (trial, arguments, name) in enumerate(zip(trials, commands, names(trials)), 1):
        print(f"{number} of {len(trials)}: {label(trial)}", flush=True)
        place = folder / name
        code = launch.train(args.framework, arguments, place)
        if code == cli.INTERRUPTED:
            raise KeyboardInterrupt
        if code not in (0, 2) or code and not (place / "args.json").is_file():
            raise SystemExit(code)  # which is no training whose loss exploded
        found.append((trial, place, None if code else finished.read(place)))
        if not code and found[-1][2].log[0]["val_acc"] is None:
            raise UserError(f"{place}: a search needs validation images, of which there were none")
    _report(found, axes, folder)


def split(arguments: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """(options with several values, all others as they are).

    Raises:
        UserError: an option that a search sets itself, or that is given twice.
    """
    groups: list[list[str]] = []
    for word in arguments:
        name, equals, value = word.partition("=")
        if name.startswith("-") and not name.lstrip("-")[:1].isdigit() or not groups:
            groups.append([name, value] if equals else [word])
        else:
            groups[-1].append(word)
    options.refuse([name for name, *_ in groups], (*options.NO_RUN, *options.OUTPUTS), "cannot be used in a search")
    for name, *_ in groups:
        if sum(name == other for other, *_ in groups) > 1:
            raise UserError(f"{name} is given twice")
    axes = {name: list(dict.fromkeys(values)) for name, *values in groups
            if len(values) > 1 and name != "--milestones"}
    return axes, [word for group in groups if group[0] not in axes for word in group]


def _report(found, axes, folder: Path) -> None:
    """search.csv and search.png, and the table on the terminal, best first; then what did not end."""
    done = sorted((item for item in found if item[2]), key=lambda item: -_best(item[2])["val_acc"])
    names = [name.lstrip("-") for name in axes]
    table = Table(*names, "best val acc", "epoch", "last val acc", "s / epoch", "run")
    rows = [[*names, "best_val_acc", "epoch", "last_val_acc", "seconds_per_epoch", "run"]]
    for trial, place, run in [*done, *(item for item in found if not item[2])]:
        numbers = []
        if run:
            best, seconds = _best(run), sum(row["seconds"] for row in run.log) / len(run.log)
            numbers = [best["val_acc"], int(best["epoch"]), run.log[-1]["val_acc"], seconds]
        rows.append([*trial.values(), *(numbers or [""] * 4), place])
        shown = [form.format(n) for form, n in zip(("{:.2%}", "{}", "{:.2%}", "{:.1f}"), numbers)]
        table.add_row(*trial.values(), *(shown or ["stopped", "-", "-", "-"]), place.name)
    write_text(folder / "search.csv", csv_text(rows))
    Console().print(table)
    if not done:
        raise UserError("no combination came to its end")
    plots.bars({label(trial): _best(run)["val_acc"] for trial, _, run in done}, folder / "search.png",
               "best validation accuracy (%)")
    print(f"best: {label(done[0][0])}; test accuracy {done[0][2].result['test_acc']:.2%}")
    print(f"{folder}: search.csv, search.png")


def _best(run) -> dict:
    return max(run.log, key=lambda row: row["val_acc"])


def label(trial: dict[str, str]) -> str:
    """ "lr 0.1, dropout 0.2"."""
    return ", ".join(f"{name.lstrip('-')} {value}" for name, value in trial.items()) or "as given"


def names(trials: list[dict[str, str]]) -> list[str]:
    """A folder's name for each trial; a number is added where two labels would share one (a/b and a-b)."""
    found: list[str] = []
    for trial in trials:
        name = label(trial).replace(", ", "_").replace(" ", "=").replace("/", "-")
        others = (f"{name}-{number}" for number in itertools.count(2))
        found.append(next(one for one in itertools.chain([name], others) if one not in found))
    return found


if __name__ == "__main__":
    sys.exit(main())
