"""The benchmark: what is made of the times, and that all columns run. No time is judged."""
import csv
import json

import pytest

import bench
from jt_models import warm
from training.benchmark import HEADER, Row, Worker, table
from training.errors import UserError


def row(column, train, evaluate=(1.0, 1.0), batch_size=10):
    return Row("cnn", 32, batch_size, column, 100, 9.0, {}, 50.0, {"train": train, "evaluate": evaluate})


def test_ratios_are_taken_within_a_round_against_the_faster_layout_of_pytorch():
    found = table([row("torch", [9.0, 9.0, 9.0]), row("torch-channels-last", [1.0, 4.0, 2.0]),
                   row("jittor", [2.0, 4.0, 1.0]), row("torch", [1.0], [1.0], batch_size=20)], peak=1e4)
    shown = {(r["batch_size"], r["phase"], r["column"]): r for r in (dict(zip(HEADER, r)) for r in found)}
    jittor = shown[10, "train", "jittor"]
    assert (jittor["ratio"], jittor["ratio_min"], jittor["ratio_max"]) == (1.0, 0.5, 2.0)
    assert (jittor["seconds"], jittor["seconds_min"], jittor["seconds_max"]) == (2.0, 1.0, 4.0)
    assert jittor["images_per_second"] == 5.0
    # A step is three forward passes of 100 multiply-accumulates, of two operations each, for ten images.
    assert jittor["share_of_peak"] == pytest.approx(3 * 100 * 2 * 10 / 2.0 / 1e4)
    assert shown[10, "train", "torch"]["ratio"] < 1 and shown[20, "train", "torch"]["ratio"] == 1


def test_without_pytorch_there_is_no_ratio():
    (found, _) = table([row("jittor", [1.0])], peak=1.0)
    assert dict(zip(HEADER, found))["ratio"] is None


def test_every_column_is_measured_and_recorded(tmp_path, capsys):
    columns = ["torch", "torch-channels-last", "jittor", "jittor-stock"]
    code = bench.main(["lenet_bn", "-b", "4", "--rounds", "2", "--batches", "1", "--columns", *columns,
                       "--output-dir", str(tmp_path)])
    assert code == 0
    lines = capsys.readouterr().out.replace(str(tmp_path), "").splitlines()
    assert max(map(len, lines)) <= 80 and "lenet_bn, 4 of 28x28: train" in map(str.strip, lines)
    assert [line.split()[0] for line in lines if " MB" in line] == columns * 2
    (made,), (record,) = tmp_path.glob("*.csv"), tmp_path.glob("*.json")
    rows = list(csv.DictReader(made.open()))
    assert [(r["phase"], r["column"]) for r in rows] == [(phase, column) for phase in ("train", "evaluate")
                                                         for column in columns]
    assert all(float(r["seconds"]) > 0 and float(r["peak_memory_mb"]) > 100 for r in rows)
    assert {r["image_size"] for r in rows} == {"28"}
    data = json.loads(record.read_text())
    assert data["limits"]["flops"] > 1e9 and data["limits"]["bytes"] > 1e8
    assert all(len(times) == 2 for one in data["rows"] for times in one["seconds"].values())
    assert {one["environment"]["framework"] for one in data["rows"]} == {"torch", "jittor"}


@pytest.mark.parametrize("arguments, said", [
    (["nothing"], "unknown net 'nothing'"),
    (["cnn", "--columns", "tf"], "unknown column 'tf'; there are: torch, "),
    (["cnn", "-b", "0"], "-b/--batch-size: 0 is not allowed"),
    (["cnn", "--rounds", "x"], "--rounds: 'x' is not a whole number"),
])
def test_bad_input_is_one_line_before_anything_is_measured(arguments, said, capsys, tmp_path):
    assert bench.main([*arguments, "--output-dir", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_what_is_compiled_ahead_is_not_compiled_again(capsys):
    assert [warm.main(["lenet_bn"]) for _ in range(2)] == [0, 0]
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("lenet_bn: ") and second.startswith("lenet_bn: 0 kernels compiled, ")
    assert warm.main(["none"]) == 2


@pytest.mark.parametrize("framework, batch, said", [("torch", "0", "torch cnn 32 0 ended"),
                                                    ("jittor", "4", "'/no/compiler' is not on PATH")])
def test_a_column_that_breaks_is_named(framework, batch, said, monkeypatch):
    monkeypatch.setenv("cc_path", "/no/compiler")  # Jittor's start ends before anything is built
    with Worker(framework, "cnn", "32", batch) as worker, pytest.raises(UserError, match=said):
        worker.run("build", 1)
