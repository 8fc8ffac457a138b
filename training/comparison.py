"""Finished runs of both trainers, side by side: accuracy, convergence, speed."""
from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from scipy import stats

from . import launch
from .errors import UserError
from .finished import FRAMEWORKS, Finished

_FACTS = ("data_sha256", "net_image_size", "device", "gpu", "precision", "cpu", "cores", "OMP_NUM_THREADS", "ranks")
TARGETS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)


@dataclass(frozen=True)
class Comparison:
    """All pairs of one net.

    Attributes:
        pairs: (PyTorch's run, Jittor's), one pair a seed.
        margin: accuracies that differ by less count as equal.
    """
    net: str
    pairs: list[tuple[Finished, Finished]]
    margin: float

    def runs(self, framework: str) -> list[Finished]:
        return [pair[FRAMEWORKS.index(framework)] for pair in self.pairs]

    def accuracy(self, framework: str) -> tuple[float, float | None]:
        """Mean and standard deviation over the seeds of the test accuracy after the last epoch."""
        values = [run.result["test_acc"] for run in self.runs(framework)]
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None

    @property
    def differences(self) -> list[float]:
        """Jittor's test accuracy less PyTorch's, per seed."""
        return [ours.result["test_acc"] - theirs.result["test_acc"] for theirs, ours in self.pairs]

    @property
    def equivalence(self) -> dict | None:
        """Paired two one-sided t-tests (Schuirmann 1987): p that the accuracies differ by `margin` or
        more, and the 90 % interval of their difference. None for a single seed."""
        n = len(self.pairs)
        if n < 2:
            return None
        mean, error = statistics.fmean(self.differences), statistics.stdev(self.differences) / math.sqrt(n)
        if error == 0:
            p = 0.0 if abs(mean) < self.margin else 1.0
        else:
            p = float(stats.t.sf((self.margin - abs(mean)) / error, n - 1))
        half = float(stats.t.ppf(0.95, n - 1)) * error
        return {"p": p, "low": mean - half, "high": mean + half, "equivalent": p < 0.05}

    def speed(self, framework: str) -> dict[str, float | None]:
        """Medians over the seeds: seconds of the first epoch, in which Jittor compiles its kernels, and of
        a later one, milliseconds a step, images a second and joules an image of a later one, peak memory in
        MB. None where there is one epoch only, and for joules without a GPU whose driver counts them."""
        runs = self.runs(framework)
        later = [seconds for run in runs for seconds in run.later_seconds]
        epoch = statistics.median(later) if later else None
        joules = [energy for run in runs for energy in run.later_energy]
        return {"first_epoch": statistics.median(run.log[0]["seconds"] for run in runs), "epoch": epoch,
                "step_ms": epoch and 1000 * epoch / runs[0].epoch_steps,
                "images": epoch and runs[0].epoch_images / epoch,
                "energy": statistics.median(joules) / runs[0].epoch_images if joules else None,
                "memory": statistics.median(run.peak_memory for run in runs)}

    @property
    def ratios(self) -> list[float]:
        """Seconds of a later epoch, Jittor's over PyTorch's, epoch by epoch of all pairs, sorted."""
        return sorted(ours / theirs for pair in self.pairs
                      for theirs, ours in zip(*(run.later_seconds for run in pair)))

    @property
    def same_start(self) -> bool:
        """Whether both runs of each pair began with the same weights."""
        return all(theirs.record["start_sha256"] == ours.record["start_sha256"]
                   for theirs, ours in self.pairs)

    def convergence(self) -> list[tuple[float, dict[str, tuple[float, float] | None]]]:
        """Per target that some run reaches: median epoch and seconds by framework, None where not every
        seed reaches it."""
        found = []
        for target in TARGETS:
            row = {}
            for framework in FRAMEWORKS:
                reached = [run.reach(target) for run in self.runs(framework)]
                row[framework] = None if None in reached else tuple(map(statistics.median, zip(*reached)))
            if any(row.values()):
                found.append((target, row))
        return found


def compare(runs: list[Finished], margin: float) -> list[Comparison]:
    """Pair the runs by net and seed.

    Raises:
        UserError: a run without its twin, two runs of one kind, or a pair that differs in options or data.
    """
    found: dict[str, dict[int, dict[str, Finished]]] = {}
    for run in runs:
        place = found.setdefault(run.net, {}).setdefault(run.seed, {})
        if run.framework in place:
            raise UserError(f"{place[run.framework].folder} and {run.folder} are both {run.net} in "
                            f"{run.framework} with seed {run.seed}")
        place[run.framework] = run
    for net, seeds in found.items():
        for seed, pair in seeds.items():
            missing = [f for f in FRAMEWORKS if f not in pair]
            if missing:
                raise UserError(f"{net} with seed {seed}: there is no run in {missing[0]}")
            _same(*(pair[f] for f in FRAMEWORKS))
        first, *others = (pair[FRAMEWORKS[0]] for pair in seeds.values())
        for other in others:  # the seed also chooses the validation images
            _same(first, other, {"seed", "data_sha256"})
    return [Comparison(net, [tuple(seeds[seed][f] for f in FRAMEWORKS) for seed in sorted(seeds)], margin)
            for net, seeds in found.items()]


def unlike(found: list[Comparison]) -> str | None:
    """What keeps nets from being ranked: a fact in which their runs differ, in words, or None."""
    first, *others = (one.pairs[0][0] for one in found)
    for other in others:
        if fact := _difference(first, other, {"net", "net_image_size"}):
            return f"{first.net} and {other.net}: {fact}"
    return None


def _same(theirs: Finished, ours: Finished, apart: set[str] = frozenset()) -> None:
    """UserError if two runs differ in more than the framework and the facts `apart`."""
    if fact := _difference(theirs, ours, apart):
        raise UserError(f"{theirs.folder} and {ours.folder} cannot be compared: {fact}")


def _difference(one: Finished, other: Finished, apart: set[str]) -> str | None:
    """The first option or fact, but for those `apart`, in which two runs differ, in words."""
    facts = [{**launch.kept(run.record["options"]), **{name: run.record.get(name) for name in _FACTS}}
             for run in (one, other)]
    for name in [name for name in {**facts[0], **facts[1]} if name not in apart]:
        values = [fact.get(name) for fact in facts]
        if values[0] != values[1] and any(values):  # a flag that Jittor's trainer lacks counts as not given
            return f"{name} is {values[0]} in the first and {values[1]} in the second"
    return None
