"""Curves of one run and of several runs, as PNG.

Uses matplotlib's objects and not pyplot: no display, no global state, no figure left behind.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Mapping

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .errors import UserError
from .files import atomic_write

# Okabe and Ito's palette, which colour-blind people can tell apart, without its pale yellow.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

# Column prefix -> line style.
_STYLES = {"train": "--", "val": "-"}
_NAMES = {"train": "training", "val": "validation"}


def curves(log_csv: Path, out_png: Path, title: str) -> None:
    """Plot loss and accuracy of one run over its epochs, training and validation.

    log_csv: a run's log with the columns epoch, train_loss, train_acc, val_loss, val_acc (and
    others); accuracies are fractions, shown in percent; the validation columns may be empty.
    Raises UserError if the log is missing, empty or not such a table.
    """
    log = _read(Path(log_csv))
    figure, axes = _two_panels(title)
    for part, colour in zip(_STYLES, _COLOURS):
        _draw(axes, log, part, color=colour, label=_NAMES[part])
    axes[1].legend()
    _save(figure, out_png)


def compare_curves(logs: Mapping[str, Path], out_png: Path, title: str) -> None:
    """Overlay several runs: one colour a label, dashed training, solid validation.

    logs: label -> log as for `curves`; at most 7. Raises UserError as `curves` does, and for
    no log or too many.
    """
    if not 1 <= len(logs) <= len(_COLOURS):
        raise UserError(f"can compare 1 to {len(_COLOURS)} runs, not {len(logs)}")
    figure, axes = _two_panels(title)
    handles, drawn = [], set()
    for (label, path), colour in zip(logs.items(), _COLOURS):
        log = _read(Path(path))
        # Each lies below the next one: wider, it still shows where they coincide.
        width = 4.0 - 2.8 * len(handles) / max(1, len(logs) - 1)
        drawn.update(
            part for part in _STYLES if _draw(axes, log, part, color=colour, linewidth=width)
        )
        handles.append(Line2D([], [], color=colour, linewidth=3, label=label))
    handles += [
        Line2D([], [], linestyle=style, color="grey", label=_NAMES[part])
        for part, style in _STYLES.items() if part in drawn
    ]
    figure.legend(handles=handles, loc="outside right upper")
    _save(figure, out_png)


def bars(values: Mapping[str, float], out_png: Path, title: str) -> None:
    """One horizontal bar a label, in the given order from above; fractions, shown in percent."""
    figure = Figure(figsize=(9, 1.2 + 0.3 * len(values)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    drawn = axis.barh(list(values), [100 * value for value in values.values()], color=_COLOURS[0])
    axis.bar_label(drawn, fmt="%.2f", padding=3)
    axis.invert_yaxis()
    axis.set_xlabel(title)
    axis.margins(x=0.1)
    _save(figure, out_png)


def _read(path: Path) -> dict[str, list[float]]:
    """The columns that are plotted; an empty cell is NaN."""
    columns = ["epoch"] + [f"{part}_{what}" for what in ("loss", "acc") for part in _STYLES]
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            names, rows = reader.fieldnames or (), list(reader)
        log = {
            name: [float(row[name] or "nan") for row in rows] for name in columns if name in names
        }
    except (OSError, ValueError, csv.Error) as problem:
        raise UserError(f"{path} cannot be read as a log ({problem})") from problem
    missing = [name for name in columns if name not in log]
    if missing:
        raise UserError(f"{path} lacks the column {missing[0]!r}")
    if not rows:
        raise UserError(f"{path} has no epoch yet")
    return log


def _two_panels(title: str) -> tuple[Figure, tuple]:
    """A figure of 990 x 396 pixels, the width of a README, with the axes (loss, accuracy)."""
    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    axes = tuple(figure.subplots(1, 2))
    for axis, name in zip(axes, ("loss", "accuracy (%)")):
        axis.set_xlabel("epoch")
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure, axes


def _draw(axes: tuple, log: dict[str, list[float]], part: str, **look) -> bool:
    """Draw one line into both panels; False if the log has no such numbers."""
    loss, accuracy = log[f"{part}_loss"], log[f"{part}_acc"]
    if all(value != value for value in loss + accuracy):
        return False
    # A line through one point cannot be seen.
    marker = "o" if len(log["epoch"]) < 10 else None
    for axis, values in zip(axes, (loss, [100 * value for value in accuracy])):
        axis.plot(log["epoch"], values, _STYLES[part], marker=marker, markersize=4, **look)
    return True


def _save(figure: Figure, out_png: Path) -> None:
    with atomic_write(Path(out_png)) as file:
        # Without matplotlib's version in the file, equal plots are equal bytes.
        figure.savefig(file, format="png", metadata={"Software": None})
