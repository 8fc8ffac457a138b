"""The probe: known weaknesses of Jittor's operators are found, and a doctored operator is."""
import io
import json

import numpy as np
import pytest
from rich.console import Console

import jittor as jt
from jt_models import layers
from parity import probe
from parity.probe import OPS, Row
from training.errors import UserError

SIZES, RATIOS = (100, 900), (0, 1000)


@pytest.fixture(scope="module")
def rows():
    return probe.probe(sizes=SIZES, ratios=RATIOS)


def one(rows, **wanted) -> Row:
    (row,) = [r for r in rows if all(getattr(r, name) == value for name, value in wanted.items())]
    return row


def test_every_operator_size_and_ratio_is_measured_once_in_order(rows):
    assert [(r.op, r.implementation, r.size, r.ratio) for r in rows] == [
        (name, implementation, size, ratio) for name, op in OPS.items() for implementation in op.jittor
        for size in SIZES for ratio in RATIOS]


def test_batch_norm_of_jittor_is_at_fault_where_the_mean_is_large_and_ours_is_not(rows):
    stock = one(rows, op="batch_norm", implementation="jittor", size=100, ratio=1000)
    assert stock.error > 1e5 and stock.at_fault
    assert stock.verdict.startswith("jittor is at fault, not the port: ")
    assert not one(rows, op="batch_norm", implementation="jt_models", size=100, ratio=1000).at_fault
    assert not one(rows, op="batch_norm", implementation="jittor", size=100, ratio=0).at_fault


def test_short_reductions_are_within_the_budget(rows):
    for row in rows:
        if row.op != "batch_norm":
            assert row.error <= row.budget and row.verdict == "within the budget", row
        assert 0 < row.torch_error < 4000, row


def test_a_long_mean_is_at_fault():
    (row,) = [r for r in probe.probe(["mean"], [100_000], [1000]) if r.implementation == "jittor"]
    assert row.error > 500 and row.torch_error < 8 and row.at_fault


def test_our_batch_norm_is_within_the_budget_for_large_batches_too():
    found = probe.probe(["batch_norm"], [100_000], [0, 10, 100, 1000])
    assert not any(row.at_fault for row in found if row.implementation == "jt_models")
    assert all(row.at_fault for row in found if row.implementation == "jittor")


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(rows):
    assert probe.probe(["softmax"], SIZES, RATIOS) == [r for r in rows if r.op == "softmax"]
    assert probe.probe(["softmax"], SIZES[:1], [0], seed=1) != [one(rows, op="softmax", size=100, ratio=0)]


def test_a_doctored_operator_is_seen(rows, monkeypatch):
    usual = jt.nn.softmax
    monkeypatch.setattr(jt.nn, "softmax", lambda x, dim: usual(x, dim) * (1 + 1e-4))
    (row,) = probe.probe(["softmax"], [100], [0])
    assert row.error == pytest.approx(1e-4 * 2 ** 24, rel=0.05) and row.at_fault
    assert row.torch_error == one(rows, op="softmax", size=100, ratio=0).torch_error


def test_a_doctored_layer_of_ours_is_seen(monkeypatch):
    monkeypatch.setattr(layers, "BatchNorm2d", jt.nn.BatchNorm2d)
    row = one(probe.probe(["batch_norm"], [100], [1000]), implementation="jt_models")
    assert row.at_fault


def test_nan_is_an_infinite_error_and_null_in_json(monkeypatch):
    monkeypatch.setattr(jt.nn, "softmax", lambda x, dim: jt.array(np.full(x.shape, np.nan, "float32")))
    (row,) = probe.probe(["softmax"], [100], [0])
    assert row.error == np.inf and row.at_fault
    data = row.to_json()
    assert data["e2"] is data["einf"] is None and data["at_fault"] is True
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_the_table_fits_a_terminal_and_marks_what_is_at_fault(rows):
    out = io.StringIO()
    Console(file=out, width=80).print(probe.render(rows))
    lines = out.getvalue().splitlines()
    assert sum("batch_norm" in line for line in lines) == 4
    assert "…" not in out.getvalue() and max(map(len, lines)) <= 80
    line = next(line for line in lines if line.split()[:3] == ["batch_norm", "jittor", "100"])
    plain, marked = line.split()[3:5], line.split()[5:]
    assert "!" not in plain[0] and marked[0].startswith("!")


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(UserError, match="unknown operator 'sotfmax'.*did you mean 'softmax'"):
        probe.probe(["sotfmax"])
    with pytest.raises(UserError, match="at least 2, not 1"):
        probe.probe(["mean"], [100, 1])
