"""Reports for people: tables for the terminal, and one HTML page that needs nothing but itself."""
from __future__ import annotations

import dataclasses
import functools
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from training.errors import UserError, escaped

from .report import LEVELS, VERDICTS, Check, Report

PASS, FAIL, UNJUDGED = "PASS", "FAIL", "not judged"
_STYLES = {PASS: "green", FAIL: "bold red", UNJUDGED: "yellow"}
_PLOTTED = ("layers", "gradients")
_CAP = {"terminal": 10, "page": 50}     # lines of a list that may be long

# Of a plot, in pixels: its frame, and the strips inside it for errors that a log axis cannot show.
_LEFT, _RIGHT, _TOP, _BOTTOM, _STRIP = 70, 890, 30, 230, 30


@dataclass(frozen=True)
class _Cell:
    """What a report knows of one level: its checks, and why it was not, or not wholly, judged."""
    verdict: str
    level: str
    checks: list[Check]
    why: str

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]

    @property
    def state(self) -> str:
        return _state(self.checks)

    @property
    def worst(self) -> Check | None:
        return max(self.failed or self.checks, key=lambda check: check.used, default=None)


def _state(checks: list[Check]) -> str:
    if not checks:
        return UNJUDGED
    return PASS if all(check.passed for check in checks) else FAIL


def _overall(states: list[str]) -> str:
    """One failure fails all; what was not judged keeps the rest from passing."""
    return next((state for state in (FAIL, UNJUDGED) if state in states), PASS)


def _cells(report: Report) -> dict[tuple[str, str], _Cell]:
    """(verdict, level) -> cell, of everything that was judged or skipped, in the table's order."""
    checks = defaultdict(list)
    for check in report.checks:
        checks[check.verdict, check.level].append(check)
    why = {}
    for name, reason in report.skipped.items():
        verdict, _, level = name.partition(" ")
        # The name of a level alone means both verdicts.
        why.update({key: reason for key in ([(v, name) for v in VERDICTS] if name in LEVELS
                                            else [(verdict, level)])})
    known = [(verdict, level) for verdict in VERDICTS for level in LEVELS]
    # A name of what was skipped is free text: one that is no level still has to be seen.
    return {key: _Cell(*key, checks.get(key, []), why.get(key, ""))
            for key in dict.fromkeys([*known, *why]) if key in checks or key in why}


def _columns(cells: list[dict[tuple[str, str], _Cell]]) -> dict[str, list[str]]:
    """verdict -> the levels that any report has."""
    return {verdict: [level for level in LEVELS if any((verdict, level) in row for row in cells)]
            for verdict in VERDICTS}


def _skipped(cells: dict[tuple[str, str], _Cell]) -> int:
    return sum(bool(cell.why) for cell in cells.values())


def _shown(reports: list[Report]) -> list[Report]:
    """What to show of them. Raises UserError if there are none."""
    if not reports:
        raise UserError("there is no report to show")
    return [_printable(report) for report in reports]


def _printable(value):
    """The same with escapes for line breaks and terminal codes in texts."""
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, (list, tuple)):
        return [_printable(item) for item in value]
    if isinstance(value, dict):
        return {_printable(name): _printable(item) for name, item in value.items()}
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(value, **{field.name: _printable(getattr(value, field.name))
                                             for field in dataclasses.fields(value)})
    return value


def number(value, infinite: str = "inf") -> str:
    """Three significant digits; `infinite` for what is not finite (JSON keeps it as null)."""
    if value is None or isinstance(value, float) and not math.isfinite(value):
        return infinite
    return f"{value:.3g}" if isinstance(value, (int, float)) else str(value)


def share(check: Check) -> str:
    """How much of its budget a check used: in percent, or how many times the budget."""
    if not check.passed:
        return f"{number(check.used)} times" if math.isfinite(check.used) else "inf"
    return f"{100 * check.used:.0f}%" if check.used >= 0.01 or check.used == 0 else "<1%"


def table(reports: list[Report]) -> Group:
    """What to print with rich: for one report its worst check of every level, for several a matrix
    of nets and levels; then failures, first divergences, flips, and what was not judged.

    Raises:
        UserError: there is no report.
    """
    reports = _shown(reports)
    cells = [_cells(report) for report in reports]
    parts = [_headline(reports, cells)]
    for verdict, levels in _columns(cells).items():
        if not levels:
            parts.append(Text(f"{verdict} ({VERDICTS[verdict]}): {UNJUDGED}", _STYLES[UNJUDGED]))
        elif len(reports) == 1:
            parts.append(_details(verdict, cells[0]))
        else:
            # Seven levels beside the longest name of a net fill a terminal of 80 columns.
            size = math.ceil(len(levels) / math.ceil(len(levels) / 7))
            parts += [_matrix(verdict, levels[start:start + size], reports, cells)
                      for start in range(0, len(levels), size)]
    if len(reports) > 1:
        parts.append(Text("Part of its budget that a level's worst tensor uses; FAIL: more than all of "
                          "it; -: not judged; *: in part not judged."))
    return Group(*parts, *_failures(reports, cells), *_flips(reports), *_unjudged(reports))


def _headline(reports: list[Report], cells: list[dict[tuple[str, str], _Cell]]) -> Text:
    states = [_state(report.checks) for report in reports]
    if len(reports) == 1:
        what = f"{reports[0].title}: {_verdict(reports[0])}"
    else:
        what = f"{len(reports)} nets: " + ", ".join(
            f"{states.count(state)} {state}" for state in (PASS, FAIL, UNJUDGED) if state in states)
    skipped = sum(map(_skipped, cells))
    return Text.assemble((what, _STYLES[_overall(states)]),
                         (f"; levels {UNJUDGED}: {skipped}" if skipped else "", _STYLES[UNJUDGED]))


def _verdict(report: Report) -> str:
    state, count = _state(report.checks), len(report.checks)
    return {PASS: f"{PASS}, {count} checks", FAIL: f"{FAIL}, {len(report.failures)} of {count} checks",
            UNJUDGED: "nothing was judged"}[state]


def _table(title: str) -> Table:
    # No padding: the box has a space between columns, and 80 characters are soon full.
    return Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=0)


def _details(verdict: str, cells: dict[tuple[str, str], _Cell]) -> Table:
    grid = _table(f"{verdict} ({VERDICTS[verdict]})")
    grid.add_column("level", no_wrap=True)
    grid.add_column("count", justify="right", no_wrap=True)
    grid.add_column("worst tensor", overflow="fold")
    for name in ("e2", "einf", "torch", "budget"):
        grid.add_column(name, justify="right", no_wrap=True)
    grid.add_column("unit", overflow="fold")
    grid.add_column("result", no_wrap=True)
    for cell in (cell for cell in cells.values() if cell.verdict == verdict):
        worst, style = cell.worst, _STYLES[cell.state]
        if worst:
            numbers = (number(worst.e2), number(worst.einf), number(worst.floor), number(worst.budget))
            row = worst.tensor, *numbers, worst.unit, cell.state + "*" * bool(cell.why)
        else:
            row = UNJUDGED, *[""] * 5, "-"
        *row, result = cell.level, str(len(cell.checks)), *row
        grid.add_row(*map(Text, row), Text(result, style))
    return grid


def _matrix(verdict: str, levels: list[str], reports: list[Report],
            cells: list[dict[tuple[str, str], _Cell]]) -> Table:
    grid = _table(f"{verdict} ({VERDICTS[verdict]})")
    grid.add_column("net", overflow="fold")
    for level in levels:
        grid.add_column(level, justify="right", no_wrap=True)
    for report, row in zip(reports, cells):
        line = [Text(report.title)]
        for level in levels:
            cell = row.get((verdict, level))
            worst = cell and cell.worst
            text = "-" if not worst else (share(worst) if worst.passed else FAIL) + "*" * bool(cell.why)
            line.append(Text(text, _STYLES[cell.state if cell else UNJUDGED]))
        grid.add_row(*line)
    return grid


def _failures(reports: list[Report], cells: list[dict[tuple[str, str], _Cell]]) -> list[Text]:
    """Of one report all failures; of several the worst one of each level; and where they begin."""
    lines = []
    for report, row in zip(reports, cells):
        failed = report.failures if len(reports) == 1 else [c.worst for c in row.values() if c.failed]
        before = "" if len(reports) == 1 else f"{report.title}: "
        cap = _CAP["terminal"]
        lines += [Text(f"{before}{FAIL} {check.verdict} {check}", _STYLES[FAIL]) for check in failed[:cap]]
        if len(failed) > cap:
            lines.append(Text(f"{before}and {len(failed) - cap} more failures"))
        lines += [Text(f"{before}{place}" + f"; reproduction in {place.folder}" * bool(place.folder))
                  for place in report.places]
    return lines


def _flips(reports: list[Report]) -> list[Table | Text]:
    flips = [flip for report in reports for flip in report.flips]
    if not flips:
        return []
    if len(reports) > 1:
        nets = sum(bool(report.flips) for report in reports)
        units = sum(flip.get("units", 0) for flip in flips)
        return [Text(f"flips: {units} units at {len(flips)} branch points, in {nets} of {len(reports)} nets")]
    grid = _table("flips: branches that the truth would not have taken")
    for name in ("where", "kind", "units", "margin (u)"):
        grid.add_column(name, overflow="fold")
    cap = _CAP["terminal"]
    for flip in flips[:cap]:
        grid.add_row(*(Text(number(flip.get(name))) for name in ("where", "kind", "units", "margin")))
    return [grid] + [Text(f"and {len(flips) - cap} more branch points")] * (len(flips) > cap)


def _unjudged(reports: list[Report]) -> list[Text]:
    """Each reason once, however many nets share it."""
    nets = defaultdict(list)
    for report in reports:
        for name, why in report.skipped.items():
            nets[f"{UNJUDGED}: {name}: {why}"].append(report.title)
        if not report.checks:
            nets[f"{UNJUDGED}: anything"].append(report.title)
    return [Text(reason if len(reports) == 1 else
                 f"{reason} ({', '.join(titles) if len(titles) <= 3 else f'{len(titles)} nets'})",
                 _STYLES[UNJUDGED]) for reason, titles in nets.items()]


def page(reports: list[Report]) -> str:
    """One HTML page of all reports, which loads nothing, runs no script and works offline.

    Raises:
        UserError: there is no report.
    """
    reports = _shown(reports)
    cells = [_cells(report) for report in reports]
    states = [_state(report.checks) for report in reports]
    verdicts = {verdict: [_state([c for c in report.checks if c.verdict == verdict])
                          for report in reports] for verdict in VERDICTS}
    nets = [{"id": f"net-{i}", "report": report, "state": states[i], "verdict": _verdict(report),
             "unjudged": _skipped(cells[i]), "cells": cells[i], "plots": _plots(cells[i]),
             "environment": _flat(report.environment)}
            for i, report in enumerate(reports)]
    return _template().render(
        nets=nets, state=_overall(states), states=states, verdicts=verdicts, columns=_columns(cells),
        precision=VERDICTS, cap=_CAP["page"], PASS=PASS, FAIL=FAIL, UNJUDGED=UNJUDGED)


@functools.cache
def _template() -> Template:
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=number, share=share)
    return environment.get_template("report.html.j2")


def _flat(environment: dict) -> dict[str, str]:
    flat = {}
    for name, value in environment.items():
        for key, item in value.items() if isinstance(value, dict) else (("", value),):
            flat[f"{name}: {key}" if key else name] = (
                ", ".join(map(str, item)) if isinstance(item, (list, tuple)) else str(item))
    return flat


def _plots(cells: dict[tuple[str, str], _Cell]) -> list[dict]:
    return [_plot(cell.verdict, cell.level, unit, [c for c in cell.checks if c.unit == unit])
            for cell in cells.values() if cell.level in _PLOTTED
            for unit in dict.fromkeys(check.unit for check in cell.checks)]


def _plot(verdict: str, level: str, unit: str, checks: list[Check]) -> dict:
    """The geometry of a plot, on a log axis: one column per check, with its error, floor and budget.
    Zero and infinity have strips of their own, at the bottom and at the top."""
    values = [value for check in checks for value in (check.error, check.floor, check.budget)]
    logs = [math.log10(value) for value in values if 0 < value < math.inf] or [0.0]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    high += low == high
    top = _TOP + _STRIP * (not all(map(math.isfinite, values)))
    bottom = _BOTTOM - _STRIP * (0 in values)
    width = (_RIGHT - _LEFT) / len(checks)

    def power(exponent: float) -> float:
        return round(bottom - (exponent - low) / (high - low) * (bottom - top), 1)

    def y(value: float) -> float:
        if value == 0:
            return _BOTTOM - _STRIP / 2
        return power(math.log10(value)) if math.isfinite(value) else _TOP + _STRIP / 2

    def line(values: list[float]) -> str:
        return "".join(f"M{_LEFT + i * width:.1f} {y(value)}h{width:.1f}" for i, value in enumerate(values))

    points = [{"x": round(_LEFT + (i + 0.5) * width, 1), "y": y(check.error), "passed": check.passed,
               "text": f"{check.tensor}: {number(check.error, 'different')} {unit}"}
              for i, check in enumerate(checks)]
    ticks = [{"y": power(e), "text": f"1e{e}"}
             for e in range(low, high + 1, math.ceil((high - low) / 7))]
    if bottom < _BOTTOM:
        ticks.append({"y": y(0), "text": "0"})
    if top > _TOP:
        ticks.append({"y": y(math.inf), "text": "different"})
    return {"verdict": verdict, "level": level, "unit": unit, "checks": checks, "ticks": ticks,
            "worst": _Cell(verdict, level, checks, "").worst,
            "failed": sum(not check.passed for check in checks),
            "zeros": sum(check.error == 0 for check in checks),
            # What fails is drawn last, on top of the rest.
            "points": sorted(points, key=lambda point: not point["passed"]),
            "radius": 3 if width >= 5 else 2,
            "floor": line([check.floor for check in checks]),
            "budget": line([check.budget for check in checks]),
            "left": _LEFT, "right": _RIGHT, "top": _TOP, "bottom": _BOTTOM}
