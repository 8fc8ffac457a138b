"""An interrupted run, resumed, ends as if nothing had happened."""
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import train_jittor
import train_torch
from parity import weights
from training import checkpoint, loop
from training.run import Run

ROOT = Path(__file__).resolve().parents[2]
TRAINERS = {"jittor": train_jittor, "torch": train_torch}
both = pytest.mark.parametrize("framework", TRAINERS)
# Columns of log.csv that are measurements of the machine.
MEASURED = {"seconds", "images_per_second", "peak_memory_mb", "energy_j"}
KILLS = 20


def call(framework, *arguments):
    return TRAINERS[framework].main([str(a) for a in arguments])


def small(*arguments):
    return ["--dataset", "digits", "--net", "cnn", "-b", 64, "--epochs", 3, *arguments]


def content(folder):
    """All of a run that is not a measurement of time or memory."""
    with open(folder / "log.csv") as file:
        log = [{k: v for k, v in row.items() if k not in MEASURED} for row in csv.DictReader(file)]
    result = json.loads((folder / "result.json").read_text())
    arrays = {name: {key: a.tobytes() for key, a in weights.read(folder / f"{name}.safetensors").items()}
              for name in ("last", "best", "state")}
    return log, (folder / "steps.csv").read_text(), {**result, "seconds": None}, arrays


def complete_or_absent(folder):
    """Every file of a run that was killed can be read."""
    for path in folder.glob("[!.]*"):
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            assert weights.read(path)
        elif path.suffix == ".csv":
            text = path.read_text()
            assert text.endswith("\n") and len({line.count(",") for line in text.splitlines()}) == 1


@both
@pytest.mark.parametrize("optimizer", [["--optimizer", "adam", "--ema", 0.9, "--cutout", 4, "--mixup", 0.4],
                                       ["--nesterov", "--warmup-epochs", 1],
                                       pytest.param(["--momentum", 0], marks=pytest.mark.slow)])
def test_stopped_within_an_epoch(framework, optimizer, tmp_path, monkeypatch, capsys):
    options = small("--limit-batches", 4, "--dropout", 0.2, "--lr", 0.01, *optimizer)
    assert call(framework, *options, "--output-dir", tmp_path / "whole") == 0
    usual = loop._train_epoch
    for stop in (1, 3):
        folder = tmp_path / f"stopped in {stop}"

        def train_epoch(engine, plan, schedule, epoch, epochs, run):
            row = usual(engine, plan, schedule, epoch, epochs, run)
            if epoch == stop:  # its steps are in the log, its checkpoint is not
                raise KeyboardInterrupt
            return row

        monkeypatch.setattr(loop, "_train_epoch", train_epoch)
        assert call(framework, *options, "--output-dir", folder) == 130
        monkeypatch.setattr(loop, "_train_epoch", usual)
        capsys.readouterr()
        assert call(framework, "--resume", folder) == 0
        assert f"resuming {folder} after epoch {stop - 1}" in capsys.readouterr().out
        assert content(folder) == content(tmp_path / "whole")
        assert json.loads((folder / "args.json").read_text())["options"]["lr"] == 0.01


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of each framework, and its seconds after the start of training."""
    folder, seconds = tmp_path_factory.mktemp("whole"), {}
    for framework in TRAINERS:
        process = start(framework, *small("--output-dir", folder / framework))
        seconds[framework] = -time.monotonic() + (begun(folder / framework, process) or 0)
        assert process.wait() == 0
        seconds[framework] += time.monotonic()
    return folder, seconds


def start(framework, *arguments):
    return subprocess.Popen([sys.executable, str(ROOT / f"train_{framework}.py"), *map(str, arguments)],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def begun(folder, process):
    """Wait until there is a run in a folder, or below it."""
    while not list(folder.rglob("steps.csv")):
        assert process.poll() in (None, 0)
        time.sleep(0.01)


@both
@pytest.mark.parametrize("seed", [n if n < 1 else pytest.param(n, marks=pytest.mark.slow)
                                  for n in range(KILLS)])
def test_killed_at_a_random_moment(framework, seed, whole, tmp_path, noted):
    folder, seconds = whole
    process = start(framework, *small("--output-dir", tmp_path / "run"))
    begun(tmp_path / "run", process)
    time.sleep(random.Random(seed).uniform(0, seconds[framework]))
    process.send_signal(signal.SIGKILL)
    process.wait()
    complete_or_absent(tmp_path / "run")
    if not (tmp_path / "run" / "result.json").exists():
        assert call(framework, "--resume", tmp_path / "run") == 0
    assert content(tmp_path / "run") == content(folder / framework)
    assert list((tmp_path / "run").glob(".*")) == []
    noted("SIGKILL at a random moment", f"train_{framework}.py", "went on to the same weights and logs")


@both
def test_what_cannot_be_resumed_is_one_line(framework, whole, tmp_path, capsys, monkeypatch):
    run = whole[0] / framework
    other = next(name for name in TRAINERS if name != framework)

    def refused(message, *arguments):
        assert call(framework, "--resume", *arguments) == 2
        assert message in capsys.readouterr().err

    refused(f"{tmp_path} holds no run", tmp_path)
    refused(f"the run in {run} is complete", run)
    refused(f"is a run of train_{other}.py", whole[0] / other)
    refused("leave out --lr", run, "--lr", 0.1)
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    record = json.loads((run / "args.json").read_text())
    command = record["command"]
    for changed, message in (({"command": "python train.py --net none"}, "unknown net"),
                             ({"data_sha256": "0"}, "the images are no longer those of the run"),
                             ({"start_sha256": "0"}, "the initial weights are no longer those"),
                             ({"command": None}, "its command is None"),
                             ({"options": []}, "its options is []"),
                             ({"command": f"{command} --lr 0.5"}, "lr in the command of args.json is not"),
                             ({"options": {**record["options"], "seed": 7}}, "seed in the command of"),
                             ({"command": f"{command} -h"}, "unrecognized arguments: -h"),
                             *(({"command": f"{command} {more}"}, f"holds a command with {more.split()[0]}")
                               for more in (f"--resume {stopped}", "--list", "--summary", "--seeds 1",
                                            "--evaluate"))):
        (stopped / "args.json").write_text(json.dumps({**record, **changed}))
        refused(message, stopped)
    for text in ("{", "[]", '{"command": ' + "[" * 100_000):
        (stopped / "args.json").write_text(text)
        refused("is not the record of a run", stopped)
    (stopped / "args.json").unlink()
    os.mkfifo(stopped / "args.json")
    refused("is no regular file", stopped)
    (stopped / "args.json").unlink()
    (stopped / "args.json").write_text(json.dumps(record))
    for make in (os.mkdir, os.mkfifo, lambda path: os.symlink("nowhere", path)):
        make(stopped / "state.safetensors")
        refused("state.safetensors is no regular file", stopped)
        (stopped / "state.safetensors").rename(stopped.parent / make.__name__)
    state = (run / "state.safetensors").read_bytes()
    for content_ in (b"", state[:1000], state[:-1]):
        (stopped / "state.safetensors").write_bytes(content_)
        refused("state.safetensors is not a readable safetensors file", stopped)
    arrays = weights.read(run / "state.safetensors")
    note = weights.metadata(run / "state.safetensors")
    first = next(name for name in arrays if name.startswith("optimizer.") and name.endswith("weight"))
    average = {name.replace("weights.", "average."): a for name, a in arrays.items() if name[0] == "w"}
    for changed, changed_note, message in (
            *((arrays, {**note, **other}, "is not the state of this run: it") for other in (
                {"net": "lenet"}, {"command": "python"}, {"epoch": "0"}, {"epoch": "-1"}, {"seconds": "inf"},
                {"seconds": "nan"}, {"seconds": "-1"}, {"best": "nan"})),
            ({name: a for name, a in arrays.items() if name != first}, note, "optimizer lacks"),
            ({**arrays, first: np.zeros((), "float32")}, note, "has shape ()"),
            ({**arrays, first: np.full_like(arrays[first], np.nan)}, note, "is not finite"),
            ({**arrays, **average}, note, "average has"),
            ({**arrays, "weights.conv1.weight": np.zeros((1, 2), "float32")}, note, "has shape"),
            ({**arrays, "optimizer.momentum_buffer.none": np.zeros(1, "float32")}, note,
             "is not the state of this run"),
            ({**arrays, first: np.zeros((1, 2), "float32")}, note, "is not the state of this run"),
            (arrays, {**note, "epoch": "many"}, "is not the state of this run"),
            (arrays, {}, "is not the state of this run")):
        weights.save(stopped / "state.safetensors", changed, changed_note)
        refused(message, stopped)
    weights.save(stopped / "state.safetensors", arrays, note)
    refused("log.csv has 0 rows, but 3 were complete", stopped)
    assert sorted(p.name for p in stopped.iterdir()) == ["args.json", "state.safetensors"]
    usual = Run._lock

    def lock(run):
        usual(run)
        run.write_text("result.json", "{}")

    monkeypatch.setattr(Run, "_lock", lock)
    refused("another process has trained in", stopped)


def without_header(lines):
    return lines[1:]


def other_header(lines):
    return [lines[0].upper(), *lines[1:]]


def doubled(lines):
    return [*lines[:2], *lines[1:]]


def reordered(lines):
    return [lines[0], *lines[:0:-1]]


def one_missing(lines):
    return [*lines[:2], *lines[3:]]


def without_end(lines):
    return lines[:-1]


def of_another_run(lines):
    return [*lines, *("9" + line for line in lines[1:])]


@pytest.mark.parametrize("name", ["log.csv", "steps.csv"])
@pytest.mark.parametrize("change", [without_header, other_header, doubled, reordered, one_missing,
                                    without_end, of_another_run])
def test_a_changed_log_is_refused_and_left_alone(change, name, whole, tmp_path, capsys):
    folder = shutil.copytree(whole[0] / "torch", tmp_path / "r")
    (folder / "result.json").unlink()
    lines = (folder / name).read_text().splitlines()
    (folder / name).write_text("".join(f"{line}\n" for line in change(lines)))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert call("torch", "--resume", folder) == 2
    assert f"error: {folder / name}" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_logs_without_their_checkpoint_are_refused_and_left_alone(whole, tmp_path, capsys):
    folder = shutil.copytree(whole[0] / "torch", tmp_path / "r")
    for name in ("result.json", "state.safetensors"):
        (folder / name).unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert call("torch", "--resume", folder) == 2
    assert "log.csv is further than the checkpoint, which has no complete epochs" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("stop", [1, 2])
def test_killed_between_a_row_and_its_checkpoint(stop, tmp_path, monkeypatch, capsys):
    options = small("--limit-batches", 4, "--save-init", tmp_path / "init.safetensors")
    assert call("torch", *options, "--output-dir", tmp_path / "whole") == 0
    usual = checkpoint.save

    def save(path, engine, progress, note):
        if note["epoch"] == str(stop):
            raise KeyboardInterrupt
        usual(path, engine, progress, note)

    monkeypatch.setattr(checkpoint, "save", save)
    assert call("torch", *options, "--output-dir", tmp_path / "r") == 130
    with open(tmp_path / "r" / "steps.csv", "a") as file:
        file.write(f"{stop + 1},{4 * stop + 1},0.0")  # within a row
    monkeypatch.setattr(checkpoint, "save", usual)
    assert call("torch", "--resume", tmp_path / "r") == 0
    assert f"after epoch {stop - 1}\n" in capsys.readouterr().out
    ours, theirs = (content(tmp_path / name) for name in ("r", "whole"))
    assert ours == theirs
