"""A comparison as tables (Markdown, CSV), curves (PNG) and one HTML page that needs nothing but itself."""
from __future__ import annotations

import base64
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .comparison import TARGETS, Comparison, unlike
from .errors import escaped
from .files import csv_text, write_text
from .finished import FRAMEWORKS, Finished
from .plots import compare_curves

NAMES = {"torch": "PyTorch", "jittor": "Jittor"}
CSV = ("net", "framework", "seed", "test_acc", "test_loss", "best_val_acc", "epochs", "first_epoch_seconds",
       "later_epoch_seconds", "later_epoch_joules", "epoch_steps", "epoch_images", "peak_memory_mb", "version",
       "device", "precision", "cpu", "cores", "folder")
CURVES = 3  # seeds that are drawn; more lines cannot be told apart


@dataclass(frozen=True)
class Table:
    title: str
    note: str
    header: list[str]
    rows: list[list[str]]


def tables(found: list[Comparison]) -> list[Table]:
    """Accuracy, speed, convergence, and with more than one net their ranking."""
    made = [_accuracy(found), _speed(found), _convergence(found)]
    return made + [_ranking(found)] if len(found) > 1 else made


def write(found: list[Comparison], folder: Path, command: str) -> None:
    """comparison.html, .md, .csv and NET.png in `folder`.

    Args:
        command: that made the comparison, to be shown.
    """
    folder = Path(folder)
    for one in found:
        logs = {f"{NAMES[run.framework]}, seed {run.seed}": run.folder / "log.csv"
                for pair in one.pairs[:CURVES] for run in pair}
        compare_curves(logs, folder / f"{one.net}.png", one.net)
    made = tables(found)
    for name, text in (("comparison.md", _markdown(made, found, command)), ("comparison.csv", _csv(found)),
                       ("comparison.html", _page(made, found, command, folder))):
        write_text(folder / name, text)


def _accuracy(found: list[Comparison]) -> Table:
    rows = []
    for one in found:
        difference = sum(one.differences) / len(one.differences)
        test = one.equivalence
        if test is None:
            verdict = "one seed: no test"
        else:
            verdict = (f"{'equivalent' if test['equivalent'] else 'not shown to be equivalent'} within "
                       f"{one.margin:.1%} (p {test['p']:.2g}; 90 % interval {test['low']:+.2%} to "
                       f"{test['high']:+.2%})")
        rows.append([one.net, *(_spread(*one.accuracy(f)) for f in FRAMEWORKS), f"{difference:+.2%}",
                     str(len(one.pairs)), str(one.pairs[0][0].result["test_images"]), verdict])
    other = [one.net for one in found if not one.same_start]
    start = f"from other initial weights ({', '.join(other)})" if other else "from the same initial weights"
    return Table("Accuracy", "On the test images after the last epoch; mean and standard deviation over "
                 f"the seeds. Both frameworks see the same batches, {start}. The verdict is a paired "
                 "equivalence test (two one-sided t-tests, 5 %).",
                 ["net", "PyTorch", "Jittor", "difference", "seeds", "test images", "verdict"], rows)


def _speed(found: list[Comparison]) -> Table:
    speeds = [(one, framework, one.speed(framework)) for one in found for framework in FRAMEWORKS]
    columns = [("first_epoch", "first epoch", "{:.1f} s"), ("epoch", "later epoch", "{:.1f} s"),
               ("step_ms", "step", "{:.1f} ms"), ("images", "images", "{:.0f}/s"),
               ("energy", "energy an image", "{:.3g} J"), ("memory", "peak memory", "{:.0f} MB")]
    counted = any(speed["energy"] is not None for *_, speed in speeds)
    if not counted:
        columns = [column for column in columns if column[0] != "energy"]
    rows = []
    for one, framework, speed in speeds:
        ratio = ""
        if framework == "jittor" and one.ratios:
            ratio = f"{statistics.median(one.ratios):.2f} ({one.ratios[0]:.2f} to {one.ratios[-1]:.2f})"
        rows.append([one.net, NAMES[framework], *("-" if speed[name] is None else form.format(speed[name])
                                                  for name, _, form in columns), ratio])
    return Table("Speed", "Training only, medians. Jittor compiles its kernels in the first epoch, once per "
                 f"machine; steps, images{', energy (the GPU by its driver)' * counted} and the ratio of times are "
                 "of the later epochs.",
                 ["net", "framework", *(title for _, title, _ in columns), "Jittor / PyTorch (range)"], rows)


def _convergence(found: list[Comparison]) -> Table:
    def cell(reached):
        return "-" if reached is None else f"epoch {reached[0]:.3g}, {reached[1]:.1f} s"

    rows = [[one.net, f"{target:.0%}", *(cell(row[f]) for f in FRAMEWORKS)]
            for one in found if one.pairs[0][0].log[0]["val_acc"] is not None
            for target, row in one.convergence() or [(TARGETS[0], dict.fromkeys(FRAMEWORKS))]]
    return Table("Convergence", "First epoch at whose end the validation accuracy is reached by every seed "
                 "(median), and the seconds of training until then." if rows else
                 "None: there were no validation images.",
                 ["net", "validation accuracy", "PyTorch", "Jittor"], rows)


def _ranking(found: list[Comparison]) -> Table:
    if difference := unlike(found):
        return Table("Ranking", f"None, since not all was equal. {escaped(difference)}.", [], [])
    reached = [{target: row for target, row in one.convergence()} for one in found]
    rows = []
    for framework in FRAMEWORKS:
        common = [t for t in reached[0] if all(t in r and r[t][framework] for r in reached)]
        seconds = {one.net: one.speed(framework)["epoch"] for one in found}
        orders = [("accuracy", sorted(found, key=lambda one: -one.accuracy(framework)[0]),
                   lambda one: f"{one.accuracy(framework)[0]:.2%}")]
        if None not in seconds.values():
            orders.append(("time of a later epoch", sorted(found, key=lambda one: seconds[one.net]),
                           lambda one: f"{seconds[one.net]:.1f} s"))
        if common:
            place = {one.net: r[max(common)][framework] for one, r in zip(found, reached)}
            orders.append((f"epochs to {max(common):.0%}", sorted(found, key=lambda one: place[one.net]),
                           lambda one: f"{place[one.net][0]:.3g}"))
        rows += [[NAMES[framework], title, ", ".join(f"{one.net} ({show(one)})" for one in order)]
                 for title, order, show in orders]
    return Table("Ranking", "Best first.", ["framework", "by", "order"], rows)


def _spread(mean: float, deviation: float | None) -> str:
    return f"{mean:.2%}" + ("" if deviation is None else f" ± {100 * deviation:.2f}")


def _runs(found: list[Comparison]) -> list[Finished]:
    return [run for one in found for pair in one.pairs for run in pair]


def _where(run: Finished) -> str:
    record = run.record
    versions = ", ".join(f"{name} {v}" for name, v in record["versions"].items())
    return escaped(f"{record['device']} {record.get('gpu') or record['cpu']}, {record['cores']} cores, "
                   f"{record['precision']}; {versions}, Python {record['python']}; {record['data']}")


def _code(text: str) -> str:
    """Text as Markdown shows code: between more backticks than are in it anywhere."""
    text = escaped(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def _plain(text: str) -> str:
    """Text in which Markdown finds no link, image, code or HTML."""
    return re.sub(r"([\\`<>\[\]])", r"\\\1", text)


def _csv(found: list[Comparison]) -> str:
    rows = []
    for run in _runs(found):
        record = run.record
        rows.append([run.net, run.framework, run.seed, run.result["test_acc"], run.result["test_loss"],
                     max((row["val_acc"] for row in run.log if row["val_acc"] is not None), default=""),
                     len(run.log), run.log[0]["seconds"],
                     *(statistics.median(values) if values else ""
                       for values in (run.later_seconds, run.later_energy)),
                     run.epoch_steps, run.epoch_images, run.peak_memory,
                     record["versions"][run.framework], record["device"], record["precision"],
                     record["cpu"], record["cores"], run.folder])
    return csv_text([CSV, *rows])


def _markdown(made: list[Table], found: list[Comparison], command: str) -> str:
    parts = [f"# PyTorch and Jittor, side by side\n\n    {escaped(command)}"]
    for table in made:
        lines = [table.header, ["---"] * len(table.header), *table.rows]
        grid = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
                         for line in lines)
        parts.append(f"## {table.title}\n\n{_plain(table.note)}" + f"\n\n{grid}" * bool(table.rows))
    parts.append("## Curves\n\n" + "\n\n".join(f"![{one.net}]({one.net}.png)" for one in found))
    parts.append("## Runs\n\n" + "\n".join(f"- {_code(run.record['command'])}  \n  {_plain(_where(run))}"
                                           for run in _runs(found)))
    return "\n\n".join(parts) + "\n"


def _page(made: list[Table], found: list[Comparison], command: str, folder: Path) -> str:
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    images = [(one.net, base64.b64encode((folder / f"{one.net}.png").read_bytes()).decode()) for one in found]
    return environment.get_template("comparison.html.j2").render(
        tables=made, images=images, command=escaped(command),
        runs=[(escaped(run.record["command"]), _where(run)) for run in _runs(found)])
