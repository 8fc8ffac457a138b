"""The report of a comparison: every verdict with its error, floor and budget, as text and as JSON."""
from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path

from training.errors import UserError
from training.files import read_json, write_json
from training.forms import count, dict_of, flag, list_of, note, one_of, record, size, text

# In the order in which the table shows them, and in which a first failure is looked for.
LEVELS = ("weights", "init", "eval", "train", "layers", "gradients", "flips", "buffers", "momentum",
          "steps", "optimizer", "schedule", "data")
VERDICTS = {"structure": "float64", "numerics": "float32"}


@dataclass(frozen=True)
class Check:
    """One judgement on one tensor.

    Attributes:
        verdict: "structure" (both sides in float64) or "numerics" (float32).
        level: one of LEVELS. "eval" and "train" are outputs in that mode, "layers" outputs of single
            modules that are fed the reference's inputs, "flips" the branch that is furthest from
            its switching point among those that the truth would not have taken; "momentum" and
            "steps" are of SGD steps: in float64 one step and a free run, and the parameters; in
            float32 teacher-forced steps, and the updates.
        tensor: name of the tensor, as PyTorch calls it.
        e2: ||x - t||_2 / ||t||_2 of the Jittor side against the truth t, in `unit`.
        einf: max|x - t| / max|t|, in `unit`. Both are infinite where shape, NaN pattern or a fact
            that is no number differs.
        floor: largest such error of PyTorch's own float32; in float64, how far PyTorch moves with
            an input moved by one unit in the last place (0 where it was not measured: of the free run,
            if it is within the bound without).
        budget: largest error that passes.
        unit: "u" (2^-24, the rounding of float32), or what a statistic is measured in.
        note: what is wrong, for a failure that no number tells.
    """
    verdict: str
    level: str
    tensor: str
    e2: float
    einf: float
    floor: float
    budget: float
    unit: str = "u"
    note: str = ""

    @property
    def error(self) -> float:
        return max(self.e2, self.einf) if self.e2 == self.e2 and self.einf == self.einf else math.inf

    @property
    def used(self) -> float:
        """Part of the budget that the error takes; more than 1 is a failure."""
        if self.passed:
            return self.error / self.budget if self.error else 0.0
        return self.error / self.budget if self.budget and math.isfinite(self.error) else math.inf

    @property
    def passed(self) -> bool:
        return math.isfinite(self.error) and self.error <= self.budget

    def __str__(self) -> str:
        text = (f"{self.level} {self.tensor}: Jittor {self.error:.3g} {self.unit}, torch "
                f"{self.floor:.3g} {self.unit}, budget {self.budget:.3g} {self.unit}")
        return f"{text} ({self.note})" if self.note else text


@dataclass(frozen=True)
class Place:
    """Where a failing level first goes wrong.

    Attributes:
        verdict, level: of the failure.
        module: path of the first module, in order of execution (last for gradients), whose result
            leaves the budget when it is fed the reference's inputs; "" is the whole net.
        inside: False if all modules below it are right, so that the fault is in its own code.
        check: the judgement on it.
        folder: where a reproduction was written, if one was asked for.
    """
    verdict: str
    level: str
    module: str
    inside: bool
    check: Check
    folder: str = ""

    def __str__(self) -> str:
        name = self.module or "the net itself"
        own = "" if self.inside else ", in its own code: the modules below it are right"
        return f"first divergence ({self.verdict}, {self.level}): {name}{own}; {self.check}"


@dataclass
class Report:
    """All checks of one pair of models.

    Attributes:
        title: name of the net, or of the two models.
        checks: in the order in which they ran.
        skipped: "verdict level" -> why it was not judged. What is skipped has not passed.
        flips: per branch point with flips: {"where", "kind", "units", "margin" (u)}.
        places: where failures begin.
        environment: command, seed, versions, hardware, precision, inputs.
    """
    title: str
    checks: list[Check] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    flips: list[dict] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    environment: dict = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether something was judged and nothing failed."""
        return bool(self.checks) and not self.failures

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]

    def worst(self, verdict: str | None = None) -> dict[tuple[str, str], Check]:
        """(verdict, level) -> the check that used the most of its budget, in the table's order."""
        found: dict[tuple[str, str], Check] = {}
        for check in sorted(self.checks, key=lambda c: (list(VERDICTS).index(c.verdict),
                                                        LEVELS.index(c.level))):
            key = check.verdict, check.level
            if verdict in (None, check.verdict) and (key not in found
                                                     or check.used > found[key].used):
                found[key] = check
        return found

    def __str__(self) -> str:
        state = "passed" if self.passed else f"{len(self.failures)} of {len(self.checks)} failed"
        lines = [f"{self.title}: {state if self.checks else 'nothing was judged'}"]
        lines += [f"  {verdict}: {check}" for (verdict, _), check in self.worst().items()
                  if not check.passed]
        lines += [f"  {place}" for place in self.places]
        lines += [f"  not judged: {level}: {why}" for level, why in self.skipped.items()]
        return "\n".join(lines)

    def to_json(self) -> dict:
        """Plain data; infinite numbers are null, and what is no Unicode in a text is shown as an escape."""
        return {name: finite(value) for name, value in dataclasses.asdict(self).items()}

    @staticmethod
    def from_json(data: dict) -> Report:
        """What `to_json` gave. Raises UserError for anything else."""
        return _REPORT(data, "report")

    def save(self, path: str | Path) -> None:
        """Write the JSON, atomically."""
        write_json(Path(path), self.to_json())


def load(path: str | Path) -> Report:
    """Read a report that `Report.save` wrote. Raises UserError naming the file."""
    try:
        return Report.from_json(read_json(Path(path)))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no parity report: {error}") from error


def finite(value):
    """Plain data with null for every number that is not finite, which JSON does not have, and with escapes
    for what is no Unicode (the name of a file may be any bytes)."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


_VERDICT, _LEVEL = one_of(VERDICTS), one_of(LEVELS)
_CHECK = record(Check, verdict=_VERDICT, level=_LEVEL, tensor=text, e2=size, einf=size, floor=size,
                budget=size, unit=text, note=text)
_PLACE = record(Place, verdict=_VERDICT, level=_LEVEL, module=text, inside=flag, check=_CHECK, folder=text)
_FLIP = record(dict, where=text, kind=text, units=count, margin=size)
_REPORT = record(Report, title=text, checks=list_of(_CHECK), skipped=dict_of(text), flips=list_of(_FLIP),
                 places=list_of(_PLACE), environment=dict_of(note))
