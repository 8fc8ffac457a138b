"""Files that were truncated, overwritten or written by somebody else: one clear error, or what was saved."""
import io
import json
import pickle
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import jittor as jt
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from parity import keymap, report, weights
from training import datasets, downloads, run
from training.errors import UserError
from training.finished import read as read_run

VARIANTS = settings(max_examples=1000, deadline=None, database=None, derandomize=True,
                    suppress_health_check=[HealthCheck.function_scoped_fixture])
ARRAYS = {"conv.weight": np.arange(60, dtype="float32").reshape(3, 4, 5), "steps": np.array(7),
          "bn.running_mean": np.linspace(-1, 1, 33)}


@st.composite
def damages(draw):
    """A function from good bytes to damaged ones."""
    kind = draw(st.sampled_from(("truncated", "bit flipped", "overwritten", "cut", "inserted", "foreign")))
    place, bit = draw(st.integers(0, 2**16)), draw(st.integers(0, 7))
    noise = draw(st.binary(min_size=1, max_size=40))

    def damage(good: bytes) -> bytes:
        at = place % len(good)
        return {"truncated": good[:at],
                "bit flipped": good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1:],
                "overwritten": good[:at] + noise + good[at + len(noise):],
                "cut": good[:at] + good[at + len(noise):],
                "inserted": good[:at] + noise + good[at:],
                "foreign": noise}[kind]
    return damage


@dataclass
class Format:
    """A kind of file.

    Attributes:
        good: its bytes.
        name: of the file.
        read: of its path.
        checked: whether what is read must be what was saved; else a changed digit cannot be noticed.
    """
    good: bytes
    name: str
    read: Callable
    checked: bool = False


def saved(write) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def safetensors() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        weights.save(Path(folder) / "x.safetensors", ARRAYS, {"net": "cnn"})
        return (Path(folder) / "x.safetensors").read_bytes()


def jittor_pkl() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        jt.save(ARRAYS, f"{folder}/x.pkl")
        return (Path(folder) / "x.pkl").read_bytes()


RECORD = {"command": "python train_torch.py --net cnn", "framework": "torch", "start_sha256": "0",
          "options": {"net": "cnn", "seed": 0, "batch_size": 4}, "data": "toy", "data_sha256": "d",
          "net_image_size": 32, "device": "cpu", "precision": "float32", "cpu": "a processor", "cores": 2,
          "python": "3", "versions": {"torch": "2"}}
LOG = b"epoch,lr,train_loss,train_acc,val_loss,val_acc,seconds,images_per_second,peak_memory_mb,energy_j\n" \
      b"1,0.01,2.3,0.1,2.2,0.2,1.5,100,300,\n2,0.005,2.1,0.2,2.0,0.3,1.5,100,300,70\n"
RESULT = {"test_acc": 0.25, "test_top5": 0.5, "test_loss": 2.0, "test_images": 10, "seconds": 3.5,
          "epochs": 2}


def finished(path):
    """The run whose log, record or result is the file at `path`."""
    for name, content in (("args.json", json.dumps(RECORD).encode()), ("log.csv", LOG),
                          ("result.json", json.dumps(RESULT).encode())):
        if name != path.name:
            (path.parent / name).write_bytes(content)
    return read_run(path.parent)


def resumed_log(path):
    (path.parent / "steps.csv").write_text("epoch,step,lr,loss\n1,1,0.01,2.3\n2,2,0.005,2.1\n")
    (path.parent / "args.json").write_text(json.dumps(RECORD))
    with run.Run(path.parent, RECORD, 0, resume=True) as opened:
        opened.keep_epochs(2, 1)


def image(path):
    for place in ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png"):
        target = path.parent / place
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(target)
    (path.parent / "train" / "a" / path.name).write_bytes(path.read_bytes())
    datasets.load("folder", path.parent, 0, 0)


def idx(array) -> bytes:
    """As MNIST stores whole numbers: a type, the shape, the bytes."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


DIGITS = {"images-idx3": np.zeros((4, 28, 28), "uint8"), "labels-idx1": np.arange(4, dtype="uint8")}


def mnist(path):
    """The data set, one of whose files is the one at `path`."""
    folder = path.parent / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for name in (f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in DIGITS):
        content = path.read_bytes() if name == path.name else idx(DIGITS[name.split("-", 1)[1][:-6]])
        (folder / name).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloads, "_download", offline)
        found = datasets.load("mnist", path.parent, 0, 0)
    for split in (found.train, found.test):
        assert len(split.images) == len(split.labels) > 0
        assert 0 <= split.labels.min() <= split.labels.max() < 10


def offline(*_):
    raise OSError("no network")


FORMATS = {
    "safetensors": Format(safetensors(), "x.safetensors", weights.read, checked=True),
    "pth": Format(saved(lambda f: torch.save({k: torch.from_numpy(a) for k, a in ARRAYS.items()}, f)),
                  "x.pth", weights.read, checked=True),
    "legacy pth": Format(saved(lambda f: torch.save({k: torch.from_numpy(a) for k, a in ARRAYS.items()}, f,
                                                    _use_new_zipfile_serialization=False)),
                         "x.pth", weights.read),
    "Jittor's pkl": Format(jittor_pkl(), "x.pkl", weights.read, checked=True),
    "key map": Format(json.dumps({"a.weight": "b.weight", "a.bias": "b.bias"}).encode(), "map.json",
                      keymap.read),
    "report": Format(json.dumps(report.Report("x", [report.Check("structure", "eval", "output", 1., 2., 3.,
                                                                 4.)]).to_json()).encode(),
                     "report.json", report.load),
    "record": Format(json.dumps(RECORD).encode(), "args.json", finished),
    "log": Format(LOG, "log.csv", finished),
    "result": Format(json.dumps(RESULT).encode(), "result.json", finished),
    "log of an interrupted run": Format(LOG, "log.csv", resumed_log),
    "MNIST images": Format(idx(DIGITS["images-idx3"]), "train-images-idx3-ubyte", mnist),
    "MNIST labels": Format(idx(DIGITS["labels-idx1"]), "train-labels-idx1-ubyte", mnist),
    "image": Format(saved(lambda f: Image.fromarray(np.arange(192, dtype="uint8").reshape(8, 8, 3)).save(
        f, "png")), "damaged.png", image),
}


def readable(kind: Format, path, same: bool = True) -> bool:
    """Whether the file was read; a UserError in one line counts as not read, anything else fails, and so does
    another content than what was saved, if it is to be the `same` and the format can tell."""
    try:
        found = kind.read(path)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
        return False
    if kind.checked and same:
        assert found.keys() == ARRAYS.keys()
        assert all(np.array_equal(found[name], a) and found[name].dtype == a.dtype
                   for name, a in ARRAYS.items())
    return True


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_one_clear_error_or_unharmed(name, tmp_path, noted):
    kind = FORMATS[name]
    path = tmp_path / kind.name
    refused = []

    @VARIANTS
    @given(damages())
    def variant(damage):
        path.write_bytes(damage(kind.good))
        refused.append(not readable(kind, path))

    path.write_bytes(kind.good)
    assert readable(kind, path)
    variant()
    assert len(refused) >= 1000 and sum(refused) > 100
    rest = "unharmed" if kind.checked else "read as what it says"
    noted("damaged file", name,
          f"{sum(refused)} of {len(refused)} variants refused in one line, the others {rest}")


class Bomb:
    """A pickle that would leave a trace."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return open, (self.place, "w")


def test_no_file_runs_code(tmp_path, noted):
    trace = tmp_path / "trace"
    bomb = pickle.dumps(Bomb(trace))
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("x/data.pkl", bomb)
        archive.writestr("x/version", "3")
    torch.save({"a": Bomb(trace)}, tmp_path / "new.pth")
    torch.save({"a": Bomb(trace)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "raw.pth").write_bytes(bomb)
    for file in tmp_path.glob("*.pth"):
        with pytest.raises(UserError):
            weights.read(file)
    for name in ("args.json", "log.csv", "result.json"):
        path = tmp_path / name
        path.write_bytes(bomb)
        with pytest.raises(UserError):
            finished(path)
    for read in (keymap.read, report.load):
        with pytest.raises(UserError):
            read(path)
    assert not trace.exists()
    noted("malicious pickle", "every file that is read", "refused, no code run")


@pytest.mark.parametrize("name, other", [("epoch", "1"), ("best", "0.9")])
def test_notes_of_a_weights_file_are_hashed_too(name, other, tmp_path):
    path = tmp_path / "x.safetensors"
    weights.save(path, ARRAYS, {"epoch": "2", "best": "0.5"})
    assert weights.metadata(path) == {"epoch": "2", "best": "0.5"}
    text = path.read_bytes()
    good = json.dumps({name: weights.metadata(path)[name]})[1:-1].replace(": ", ":").encode()
    assert text.count(good) == 1
    bad = json.dumps({name: other})[1:-1].replace(": ", ":").encode()
    path.write_bytes(text.replace(good, bad))
    with pytest.raises(UserError, match="is damaged"):
        weights.read(path)


def test_a_hash_of_somebody_else_is_none_of_ours(tmp_path):
    from safetensors.numpy import save_file
    save_file(ARRAYS, str(tmp_path / "x.safetensors"), {"sha256": "of the whole file"})
    assert weights.read(tmp_path / "x.safetensors").keys() == ARRAYS.keys()
