"""Both trainers: same options, same batches, same weights, one line for bad input."""
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

import train_jittor
import train_torch
from parity import weights
from training import cli, files, loop, options, run
from training.data import BatchPlan, Data, Split, apply, evaluation_batches
from training.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TRAINERS = {"jittor": train_jittor, "torch": train_torch}
both = pytest.mark.parametrize("framework", TRAINERS)


def call(framework, *arguments):
    return TRAINERS[framework].main([str(a) for a in arguments])


def small(*arguments):
    return ["--dataset", "digits", "--net", "cnn", "-b", 64, *arguments]


def rows(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def toy(channels=3, size=8, n=12):
    random = np.random.default_rng(0)
    splits = [Split(random.integers(0, 256, (k, channels, size, size), np.uint8),
                    (np.arange(k) % 10).astype(np.int32)) for k in (n, 4, 5)]
    return Data("toy", *splits, classes=tuple("0123456789"), mean=(0.4, 0.5, 0.6)[:channels],
                std=(0.2, 0.3, 0.25)[:channels], padding=2, flip=True, source="toy")


@pytest.mark.parametrize("net", ["cnn", "lenet_bn", "mobilenet_slim"])
def test_jittor_compiles_in_the_first_epoch_all_that_it_needs(net, tmp_path, monkeypatch):
    """By the names of the kernels that run, so whatever the cache already holds."""
    import jittor as jt
    kernels, train_epoch = [], loop._train_epoch

    def profiled(*arguments):
        with jt.profile_scope() as report:
            row = train_epoch(*arguments)
        kernels.append({line[report[0].index("FileName")] for line in report[1:]})
        return row

    monkeypatch.setattr(loop, "_train_epoch", profiled)
    options = ["--dataset", "digits", "--net", net, "-b", 64, "--limit-batches", 22]
    assert call("torch", *options, "--epochs", 1, "--output-dir", tmp_path / "torch",
                "--save-init", tmp_path / "init.safetensors") == 0
    kernels.clear()
    assert call("jittor", *options, "--epochs", 3, "--output-dir", tmp_path / "jittor",
                "--init-from", tmp_path / "init.safetensors") == 0
    first, *later = kernels
    assert len(first) > 10 and all(epoch <= first for epoch in later)


def test_the_energy_of_an_epoch_is_logged_if_the_driver_tells_it_twice(tmp_path, monkeypatch):
    told = iter([5.0, 7.5, 8.0, None, None, 9.0])
    monkeypatch.setattr(train_torch.Engine, "energy", lambda self: next(told))
    assert call("torch", *small("--epochs", 3, "--limit-batches", 2, "--output-dir", tmp_path / "r")) == 0
    assert [row["energy_j"] for row in rows(tmp_path / "r" / "log.csv")] == ["2.5", "", ""]


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """Two epochs of each trainer on the digits, from the same initial weights."""
    folder = tmp_path_factory.mktemp("runs")
    shared = small("--epochs", 2, "--lr", 0.02, "--seed", 3)
    assert call("torch", *shared, "--save-init", folder / "init.safetensors",
                "--output-dir", folder / "torch") == 0
    assert call("jittor", *shared, "--init-from", folder / "init.safetensors",
                "--output-dir", folder / "jittor") == 0
    return folder


@both
def test_a_run_leaves_all_its_files(first_run, framework):
    folder = first_run / framework
    assert {p.name for p in folder.iterdir()} == {
        "args.json", "log.csv", "steps.csv", "last.safetensors", "best.safetensors", "state.safetensors",
        "curves.png", "confusion.csv", "result.json"}
    record = json.loads((folder / "args.json").read_text())
    assert record["framework"] == framework and record["precision"] == "float32"
    assert record["command"].startswith(f"python train_{framework}.py --dataset digits --net cnn ")
    assert "--seed 3" in record["command"]
    assert record["options"]["seed"] == 3 and record["versions"]["numpy"]
    log = rows(folder / "log.csv")
    assert [row["epoch"] for row in log] == ["1", "2"]
    assert tuple(log[0]) == run.LOG and all(row.pop("energy_j") == "" for row in log)  # a CPU's is not known
    assert all(float(v) >= 0 for row in log for v in row.values())
    steps = rows(folder / "steps.csv")
    assert [int(row["step"]) for row in steps] == list(range(1, 41))  # 1293 // 64 = 20 an epoch
    assert np.mean([float(r["loss"]) for r in steps[:20]]) == pytest.approx(
        float(log[0]["train_loss"]), rel=1e-6)
    assert weights.metadata(folder / "last.safetensors")["epoch"] == "2"
    result = json.loads((folder / "result.json").read_text())
    assert result["test_images"] == 360 and result["test_acc"] < result["test_top5"] <= 1
    confusion = rows(folder / "confusion.csv")
    hits = {row["class"]: int(row[row["class"]]) for row in confusion}
    assert sum(hits.values()) / 360 == result["test_acc"]
    assert hits.keys() == result["test_class_acc"].keys()


def test_both_train_on_the_same_batches_from_the_same_weights(first_run):
    """The losses agree to float32 rounding; a net without BatchNorm at a small rate is not chaotic."""
    ours, theirs = ([(r["lr"], float(r["loss"])) for r in rows(first_run / side / "steps.csv")]
                    for side in ("jittor", "torch"))
    assert [lr for lr, _ in ours] == [lr for lr, _ in theirs]
    np.testing.assert_allclose([v for _, v in ours], [v for _, v in theirs], rtol=2e-5)
    records = [json.loads((first_run / side / "args.json").read_text()) for side in TRAINERS]
    assert records[0]["data_sha256"] == records[1]["data_sha256"]


@both
def test_either_evaluates_the_others_checkpoint(first_run, framework, capsys):
    other = {"torch": "jittor", "jittor": "torch"}[framework]
    checkpoint = first_run / other / "last.safetensors"
    capsys.readouterr()
    assert call(framework, *small("--evaluate", "--init-from", checkpoint)) == 0
    result = json.loads((first_run / other / "result.json").read_text())
    shown = capsys.readouterr().out
    loss, accuracy = map(float, re.search(r"test: loss (.*), accuracy (.*)%, top-5 .*\(360 images\)", shown).groups())
    assert loss == pytest.approx(result["test_loss"], abs=1e-4)
    assert accuracy / 100 == pytest.approx(result["test_acc"], abs=1.02 / 360)  # two logits of an image may tie


@both
@pytest.mark.parametrize("channels, cutout", [(1, 0), (3, 0), (3, 3)])
def test_inputs_are_the_plans_bit_for_bit(framework, channels, cutout):
    data = toy(channels)
    args = options.parse(framework, ["--net", "se_resnet18_lab", "--device", "cpu"])
    engine = TRAINERS[framework].Engine(args, data)
    plan = BatchPlan(12, 5, 8, data.padding, data.flip, 1, cutout)
    for split, batches in (("train", [*plan.epoch(0), *plan.epoch(1)]),
                           ("test", [*evaluation_batches(5, 2, 8)])):
        for batch in batches:
            x, y = engine.inputs(split, batch)
            expected = apply(batch, data.splits[split].images, data.table())
            assert np.array_equal(np.asarray(x.numpy()), expected)
            assert np.array_equal(y.numpy(), data.splits[split].labels[batch.indices])


@both
@pytest.mark.parametrize("optimizer", [["--optimizer", "adam"], ["--optimizer", "adamw"],
                                       ["--nesterov", "--warmup-epochs", 0.5]])
def test_every_optimizer_and_option_runs(framework, optimizer, tmp_path):
    assert call(framework, *small("--epochs", 2, "--limit-batches", 2, "--label-smoothing", 0.1,
                                  "--dropout", 0.2, "--schedule", "multistep", "--milestones", 1,
                                  "--clip-norm", 0.5, "--val-fraction", 0,
                                  "--output-dir", tmp_path / "r", *optimizer)) == 0
    log = rows(tmp_path / "r" / "log.csv")
    assert len(log) == 2 and log[0]["val_loss"] == ""
    assert float(log[1]["lr"]) == pytest.approx(float(rows(tmp_path / "r/steps.csv")[1]["lr"]) / 10)


def test_clipping_is_the_same_in_both(tmp_path):
    """A small norm keeps the weights nearly where they were, by the same steps."""
    init = tmp_path / "init.safetensors"
    shared = small("--epochs", 1, "--limit-batches", 3, "--lr", 0.1, "--clip-norm", 1e-3, "--wd", 0,
                   "--momentum", 0)
    assert call("torch", *shared, "--save-init", init, "--output-dir", tmp_path / "torch") == 0
    assert call("jittor", *shared, "--init-from", init, "--output-dir", tmp_path / "jittor") == 0
    start = weights.read(init)
    ends = [weights.read(tmp_path / name / "last.safetensors") for name in TRAINERS]
    rates = [float(row["lr"]) for row in rows(tmp_path / "torch" / "steps.csv")]
    moves = [{name: end[name] - start[name].astype("float64") for name in start} for end in ends]
    for move in moves:
        length = np.sqrt(sum((a ** 2).sum() for a in move.values()))
        assert 0.5 < length / (1e-3 * sum(rates)) <= 1.0001
    for name in start:
        np.testing.assert_allclose(moves[0][name], moves[1][name], atol=1e-7)


@both
def test_the_average_of_the_weights(framework, tmp_path):
    """After three steps, by hand."""
    args = options.parse(framework, ["--net", "cnn", "--device", "cpu", "--ema", "0.75"])
    data = toy(size=32)
    plan = BatchPlan(12, 4, 32, data.padding, data.flip, seed=1)
    engine = TRAINERS[framework].Engine(args, data)
    seen = []
    for batch in plan.epoch(0):
        engine.step(batch, 0.1)
        seen.append(engine.arrays())
    assert len(seen) == 3
    for name in seen[0]:
        expected = 0.75 * (0.75 * seen[0][name] + 0.25 * seen[1][name]) + 0.25 * seen[2][name]
        np.testing.assert_allclose(engine.average_arrays()[name], expected, rtol=0, atol=1e-6)
    with engine.averaged():
        inside = engine.arrays()
    after = engine.arrays()
    for name in after:
        assert np.array_equal(inside[name], engine.average_arrays()[name])
        assert np.array_equal(after[name], seen[2][name])
        assert not np.array_equal(inside[name], after[name])
    engine.step(batch, 0.1)
    for name, array in engine.arrays().items():
        assert not np.array_equal(array, after[name])


@both
def test_what_is_saved_and_evaluated_is_the_average(framework, tmp_path, capsys):
    assert call(framework, *small("--epochs", 1, "--limit-batches", 5, "--ema", 0.9, "--lr", 0.05,
                                  "--output-dir", tmp_path / "r")) == 0
    state, last = (weights.read(tmp_path / "r" / f"{name}.safetensors") for name in ("state", "last"))
    for name, array in last.items():
        assert np.array_equal(array, state[f"average.{name}"])
        assert not np.array_equal(array, state[f"weights.{name}"])
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert call(framework, *small("--evaluate", "--limit-batches", 5, "--init-from",
                                  tmp_path / "r" / "last.safetensors")) == 0
    assert f"accuracy {result['test_acc']:.2%}" in capsys.readouterr().out.splitlines()[-1]


@both
def test_same_seed_same_run(framework, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert call(framework, *small("--epochs", 1, "--limit-batches", 3, "--seed", seed,
                                      "--dropout", 0.3, "--output-dir", tmp_path / name)) == 0
    losses = {n: (tmp_path / n / "steps.csv").read_text() for n in "abc"}
    assert losses["a"] == losses["b"] != losses["c"]


BAD = [
    ([], "--net NAME is needed"),
    (["--net", "densnet"], "unknown net 'densnet'; did you mean densenet"),
    (["--net", "cnn", "--colour"], "unrecognized arguments: --colour"),
    (["--net", "cnn", "--epochs", "0"], "argument --epochs: 0 is not allowed: at least 1"),
    (["--net", "cnn", "--lr", "nan"], "argument --lr: nan is not allowed"),
    (["--net", "cnn", "--dropout", "1"], "argument --dropout: 1 is not allowed: at least 0 and below 1"),
    (["--net", "cnn", "-b", "many"], "'many' is not a whole number"),
    (["--net", "cnn", "--epochs", "2.5"], "'2.5' is not a whole number"),
    (["--net", "cnn", "--data-dir", "tpyo"], "--data-dir tpyo is no folder"),
    (["--net", "cnn", "--dataset", "digits", "--save-init", "w.pth"], "'w.pth' is not a .safetensors file"),
    (["--net", "resnet18_lab", "--dataset", "digits", "-b", "1"], "one value per channel"),
    *((["--net", "cnn", "--dataset", "digits", name, "99999999999999999999"], "at most 2147483647")
      for name in ("--limit-batches", "--epochs", "-b", "--print-every", "--seed")),
    *((["--net", "cnn", "--dataset", "digits", name, "1e308"], "1e308 is not allowed: at least 0 and at most")
      for name in ("--lr", "--wd", "--warmup-epochs", "--gamma", "--clip-norm", "--mixup")),
    (["--net", "cnn", "--image-size", "3000000000"], "not allowed: at least 1 and at most 16384"),
    (["--net", "cnn", "--dataset", "digits", "--schedule", "multistep", "--milestones", "1", "2", "--gamma",
      "1e20"], "is above 1e+30"),
    (["--net", "cnn", "--dataset", "digits", "--save-init", "/dev/null/w.safetensors"],
     "/dev/null/w.safetensors cannot be written"),
    *((["--net", "cnn", "--dataset", "digits", f"--{name}", "\udcff.safetensors"],
       f"--{name} \\udcff.safetensors is no name in UTF-8")
      for name in ("data-dir", "output-dir", "init-from", "save-init")),
    (["--net", "cnn", "--optimizer", "sgdd"], "invalid choice: 'sgdd'"),
    (["--net", "cnn", "--evaluate"], "--evaluate needs the weights: --init-from FILE"),
    (["--net", "cnn", "--nesterov", "--momentum", "0"], "--nesterov needs"),
    (["--net", "cnn", "--milestones", "2"], "--milestones needs --schedule multistep"),
    (["--net", "cnn", "--dataset", "digits", "--warmup-epochs", "11"], "warm-up"),
    (["--net", "cnn", "--dataset", "digits", "--lr", "0"], "lr must be positive"),
    (["--net", "cnn", "--dataset", "folder", "--data-dir", "/nonexistent"], "/nonexistent"),
    (["--net", "cnn", "--summary", "--image-size", "8"], "8x8 pixels is too small for cnn"),
    (["--net", "bn_inception", "--dataset", "digits", "--image-size", "40"], "40x40 pixels"),
    (["--net", "inception_v3", "--dataset", "digits", "-b", "1"], "one value per channel"),
    (["--net", "cnn", "--dataset", "digits", "--init-from", "/nonexistent.pth"], "no such weights file"),
    (["--net", "cnn", "--dataset", "digits", "--device", "cuda"], "--device cuda: "),
]


@both
@pytest.mark.parametrize("arguments, message", BAD, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_bad_input_is_one_line_and_exit_code_2(framework, arguments, message, tmp_path, monkeypatch, capfd):
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("with a GPU --device cuda is no bad input")
    monkeypatch.chdir(tmp_path)
    assert call(framework, *arguments) == 2
    error = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("jt_models:")]
    assert len(error) == 1 and error[0].startswith("error: ") and message in error[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error, line", [
    (MemoryError("Unable to allocate 1 TiB"), "not enough memory: Unable to allocate 1 TiB"),
    (OSError(2, "No such file", "a\x1b[31m\nb"), r"No such file: a\x1b[31m\nb"),
    (UserError("a\x1b[31m\nb"), r"a\x1b[31m\nb")])
def test_an_error_is_one_line_without_terminal_codes(error, line, capsys):
    def run():
        raise error
    assert cli.main(run) == 2
    assert capsys.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code(closed):
    command = f"{sys.executable} {ROOT / 'train_torch.py'} --epochs 0 {closed}"
    found = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert found.returncode == 2 and found.stdout == "" and found.stderr.count("\n") == ("2>" not in closed)


@pytest.mark.parametrize("name", ["", ".", "/", "there"])
def test_a_folder_is_no_file_that_could_be_written(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="cannot be written: it is a folder"):
        files.check_writable(name, file=True)
    files.check_writable(tmp_path / "there")
    files.check_writable(tmp_path / "there" / "new", file=True)


@both
def test_weights_whose_loss_is_not_finite_have_no_accuracy(framework, first_run, tmp_path, capsys):
    arrays = weights.read(first_run / "init.safetensors")
    huge = {name: np.full_like(a, 1e38) if a.ndim else a for name, a in arrays.items()}
    weights.save(tmp_path / "huge.safetensors", huge)
    assert call(framework, *small("--evaluate", "--limit-batches", 1, "--init-from",
                                  tmp_path / "huge.safetensors")) == 2
    shown = capsys.readouterr()
    assert "accuracy" not in shown.out
    assert f"the loss of {tmp_path / 'huge.safetensors'} on the test images is not finite" in shown.err


@both
def test_weights_of_another_net_are_refused(framework, first_run, tmp_path, capsys):
    assert call(framework, "--dataset", "digits", "--net", "cnn_1x1", "--output-dir", tmp_path / "r",
                "--init-from", first_run / "init.safetensors") == 2
    assert "2 missing: conv3.weight, conv3.bias" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@both
def test_output_folder_must_be_new_and_writable(framework, tmp_path, capsys, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "log.csv").write_text("precious")
    assert call(framework, *small("--output-dir", tmp_path / "full")) == 2
    assert "full is not empty: choose another --output-dir" in capsys.readouterr().err
    assert (tmp_path / "full" / "log.csv").read_text() == "precious"
    assert call(framework, *small("--output-dir", tmp_path / "full" / "log.csv" / "r")) == 2
    assert "cannot write to --output-dir" in capsys.readouterr().err
    monkeypatch.setattr(run.shutil, "disk_usage", lambda path: Namespace(free=1000))
    assert call(framework, *small("--output-dir", tmp_path / "new")) == 2
    assert "MB are needed" in capsys.readouterr().err


@both
def test_a_diverged_run_stops_and_keeps_its_checkpoint(framework, tmp_path, capsys):
    code = call(framework, *small("--epochs", 3, "--schedule", "multistep", "--milestones", 1,
                                  "--gamma", 1e12, "--lr", 0.01, "--output-dir", tmp_path / "r"))
    assert code == 2
    assert "the loss is no longer finite (epoch 2" in capsys.readouterr().err
    assert weights.metadata(tmp_path / "r" / "last.safetensors")["epoch"] == "1"


def test_summary_and_list_are_the_same_for_both(capsys):
    shown = {}
    for framework in TRAINERS:
        assert call(framework, "--net", "densenet121", "--summary", "--image-size", 32) == 0
        assert call(framework, "--list") == 0
        shown[framework] = capsys.readouterr().out
    assert shown["torch"] == shown["jittor"]
    assert "features.denseblock1.denselayer1.conv2" in shown["torch"]
    assert "resnet18 " in shown["torch"] and "1,814,073,344" in shown["torch"]


@both
def test_ctrl_c_keeps_the_last_checkpoint_and_says_so(framework, tmp_path):
    command = [sys.executable, ROOT / f"train_{framework}.py",
               *map(str, small("--epochs", 100_000, "--output-dir", tmp_path / "r"))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            break
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    # On a busy machine one step may take longer than the patience, and then it is killed.
    assert process.returncode in (cli.INTERRUPTED, -signal.SIGKILL), error
    assert f"interrupted: kept {tmp_path / 'r' / 'last.safetensors'}" in error
    epochs = len(rows(tmp_path / "r" / "log.csv"))
    assert int(weights.metadata(tmp_path / "r" / "last.safetensors")["epoch"]) in (epochs, epochs + 1)


def test_a_forked_child_that_holds_the_pipe_does_not_keep_a_finished_run(tmp_path):
    """As Jittor's compilers do."""
    code = ("import os, pathlib, sys, time\nfrom training.cli import stop_promptly\n"
            "with stop_promptly(pathlib.Path(sys.argv[1])):\n"
            "    if os.fork() == 0:\n"
            "        time.sleep(120)\n"
            "        os._exit(0)\n")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "last.safetensors")],
                               cwd=ROOT, start_new_session=True)
    try:
        assert process.wait(timeout=60) == 0  # no limit on speed: without the end's byte it hangs
    finally:
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("exists", [True, False])
def test_ctrl_c_ends_a_call_that_python_cannot_interrupt(exists, tmp_path):
    """An endless loop in C that looks at no signal, as when Jittor compiles kernels."""
    checkpoint = tmp_path / "last.safetensors"
    if exists:
        checkpoint.write_bytes(b"")
    code = ("import collections, itertools, pathlib, sys\nfrom training.cli import stop_promptly\n"
            "with stop_promptly(pathlib.Path(sys.argv[1])):\n"
            "    print('in', flush=True)\n"
            "    collections.deque(itertools.repeat(0), maxlen=0)\n")
    process = subprocess.Popen([sys.executable, "-c", code, str(checkpoint)], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == "in\n"
    time.sleep(0.5)  # until it is inside the loop
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    state = f"kept {checkpoint}" if exists else "no epoch was complete"
    assert error == f"\ninterrupted: {state}\n"
