"""`--seeds`: the same run once for each seed, and what they came to."""
from __future__ import annotations

import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

from . import finished, launch
from .errors import UserError
from .files import csv_text, write_text


def run(framework: str, argv: list[str], seeds: list[int], folder: Path) -> None:
    """Train once for each seed, in `folder`/seed-N; complete runs are left as they are, and an
    interrupted one is continued. Then write seeds.csv and print it with mean and standard deviation.

    Args:
        argv: of the trainer, with --seeds.

    Raises:
        UserError: bad options, or `folder` holds runs with others.
        SystemExit: with the code of a run that failed or was interrupted.
    """
    if (folder / "args.json").exists():
        raise UserError(f"{folder} holds a single run: choose another --output-dir")
    wanted = {folder / f"seed-{seed}": [*_without_own(argv), "--seed", str(seed)] for seed in seeds}
    for place, arguments in wanted.items():  # before anything is trained
        launch.check(framework, arguments, place)
    runs = []
    for place, arguments in wanted.items():
        code = launch.train(framework, arguments, place)
        if code:
            raise SystemExit(code)
        runs.append(finished.read(place))
    columns = ("test_acc", "test_top5", "test_loss", "seconds")
    write_text(folder / "seeds.csv", csv_text([("seed", *columns), *(
        (found.seed, *(found.result[name] for name in columns)) for found in runs)]))
    table = Table("seed", "test accuracy", "top-5", "loss", "seconds")
    forms = ("{:.2%}", "{:.2%}", "{:.4f}", "{:.0f}")
    for found in runs:
        table.add_row(str(found.seed), *(form.format(found.result[name])
                                         for form, name in zip(forms, columns)))
    if len(runs) > 1:
        for what, of in (("mean", statistics.mean), ("std", statistics.stdev)):
            table.add_row(what, *(form.format(of(found.result[name] for found in runs))
                                  for form, name in zip(forms, columns)))
    Console().print(table)
    print(f"{folder}: seeds.csv, {', '.join(found.folder.name for found in runs)}")


def _without_own(argv: list[str]) -> list[str]:
    """The arguments without --seeds and --output-dir."""
    rest, left = [], list(map(str, argv))
    while left:
        word = left.pop(0)
        if word == "--seeds":
            while left and left[0].isdigit():
                left.pop(0)
        elif word == "--output-dir":
            left.pop(0)
        elif not word.startswith(("--seeds=", "--output-dir=")):
            rest.append(word)
    return rest
