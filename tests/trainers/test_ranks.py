"""Several processes train as one would: the same batches, the same losses and weights."""
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import train_torch
from parity import weights
from parity.layers import errors, in_u
from parity.sides import default_dtype
from parity.truth import U, budget
from training import datasets, loop, options, ranks
from training.data import BatchPlan
from training.errors import UserError
from training.ranks import Ranks

import processes
from smooth import smooth
from test_trainers import both, call, rows

ROOT = Path(__file__).resolve().parents[2]
# Batches of 65 divide neither by 2 nor by 3.
OPTIONS = ["--dataset", "digits", "--net", "lenet_bn", "-b", 65, "--limit-batches", 5, "--lr", 0.05,
           "--sync-bn", "--mixup", 0.4, "--cutout", 4, "--clip-norm", 1, "--ema", 0.5]


def launcher(framework, size):
    if framework == "torch":
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", size]
    if shutil.which("mpirun") is None:
        pytest.skip("Open MPI's mpirun is not installed")
    return ["mpirun", "-np", size, "--oversubscribe", "--bind-to", "none", sys.executable]


def start(framework, size, *arguments, before=(), **options):
    """A trainer on `size` ranks; `before`: the script that starts it, if any."""
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                   "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    environment.pop("use_mpi", None)
    command = [*launcher(framework, size), *before, ROOT / f"train_{framework}.py", *arguments]
    return subprocess.Popen(list(map(str, command)), env=environment, cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options)


@given(st.integers(1, 200), st.integers(1, 9))
def test_the_parts_are_the_batch(n, size):
    plan = BatchPlan(n, n, 4, 1, True, seed=n, cutout=2, mixup=1.0)
    batch = next(plan.epoch(0))
    if size > (n + 1) // 2 and size > 1:
        with pytest.raises(UserError, match=f"a batch of {n} images is too small for {size} ranks"):
            Ranks(0, size).part(batch)
        return
    parts = [Ranks(rank, size).part(batch) for rank in range(size)]
    assert sorted(i for part, _ in parts for i in part.indices) == list(range(n))
    mirror = dict(zip(batch.indices, batch.indices[::-1]))
    row = {i: (r.tolist(), c.tolist(), a.tolist(), b.tolist()) for i, r, c, a, b in zip(
        batch.indices, batch.rows, batch.columns, *batch.cut)}
    value = np.random.default_rng(0).standard_normal(n)
    means = []
    for part, scale in parts:
        assert part.mix == batch.mix and len(part.indices) <= -(-n // size) + 2
        assert [mirror[i] for i in part.indices] == list(part.indices[::-1])
        for i, *own in zip(part.indices, part.rows, part.columns, *part.cut):
            assert tuple(line.tolist() for line in own) == row[i]
        means.append(scale * value[part.indices].mean())
    assert np.mean(means) == pytest.approx(value.mean(), abs=1e-12)


@both
def test_the_wrong_launcher_is_refused(framework, monkeypatch, capsys):
    variable, other = {"torch": ("OMPI_COMM_WORLD_SIZE", "torchrun, not with mpirun"),
                       "jittor": ("WORLD_SIZE", "mpirun, not with torchrun")}[framework]
    monkeypatch.setenv(variable, "2")
    assert call(framework, *OPTIONS) == 2
    assert other in capsys.readouterr().err


@both
def test_seeds_are_for_one_process(framework, monkeypatch, capsys):
    for name, value in zip(ranks._LAUNCHERS[framework][1:], "020"):
        monkeypatch.setenv(name, value)
    assert call(framework, *OPTIONS, "--seeds", 1, 2) == 2
    assert "--seeds starts one training after another" in capsys.readouterr().err


def test_a_launcher_tells_rank_and_size(monkeypatch):
    assert ranks.find("torch") == ranks.find("jittor") == Ranks()
    for name, value in (("RANK", 5), ("WORLD_SIZE", 8), ("LOCAL_RANK", 1)):
        monkeypatch.setenv(name, str(value))
    assert ranks.find("torch") == Ranks(5, 8, 1)


@both
@pytest.mark.parametrize("values, message", [
    (("0", None, None), "{0} is set but {1} is not"), (("0", "1", None), "{0} is set but {2} is not"),
    ((None, "2", "0"), "{1} is set but {0} is not"), (("0", "abc", "0"), "{1} is 'abc', but must be a whole"),
    (("0", "", "0"), "{1} is ''"), (("0", "-2", "0"), "{1} is '-2'"), (("0", "1", ""), "{2} is ''"),
    (("-1", "1", "0"), "{0} is '-1'"), (("0", "1", "-1"), "{2} is '-1'"), (("0", "1.0", "0"), "{1} is '1.0'"),
    (("0", "0", "0"), "{0} is 0, but must be below {1}, which is 0"),
    (("2", "2", "0"), "{0} is 2, but must be below {1}, which is 2")])
def test_what_no_launcher_sets_is_one_line(framework, values, message, monkeypatch, capsys):
    names = ranks._LAUNCHERS[framework][1:]
    for name, value in zip(names, values):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert call(framework, *OPTIONS) == 2
    assert f"error: {message.format(*names)}" in capsys.readouterr().err


@both
def test_a_size_of_the_other_launcher_that_is_no_number(framework, monkeypatch, capsys):
    name = ranks._LAUNCHERS[{"torch": "jittor", "jittor": "torch"}[framework]][2]
    monkeypatch.setenv(name, "x")
    assert call(framework, *OPTIONS) == 2
    assert f"{name} is 'x'" in capsys.readouterr().err


def test_ranks_that_do_not_come_are_waited_for_ten_minutes(monkeypatch):
    def wait(backend, timeout):
        raise torch.distributed.DistStoreError(f"{backend} after {timeout.total_seconds()} s")
    monkeypatch.setattr(torch.distributed, "init_process_group", wait)
    with pytest.raises(UserError, match="did not find each other: gloo after 600.0 s"):
        train_torch._join(torch, "gloo")


def test_more_ranks_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"3 ranks on this machine, but PyTorch sees 2 GPU\(s\)"):
        train_torch._device(torch, "auto", Ranks(6, 8, 2))


@contextlib.contextmanager
def smoothed():
    """lenet_bn has no branches in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for zoo in ("jt_models", "torch_ref"):
            lenet, nn = smooth(zoo)
            patch.setattr(lenet, "nn", nn)
        yield


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """(initial weights, the state after five steps in float64, PyTorch's own float32 errors in u)."""
    folder = tmp_path_factory.mktemp("alone")
    init = folder / "init.safetensors"
    with smoothed():
        assert call("torch", *OPTIONS, "--epochs", 1, "--save-init", init, "--output-dir", folder / "torch") == 0
        right = in_float64(init)
    return init, right, in_u(errors(state(folder / "torch"), right))


def in_float64(init) -> dict[str, np.ndarray]:
    """What `state` gives, of PyTorch in float64 on one rank."""
    args = options.parse("torch", [*map(str, OPTIONS), "--epochs", "1"])
    data = datasets.load("digits", "data", args.val_fraction, args.seed)
    engine = train_torch.Engine(args, data)
    weights.load(engine.net, weights.read(init))
    engine.net.double()
    plan, schedule = loop.plan_and_schedule(args, data)
    single = engine.inputs
    engine.inputs = lambda split, batch: (lambda x, y: (x.double(), y))(*single(split, batch))
    with default_dtype("float64"):
        for step, batch in zip(range(args.limit_batches), plan.epoch(0)):
            engine.step(batch, schedule(step))
    parts = {"weights": engine.arrays(), "optimizer": engine.optimizer_arrays(),
             "average": engine.average_arrays()}
    return {f"{part}.{name}": a for part, arrays in parts.items() for name, a in arrays.items()
            if not name.endswith("num_batches_tracked")}


def state(folder) -> dict[str, np.ndarray]:
    """Weights, momentum and average after the last epoch, float64."""
    return {name: a.astype("float64") for name, a in weights.read(folder / "state.safetensors").items()
            if not name.endswith(("steps", "num_batches_tracked"))}


@both
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_train_as_one_process_does(framework, size, truth, tmp_path):
    init, right, floors = truth
    runs = {}
    for name, count in (("one", 1), ("several", size)):
        place = tmp_path / name
        arguments = [*OPTIONS, "--epochs", 1, "--init-from", init, "--output-dir", place]
        if count == 1:
            with smoothed():
                assert call(framework, *arguments) == 0
        else:
            process = start(framework, count, *arguments, before=[Path(__file__).with_name("smooth.py")])
            out, err = process.communicate(timeout=900)
            assert process.returncode == 0, err[-3000:]
            assert out.count("test: loss") == 1  # the first rank alone speaks
        found = in_u(errors(state(place), right))
        assert not {key: (e, floors[key]) for key, e in found.items() if e > budget(floors[key])}, name
        runs[name] = rows(place / "steps.csv"), rows(place / "log.csv")[0]
    ours, theirs = ([float(row["loss"]) for row in runs[name][0]] for name in ("several", "one"))
    assert ours == pytest.approx(theirs, rel=64 * U)
    for column in ("train_acc", "val_acc"):  # an image may fall to the other side
        assert float(runs["several"][1][column]) == pytest.approx(float(runs["one"][1][column]), abs=1 / 65)


@both
def test_a_run_goes_on_with_another_number_of_ranks(framework, tmp_path, noted):
    arguments = [*OPTIONS, "--epochs", 20]
    process = start(framework, 2, *arguments, "--output-dir", tmp_path / "r")
    wait_for(process, tmp_path / "r" / "state.safetensors")
    ranks_below = children(process.pid)
    for pid in [*ranks_below, process.pid]:  # torchrun gives its ranks sessions of their own
        os.kill(pid, signal.SIGKILL)
    kill(process)
    wait_for_end(ranks_below)  # until then they hold the run folder
    before = rows(tmp_path / "r" / "log.csv")
    assert 0 < len(before) < 20 and not (tmp_path / "r" / "result.json").exists()
    assert call(framework, "--resume", tmp_path / "r") == 0
    after = rows(tmp_path / "r" / "log.csv")
    assert len(after) == 20 and after[:len(before) - 1] == before[:-1]
    steps = rows(tmp_path / "r" / "steps.csv")
    assert [int(row["step"]) for row in steps] == list(range(1, 101))
    noted("SIGKILL", f"train_{framework}.py, 2 ranks", "went on with one rank, all logs kept")


@both
def test_a_rank_that_dies_ends_the_job(framework, tmp_path, noted):
    arguments = ["--dataset", "digits", "--net", "lenet_bn", "-b", 64, "--epochs", 1000]
    process = start(framework, 2, *arguments, "--output-dir", tmp_path / "r")
    try:
        wait_for(process, tmp_path / "r" / "state.safetensors")
        victim = next(pid for pid in children(process.pid)
                      if b"_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes())
        os.kill(victim, signal.SIGKILL)
        out, err = process.communicate(timeout=60)
    finally:
        kill(process)
    assert process.returncode not in (0, None)
    assert "signal" in err.lower()
    assert weights.read(tmp_path / "r" / "state.safetensors")
    noted("SIGKILL of one rank", f"train_{framework}.py, 2 ranks", "the job ended, checkpoint complete")


def wait_for(process, path):
    end = time.monotonic() + 600
    while not path.is_file():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[1][-3000:]
        time.sleep(0.05)


def wait_for_end(pids):
    """Of processes that are not ours to wait for."""
    end = time.monotonic() + 60
    while any(map(processes.status, pids)):
        assert time.monotonic() < end
        time.sleep(0.05)


def children(pid):
    """Processes of our trainers below `pid`."""
    return [child for child, (_, parent, _) in processes.all_living().items()
            if parent == pid and b"train_" in processes.command(child)]


def kill(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
