"""The judge judged: every fault of `faults.py` into a net of every family, one at a time."""
from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass

import numpy as np

from training.errors import UserError, did_you_mean
from training.files import write_json
from training.run import command, environment

from . import models
from .api import check
from .faults import FAULTS, NotApplicable

# One net of each family file, where that has several kinds of layers one of each kind.
FAMILIES = ("cnn", "lenet_bn", "alexnet_mnist", "vgg11_lrn_bn", "googlenet", "bn_inception",
            "inception_v3", "inception_resnet_v1_facenet", "resnet18", "resnet50", "resnet20_cifar",
            "densenet", "se_resnet18_lab", "mobilenet_slim")
# The layers one by one would find nothing that the whole net does not show.
STRUCTURE = ("weights", "init", "eval", "train", "gradients", "buffers", "momentum", "steps",
             "optimizer", "schedule", "data")
NUMERICS = ("eval", "train", "gradients", "buffers")
DROPOUT = "dropout_"  # faults of this name are put into a net with dropout


@dataclass(frozen=True)
class Row:
    """What became of one fault in one net.

    Attributes:
        levels: "verdict level" of each failure.
        first: the failure that the report names first.
    """
    net: str
    fault: str
    levels: tuple[str, ...]
    first: str

    @property
    def caught(self) -> bool:
        return bool(self.levels)


def names(wanted: list[str] | None) -> list[str]:
    """Faults by name. Raises UserError for one that does not exist."""
    for name in wanted or ():
        if name not in FAULTS:
            raise UserError(f"unknown fault {name!r}"
                            + (did_you_mean(name, FAULTS) or "; --list shows all"))
    return list(wanted or FAULTS)


def inject(net: str, fault: str, seed: int = 0) -> Row | None:
    """Check `net` with `fault` in its Jittor port; None where the fault does not apply."""
    built = _build(net, seed, fault.startswith(DROPOUT))
    if built is None:
        return None
    port, reference, x = built
    failures = []
    try:
        with FAULTS[fault](port, np.random.default_rng(seed)):
            for verdict, levels in (("structure", STRUCTURE), ("numerics", NUMERICS)):
                report = check(port, reference, x, levels=levels, verdicts=verdict, steps=2, seed=seed,
                               title=net, locate=False)
                failures += report.failures
                if failures:
                    break
    except NotApplicable:
        return None
    found = dict.fromkeys(f"{c.verdict} {c.level}" for c in failures)
    return Row(net, fault, tuple(found), str(failures[0]) if failures else "")


def _build(net: str, seed: int, dropout: bool):
    """(port, reference, input), with dropout if asked for; None if the net has none."""
    source, x = models.zoo(net, seed)
    if dropout:
        if "dropout" not in models.options(net):
            return None
        source.arguments["dropout"] = 0.3
    port, reference = source.build(seed)
    port.probe_shape, port.probe_dropout = list(x.shape), dropout
    return port, reference, x


def false_alarm(net: str, seed: int) -> str:
    """Check the right pair on every level; the first failure, or an empty string."""
    port, reference, x = _build(net, seed, dropout=False)
    report = check(port, reference, x, levels="all", steps=2, seed=seed, title=net, locate=False)
    return "" if report.passed else str(report)


def run(options) -> int:
    """`python -m parity inject`."""
    from rich.console import Console
    from rich.table import Table
    if options.list:
        for name in FAULTS:
            print(f"{name}: {inspect.getdoc(inspect.unwrap(FAULTS[name]))}")
        return 0
    nets = models.nets(options.net) if options.net else list(FAMILIES)
    chosen = names(options.fault)
    where = {**environment(("jittor", "torch", "numpy")), "seed": 0, "command": command()}
    rows, alarms = [], []
    for net in nets:
        for seed in range(options.seeds):
            alarms.append({"net": net, "seed": seed, "failure": false_alarm(net, seed)})
            print(f"{net}, seed {seed}: {alarms[-1]['failure'] or 'passed'}", flush=True)
        for fault in chosen:
            row = inject(net, fault)
            if row:
                rows.append(row)
                print(f"{net}, {fault}: {', '.join(row.levels) or 'MISSED'}", flush=True)
            if options.json:
                write_json(options.json, {"environment": where, "right_pairs": alarms,
                                          "rows": [asdict(r) for r in rows]})
    table = Table("fault", "nets", "caught", "levels")
    for fault in chosen:
        own = [row for row in rows if row.fault == fault]
        levels = dict.fromkeys(level for row in own for level in row.levels)
        table.add_row(fault, str(len(own)), str(sum(row.caught for row in own)), ", ".join(levels))
    Console().print(table)
    missed = [row for row in rows if not row.caught]
    wrong = [alarm for alarm in alarms if alarm["failure"]]
    for row in missed:
        print(f"missed: {row.fault} in {row.net}")
    print(f"{len(rows) - len(missed)} of {len(rows)} faults caught; "
          f"{len(wrong)} false alarms in {len(alarms)} right pairs")
    return int(bool(missed or wrong))
