"""What breaks while a command runs: signals, a full disk, a folder that cannot be written to.

No half-written file, no traceback, nothing that hangs, and what was interrupted goes on to the same result.
"""
import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from parity import weights
from training.run import Run

import processes
from test_resume import begun, complete_or_absent, content

ROOT = Path(__file__).resolve().parents[2]
TRAINING = ["--dataset", "digits", "-b", 64, "--limit-batches", 6, "--epochs", 6]
EXAMPLES = [f"{ROOT / 'examples' / name}.py:Net" for name in ("my_jittor", "my_torch")]
CHECK = ["-m", "parity", "check", *EXAMPLES, "--input", "2x3x12x12", "--steps", 1]
# Command lines that train below a folder, and go on there when they are called once more.
TRAINERS = {
    "train_jittor.py": ["train_jittor.py", "--net", "cnn", *TRAINING],
    "train_torch.py": ["train_torch.py", "--net", "cnn", *TRAINING],
    "train_torch.py --seeds": ["train_torch.py", "--net", "cnn", *TRAINING, "--seeds", 0, 1],
    "compare.py": ["compare.py", "--nets", "cnn", "--", *TRAINING],
    "training.search": ["-m", "training.search", "--framework", "torch", "--net", "cnn", "--lr", 0.1, 0.01,
                        *TRAINING],
}
# Those that leave a file; called once more they make it anew. Its name is put at the end.
TOOLS = {
    "parity check --json": [*CHECK, "--json"],
    "parity check --html": [*CHECK, "--html"],
    "parity inject --json": ["-m", "parity", "inject", "--net", "cnn", "--fault", "relu_missing",
                             "bias_missing", "--json"],
    "parity probe --json": ["-m", "parity", "probe", "--ops", "mean", "--json"],
}


def trainer(name, folder):
    """Its command line for a run in `folder`, or the one that goes on there."""
    first, *rest = TRAINERS[name]
    if name in ("train_jittor.py", "train_torch.py") and (folder / "args.json").is_file():
        return [first, "--resume", folder]
    place = rest.index("--") if "--" in rest else len(rest)
    return [first, *rest[:place], "--output-dir", folder, *rest[place:]]


def start(command, **environment):
    """A Python command; None leaves a name out of its environment."""
    env = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    return subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, env=env, text=True,
                            start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end(process):
    """(exit code, stderr) of a process that ends by itself, and none of whose children outlives it."""
    try:
        process.printed, error = process.communicate(timeout=120)
        assert "Traceback" not in error
        patience = time.monotonic() + 5  # what its parent has killed may take a moment
        while members(process.pid) and time.monotonic() < patience:
            time.sleep(0.05)
        assert not members(process.pid)
        return process.returncode, error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def succeed(process):
    code, error = end(process)
    assert code == 0, process.printed + error


def members(group):
    """The living processes of a process group, as (number, command)."""
    return [(pid, processes.command(pid)) for pid, (*_, own) in processes.all_living().items()
            if own == group]


def stop(process, name):
    """As it happens: Ctrl-C reaches every process of a terminal, `kill` one, the end of a machine all."""
    number = signal.Signals[name]
    (os.kill if name == "SIGTERM" else os.killpg)(process.pid, number)
    code, error = end(process)
    if name == "SIGKILL":
        assert code in (0, -number)
        return "ended at once"
    # -number: Python was leaving after the end. -SIGKILL: within a call that Python cannot interrupt, such as
    # Jittor's compilation, a trainer is killed.
    assert code in (0, 130, -number, -signal.SIGKILL), error
    if code in (0, -number):
        return "came to its end"
    assert "interrupted" in error
    return "interrupted, in one line"


def results(folder):
    """All that the runs below a folder came to."""
    return {path.parent.relative_to(folder): content(path.parent) for path in folder.rglob("result.json")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Of a trainer's command: (results without interruption, its seconds after it had begun)."""
    known = {}

    def find(name):
        if name not in known:
            folder = tmp_path_factory.mktemp("whole")
            process = start(trainer(name, folder))
            begun(folder, process)
            since = time.monotonic()
            succeed(process)
            known[name] = results(folder), time.monotonic() - since
        return known[name]
    return find


def fast(*chosen):
    """Parameters, of which only the chosen ones are run for each commit."""
    def mark(*values):
        return pytest.param(*values, marks=[] if values in chosen else pytest.mark.slow)
    return mark


SIGNALS = ("SIGINT", "SIGTERM", "SIGKILL")
both = fast(("SIGTERM", "train_jittor.py"), ("SIGINT", "train_torch.py"))


@pytest.mark.parametrize("number, name", [both(n, name) for name in TRAINERS for n in SIGNALS])
def test_a_training_goes_on_after_a_signal(number, name, whole, tmp_path, noted):
    right, seconds = whole(name)
    process = start(trainer(name, tmp_path))
    begun(tmp_path, process)
    time.sleep(random.Random(f"{number} {name}").uniform(0, seconds))
    outcome = stop(process, number)
    for run in tmp_path.rglob("args.json"):
        complete_or_absent(run.parent)
    if not (tmp_path / "result.json").exists():
        succeed(start(trainer(name, tmp_path)))
    assert results(tmp_path) == right
    noted(number, name, f"{outcome}; went on to the same weights and logs")


once = fast(("SIGTERM", "parity check --json"))


@pytest.mark.parametrize("number, name", [once(n, name) for name in TOOLS for n in SIGNALS])
def test_a_tool_leaves_no_half_file_after_a_signal(number, name, tmp_path, noted):
    out = tmp_path / "made"
    command = [*TOOLS[name], out]
    process = start(command)
    process.stderr.readline()  # Jittor is being imported
    since = time.monotonic()
    succeed(process)
    seconds, right = time.monotonic() - since, out.stat().st_size
    out.unlink()
    process = start(command)
    process.stderr.readline()
    time.sleep(random.Random(f"{number} {name}").uniform(0, seconds))
    outcome = stop(process, number)
    assert not out.exists() or out.stat().st_size > right / 2
    assert number == "SIGKILL" or list(tmp_path.glob(".*")) == []
    noted(number, name, f"{outcome}; {'file complete' if out.exists() else 'no file'}")


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts an empty disk with these options, and gives its place."""
    holders = []

    def mount(options):
        place = tmp_path / "disk"
        place.mkdir(exist_ok=True)
        script = f'mount -t tmpfs -o {options} none "$0" && echo ready && exec sleep 3600'
        holder = subprocess.Popen(["unshare", "-r", "-m", "sh", "-c", script, place], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
        holders.append(holder)
        if holder.stdout.readline() != "ready\n":
            pytest.skip(f"a disk of our own is not allowed here: {holder.communicate()[1].strip()}")
        return Path(f"/proc/{holder.pid}/root{place}")

    yield mount
    for holder in holders:
        holder.kill()
        holder.wait()


def fill(disk):
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("name", [fast(("train_jittor.py",))(name) for name in TRAINERS])
def test_a_full_disk_ends_a_training_which_then_goes_on(name, whole, small_disk, noted):
    right, _ = whole(name)
    disk = small_disk("size=40m")
    process = start(trainer(name, disk / "out"))
    begun(disk / "out", process)
    fill(disk)
    code, error = end(process)
    assert code == 2 and "error: No space left on device: " in error
    for run in (disk / "out").rglob("args.json"):
        complete_or_absent(run.parent)
    (disk / "filler").unlink()
    succeed(start(trainer(name, disk / "out")))
    assert results(disk / "out") == right
    noted("full disk", name, "one line; went on to the same weights and logs")


@pytest.mark.parametrize("name", [fast(("parity convert",))(name) for name in (*TOOLS, "parity convert")])
def test_a_full_disk_leaves_no_half_file(name, small_disk, tmp_path, noted):
    weights.save(tmp_path / "weights.safetensors", {"a": np.zeros(100_000)})
    disk = small_disk("size=1m")
    fill(disk)
    command = TOOLS.get(name, ["-m", "parity", "convert", tmp_path / "weights.safetensors"])
    code, error = end(start([*command, disk / "made.safetensors"]))
    assert code == 2 and "error: No space left on device: " in error
    assert [path.name for path in disk.iterdir()] == ["filler"]
    noted("full disk", name, "one line, no file")


some = fast(("train_torch.py",), ("compare.py",), ("training.search",), ("parity check --json",))


@pytest.mark.parametrize("name", [some(name) for name in (*TRAINERS, *TOOLS)])
def test_a_folder_that_cannot_be_written_to_is_told_at_once(name, small_disk, noted):
    disk = small_disk("ro")
    command = trainer(name, disk / "out") if name in TRAINERS else [*TOOLS[name], disk / "made"]
    code, error = end(start(command))
    assert code == 2 and error.count("error: ") == 1 and "annot" in error and str(disk) in error
    noted("read-only folder", name, "one line, before the work")


@pytest.mark.parametrize("fault, options", [("read-only folder", "ro"), ("full disk", "size=2m")])
def test_a_cache_that_cannot_be_written_to_is_one_line(fault, options, small_disk, tmp_path, noted):
    disk = small_disk(options)
    # Jittor keeps JITTOR_HOME for later processes in a file of HOME.
    code, error = end(start(trainer("train_jittor.py", tmp_path / "out"), HOME=str(tmp_path),
                            JITTOR_HOME=str(disk)))
    assert code == 2 and "error: Jittor cannot make its cache folder" in error
    noted(fault, "Jittor's cache", "one line, before the work")


def test_a_log_never_ends_in_half_a_row(tmp_path):
    """A disk that is full within a row."""
    log = Run(tmp_path / "r", {"command": "python"}, 0)
    log.log_steps([(1, 1, 0.1, 2.0)])
    log.close()
    before = log.path("steps.csv").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 3, limits[1]))
    try:
        with pytest.raises(OSError, match="No space left"):
            log.log_steps([(1, 2, 0.1, 2.0)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert log.path("steps.csv").read_bytes() == before


def test_two_processes_never_share_a_run(tmp_path, noted):
    place = tmp_path / "r"
    first = start([*trainer("train_torch.py", place), "--epochs", 1000])
    begun(place, first)
    for command in (trainer("train_torch.py", place), ["train_torch.py", *map(str, TRAINING), "--net", "cnn",
                                                       "--output-dir", place]):
        code, error = end(start(command))
        assert code == 2 and f"error: another process is training in {place}" in error
    first.terminate()
    assert end(first)[0] == 130
    noted("two processes, one run folder", "train_torch.py", "the second is refused in one line")


@pytest.mark.slow
def test_two_trainers_begin_with_one_empty_cache(tmp_path, noted):
    folders = [tmp_path / "one", tmp_path / "two"]
    trainings = [start(trainer("train_jittor.py", folder), HOME=str(tmp_path), JITTOR_HOME=None)
                 for folder in folders]
    try:
        for process in trainings:
            process.communicate(timeout=3600)
    finally:
        for process in trainings:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert [process.returncode for process in trainings] == [0, 0]
    one, two = ({str(k): v for k, v in results(folder).items()} for folder in folders)
    assert one == two
    noted("two processes, one empty cache", "train_jittor.py", "same weights and logs")


def open_files(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["jittor", "torch"])
def test_ten_thousand_steps(framework, tmp_path, noted):
    """Memory and open files stay flat, and the logs can be read at any instant."""
    command = [f"train_{framework}.py", "--net", "lenet_bn", "--dataset", "digits", "-b", 64, "--epochs", 500,
               "--limit-batches", 20, "--output-dir", tmp_path / "r"]
    process = start(command)
    begun(tmp_path / "r", process)
    seen = []  # (epochs, resident pages, open files)
    while process.poll() is None:
        log = (tmp_path / "r" / "log.csv").read_text()
        complete_or_absent(tmp_path / "r")
        with contextlib.suppress(OSError):  # it has just ended
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            seen.append((log.count("\n") - 1, pages, open_files(process.pid)))
        time.sleep(0.5)
    succeed(process)
    assert len((tmp_path / "r" / "steps.csv").read_text().splitlines()) == 10_001
    steady = [row for row in seen if 20 <= row[0] < 500]
    assert len(steady) > 20
    assert max(pages for _, pages, _ in steady) < 1.02 * steady[0][1]
    assert max(files for *_, files in steady) <= steady[0][2] + 2  # a checkpoint is being written
    noted("10,000 steps", f"train_{framework}.py", "memory and open files flat, logs always readable")
