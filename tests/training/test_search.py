"""Every combination of options, ranked."""
import contextlib
import csv

import pytest

from training import search
from training.errors import UserError

GRID = ["--framework", "torch", "--net", "cnn", "--dataset", "digits", "--lr", "0.05", "1e30", "0.0001",
        "-b", "64", "--epochs", "2", "--limit-batches", "6"]


def test_options_with_several_values_are_the_axes():
    axes, fixed = search.split(["--net", "cnn", "--lr", "0.1", "0.2", "--nesterov", "--dropout=0.5",
                                "-b", "8", "16", "--schedule", "multistep", "--milestones", "2", "4"])
    assert axes == {"--lr": ["0.1", "0.2"], "-b": ["8", "16"]}
    assert fixed == ["--net", "cnn", "--nesterov", "--dropout", "0.5", "--schedule", "multistep",
                     "--milestones", "2", "4"]
    assert search.split(["--lr", "0.1", "0.1", "0.2"])[0] == {"--lr": ["0.1", "0.2"]}
    with pytest.raises(UserError, match="--resume cannot be used in a search"):
        search.split(["--resume", "x"])


def test_each_trial_has_a_folder_of_its_own():
    trials = [{"--init-from": value, "--lr": "0.1"} for value in ("a/b", "a-b", "c", "a/b")]
    assert search.names(trials) == [f"init-from={end}" for end in (
        "a-b_lr=0.1", "a-b_lr=0.1-2", "c_lr=0.1", "a-b_lr=0.1-3")]


def test_a_search_ranks_goes_on_and_keeps_what_stopped(tmp_path, capfd):
    command = [*GRID, "--output-dir", str(tmp_path / "s")]
    assert search.main(command) == 0
    with open(tmp_path / "s" / "search.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["lr"] for row in rows} == {"0.05", "0.0001", "1e30"}
    assert rows[2]["lr"] == "1e30" and rows[2]["best_val_acc"] == ""
    assert float(rows[0]["best_val_acc"]) >= float(rows[1]["best_val_acc"]) > 0
    assert (tmp_path / "s" / "search.png").read_bytes().startswith(b"\x89PNG")
    out = capfd.readouterr()
    assert f"best: lr {rows[0]['lr']}; test accuracy" in out.out and "stopped" in out.out
    log = tmp_path / "s" / "lr=0.05" / "log.csv"
    before = log.stat().st_mtime_ns
    assert search.main(command) == 0
    assert log.stat().st_mtime_ns == before
    assert search.main([*command, "--momentum", "0.5"]) == 2
    assert "was made with other options" in capfd.readouterr().err


@pytest.mark.parametrize("change, message", [
    (["--val-fraction", "0.0001"], "needs validation images"), (["--cutout", "33"], "cutout must be 0 to 32 pixels")])
def test_what_only_the_first_trial_can_tell_ends_the_search(change, message, tmp_path, capfd):
    with contextlib.suppress(SystemExit):
        assert search.main([*GRID, *change, "--output-dir", str(tmp_path / "s")]) == 2
    out = capfd.readouterr()
    assert message in out.err and len(out.err.strip().splitlines()) == 1
    assert "2 of 3" not in out.out and not (tmp_path / "s" / "search.csv").exists()


@pytest.mark.parametrize("change, message", [
    (["--dropout", "0.1", "much"], "'much' is not a number"), (["--lr", "0.3"], "--lr is given twice"),
    (["--eval", "--init-from", "x.pth"], "unrecognized arguments: --eval"),
    (["--output", "x"], "unrecognized arguments: --output"), (["--val-fraction", "0"], "needs validation images"),
    (["--output-dir"], "expected one argument")])
def test_bad_input_is_one_line_before_anything_is_trained(change, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert search.main([*GRID, *change]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
