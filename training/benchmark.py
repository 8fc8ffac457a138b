"""Times of training steps and evaluations of both frameworks, in processes that take turns.

Every column (PyTorch, PyTorch in channels_last, Jittor, ...) is a process of its own, which keeps its net and
waits while another one runs. In each round every column runs each phase once, in an order that turns around
from round to round, so that what else the machine does hits all alike; a ratio is taken within a round.
"""
from __future__ import annotations

import collections
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from .bench_worker import COLUMNS
from .errors import UserError
from .launch import ROOT

PHASES = ("train", "evaluate")
REFERENCES = ("torch", "torch-channels-last")  # the faster one of them is what ratios refer to
PASSES = {"train": 3, "evaluate": 1}  # multiply-accumulates of a step, in forward passes


class Worker:
    """The process of one column."""

    def __init__(self, *arguments: str):
        self.name = " ".join(arguments)
        self.log = tempfile.TemporaryFile("w+", errors="replace")
        self.process = subprocess.Popen([sys.executable, "-m", "training.bench_worker", *arguments], cwd=ROOT,
                                        text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log)
        self.imported = False

    def answer(self) -> dict:
        """Its next line. Raises UserError if it has ended."""
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        self.log.seek(0)
        lines = self.log.read().strip().splitlines()
        telling = [line for line in lines if "Error: " in line or "[Reason]" in line]  # Jittor ends with advice
        raise UserError(f"{self.name} ended with exit code {code}: {(telling or lines or [''])[-1]}")

    def wait_imported(self) -> None:
        if not self.imported:
            self.answer()
        self.imported = True

    def run(self, phase: str, batches: int) -> dict:
        self.wait_imported()
        with contextlib.suppress(BrokenPipeError):  # it has ended; `answer` tells why
            print(phase, batches, file=self.process.stdin, flush=True)
        return self.answer()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.communicate()
        self.log.close()


@dataclass
class Row:
    """What a column measured of a net.

    Attributes:
        macs: multiply-accumulates of one image, forward.
        first_step: seconds.
        peak_memory_mb: of the process, after all phases.
        seconds: phase -> of one batch, in each round.
    """
    net: str
    image_size: int
    batch_size: int
    column: str
    macs: int
    first_step: float
    environment: dict
    peak_memory_mb: float = 0.0
    seconds: dict[str, list[float]] = field(default_factory=lambda: {phase: [] for phase in PHASES})


def measured(cases: list[tuple[str, int, int, int]], columns: list[str], rounds: int, batches: int,
             ahead: int) -> Iterator[list[Row]]:
    """Measure each (net, image size, multiply-accumulates, batch size) in these columns.

    Args:
        ahead: of so many cases to come the processes import their framework while a case is built, which takes cores
            from it.

    Raises:
        UserError: a column breaks.
    """
    with contextlib.ExitStack() as stack:
        def started(case):
            net, size, _, batch_size = case
            own = stack.enter_context(contextlib.ExitStack())
            return own, [own.enter_context(Worker(column, net, str(size), str(batch_size))) for column in columns]

        coming, queue = map(started, cases), collections.deque()
        for net, size, macs, batch_size in cases:
            queue.extend(itertools.islice(coming, 1 + ahead - len(queue)))
            own, workers = queue.popleft()
            with own:
                # One after the other: Jittor compiles on all cores, and on a GPU both frameworks time algorithms first.
                pairs = [(worker, Row(net, size, batch_size, column, macs, **worker.run("build", 1)))
                         for worker, column in zip(workers, columns)]
                for _, others in queue:
                    for worker in others:
                        worker.wait_imported()
                _take_turns(pairs, rounds, batches)
            yield [row for _, row in pairs]


def _take_turns(pairs: list[tuple[Worker, Row]], rounds: int, batches: int) -> None:
    for index in range(rounds + 1):  # the first does not count
        for phase in PHASES:
            for worker, row in pairs[::1 if index % 2 else -1]:
                got = worker.run(phase, batches)
                if index:
                    row.seconds[phase].append(got["seconds"] / batches)
                row.peak_memory_mb = got["peak_memory_mb"]


def limits() -> dict:
    """See training.bench_worker.limits."""
    with Worker("limits") as worker:
        return worker.answer()


def reference(rows: list[Row], phase: str) -> Row | None:
    """Of the rows of one net, PyTorch's in the faster layout."""
    found = [row for row in rows if row.column in REFERENCES]
    return min(found, key=lambda row: statistics.median(row.seconds[phase]), default=None)


HEADER = ("net", "image_size", "batch_size", "phase", "column", "seconds", "seconds_min", "seconds_max",
          "images_per_second", "ratio", "ratio_min", "ratio_max", "share_of_peak", "first_step_seconds",
          "peak_memory_mb")


def spread(ratios: list[float]) -> tuple[float, float, float]:
    """Median, least and largest."""
    return statistics.median(ratios), min(ratios), max(ratios)


def table(rows: list[Row], peak: float) -> list[tuple]:
    """HEADER's values for each row and phase: seconds of a batch are the median of the rounds; the ratio is
    that of images a second to the reference's, in each round, median, least and largest; the share of the
    machine's `peak` (floating-point operations a second) counts multiply-accumulates of convolutions and
    linear layers only."""
    cases: dict[tuple, list[Row]] = {}
    for row in rows:
        cases.setdefault((row.net, row.image_size, row.batch_size), []).append(row)
    found = []
    for (*case, batch_size), own in cases.items():
        for phase in PHASES:
            other = reference(own, phase)
            for row in own:
                times = row.seconds[phase]
                ratios = [b / a for a, b in zip(times, other.seconds[phase])] if other else []
                median = statistics.median(times)
                work = 2 * PASSES[phase] * row.macs * batch_size
                found.append((*case, batch_size, phase, row.column, median, min(times), max(times),
                              batch_size / median, *(spread(ratios) if ratios else (None,) * 3), work / median / peak, row.first_step,
                              row.peak_memory_mb))
    return found


def columns(text: list[str]) -> list[str]:
    """Checked names of columns. Raises UserError."""
    for name in text:
        if name not in COLUMNS:
            raise UserError(f"unknown column {name!r}; there are: {', '.join(COLUMNS)}")
    return list(dict.fromkeys(text))
