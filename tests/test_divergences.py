"""Every declared divergence, measured anew: a test fails when Jittor changes, or when a remedy no longer
agrees with PyTorch."""
import importlib
import json
from pathlib import Path

import pytest

import jittor as jt
from jt_models import layers
from parity import divergences
from parity.divergences import ROWS

rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)


def problems(row) -> list[str]:
    """What is no longer as the row says."""
    stock, remedied = row.measure()
    found = []
    if not row.size / row.factor <= stock <= row.size * row.factor:
        found.append(f"Jittor has changed: {stock}, not {row.size} {row.unit}")
    if remedied is not None and not 0 <= remedied <= row.bound:
        found.append(f"{row.remedy or row.instead} is off by {remedied}")
    return found


@rows
def test_row(row):
    assert not problems(row)


@rows
def test_the_cause_stands_where_the_row_says(row):
    file, _, number = row.where.partition(":")
    lines = Path(jt.__file__).parent.parent.joinpath(file).read_text(encoding="utf-8").splitlines()
    found = [i for i, line in enumerate(lines, 1) if row.quote in line]
    assert int(number) in found, f"{row.quote!r} stands on lines {found} of {file}"


@rows
def test_the_remedy_exists(row):
    if row.remedy is None:
        assert row.instead
        return
    module, _, name = row.remedy.rpartition(".")
    assert callable(getattr(importlib.import_module(module), name))


def by_id(name):
    return next(row for row in ROWS if row.id == name)


def test_a_repaired_jittor_is_noticed(monkeypatch):
    for name in ("AvgPool2d", "BatchNorm2d"):
        monkeypatch.setattr(jt.nn, name, getattr(layers, name))
    for name in ("avg-pool-ceil-divisor", "batch-norm-running-var", "batch-norm-one-value"):
        assert any("Jittor has changed" in text for text in problems(by_id(name)))


def test_a_broken_remedy_is_noticed(monkeypatch):
    monkeypatch.setattr(layers, "AvgPool2d", jt.nn.AvgPool2d)
    (problem,) = problems(by_id("avg-pool-ceil-divisor"))
    assert problem.startswith("jt_models.layers.AvgPool2d is off by 0.333")


def test_the_table_is_plain_data_with_unique_names():
    table = divergences.table()
    assert json.loads(json.dumps(table)) == table
    assert len({row["id"] for row in table}) == len(table) == len(ROWS)
    assert all(row["what"].endswith(".") and row["factor"] >= 1 for row in table)


def test_the_markdown_has_a_line_for_each_row():
    head, rule, *lines = divergences.markdown().splitlines()
    assert [row.what for row in ROWS] == [line.split(" | ")[0].lstrip("| ") for line in lines]
    assert {line.replace("\\|", "").count("|") for line in (head, rule, *lines)} == {5}
    assert not any("| |" in line for line in lines)
