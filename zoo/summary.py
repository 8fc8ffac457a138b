"""The layer table of a net and the table of all nets, alike for both frameworks.

A trace is a list of `Row`, made by `torch_ref.trace` or `jt_models.trace`.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable

from .catalog import NETS


@dataclass
class Row:
    """One call of one module.

    Attributes:
        name: path of the module; "" is the whole net.
        kind: name of its class.
        module: the module itself.
        output: shape of its output, without the batch; None for a module that was not called (an
            auxiliary head: a net is traced in evaluation mode).
        params: trainable parameters of the module's own, counted at its first call only.
        macs: multiply-accumulates of a convolution or linear layer for one image, else 0.
        leaf: it has no modules below it.
    """
    name: str
    kind: str
    module: object = field(repr=False)
    output: tuple[int, ...] | None
    params: int
    macs: int
    leaf: bool


def macs(module, output: tuple[int, ...]) -> int:
    """Multiply-accumulates of one call for one image: convolution and linear layers only, without
    biases (the count of torchvision's and timm's tables)."""
    kind = type(module).__name__
    if kind == "Conv2d":
        kh, kw = module.kernel_size
        per_output = module.in_channels // module.groups * kh * kw
    elif kind == "Linear":
        per_output = module.in_features
    else:
        return 0
    total = per_output
    for n in output:
        total *= n
    return total


def totals(rows: list[Row]) -> tuple[int, int]:
    """(parameters, MACs for one image) of a traced net."""
    return sum(row.params for row in rows), sum(row.macs for row in rows)


def layer_table(rows: list[Row]) -> str:
    """One line per layer, in order of execution, and the totals."""
    table = [("layer", "type", "output", "parameters", "MACs")]
    table += [(row.name, row.kind, _shape(row.output), f"{row.params:,}", f"{row.macs:,}")
              for row in rows if row.leaf]
    params, total = totals(rows)
    output = next(row.output for row in rows if row.name == "")
    table.append(("total", "", _shape(output), f"{params:,}", f"{total:,}"))
    return _columns(table, right=(3, 4))


def _shape(output: tuple[int, ...] | None) -> str:
    return "training only" if output is None else "x".join(map(str, output))


def net_rows(trace: Callable[[str], list[Row]]) -> list[tuple[str, ...]]:
    """A header, and all nets of the zoo with parameters, MACs, native input, source and the libraries
    whose weights load.

    Args:
        trace: builds the net of this name in its native form and traces it.
    """
    table = [("net", "parameters", "MACs", "input", "classes", "source", "loads weights of")]
    for name, net in NETS.items():
        params, total = totals(trace(name))
        table.append((name, f"{params:,}", f"{total:,}", f"{net.channels}x{net.size}x{net.size}",
                      str(net.classes), net.source, ", ".join(net.layouts)))
    return table


def net_table(trace: Callable[[str], list[Row]]) -> str:
    """`net_rows` in columns."""
    return _columns(net_rows(trace), right=(1, 2, 4))


def _columns(table: list[tuple[str, ...]], right: tuple[int, ...]) -> str:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join(cell.rjust(w) if i in right else cell.ljust(w)
                       for i, (cell, w) in enumerate(zip(row, widths))).rstrip() for row in table]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)
