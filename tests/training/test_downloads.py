"""torchvision's data sets, from toy files in their formats; never from the network."""

import gzip
import hashlib
import http.server
import importlib.util
import io
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from training import downloads
from training.datasets import load
from training.errors import UserError
from training.torchvision_ops import declare_missing_ops

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
)

RAW = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte",
       "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture(scope="module")
def tv():
    declare_missing_ops()
    import torchvision.datasets

    return torchvision.datasets


def idx(array):
    """The IDX format of http://yann.lecun.com/exdb/mnist/."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist_arrays():
    random = np.random.default_rng(0)
    arrays = []
    for n in (12, 6):
        arrays += [random.integers(0, 256, (n, 28, 28), np.uint8),
                   (np.arange(n) % 10).astype(np.uint8)]
    return dict(zip(RAW, arrays))


def write_raw(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in mnist_arrays().items():
        (folder / name).write_bytes(idx(array))


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def offline(tv, monkeypatch):
    """Every address leads to a local port where nobody listens."""
    dead = "http://127.0.0.1:9/"
    for dataset in (tv.MNIST, tv.FashionMNIST):
        monkeypatch.setattr(dataset, "mirrors", [dead])
    monkeypatch.setattr(tv.CIFAR10, "url", dead + tv.CIFAR10.filename)


@pytest.fixture
def archives(tv, offline, monkeypatch):
    """Toy MNIST archives by file name, with their checksums known to torchvision."""
    packed = {f"{name}.gz": gzip.compress(idx(array)) for name, array in mnist_arrays().items()}
    monkeypatch.setattr(tv.MNIST, "resources", [(n, md5(c)) for n, c in packed.items()])
    return packed


@pytest.fixture
def server(tv, archives, monkeypatch):
    """Serves `server.files`, cut to `server.limit` bytes, as a broken connection would."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = served.files[self.path[1:]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: served.limit])

        def log_message(self, *_):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.files, served.limit = archives, None
    monkeypatch.setattr(tv.MNIST, "mirrors", [f"http://127.0.0.1:{served.server_port}/"])
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served
    served.shutdown()
    served.server_close()


def check_mnist(data):
    arrays = mnist_arrays()
    assert np.array_equal(data.train.images[:, 0], arrays[RAW[0]])
    assert np.array_equal(data.train.labels, arrays[RAW[1]])
    assert np.array_equal(data.test.images[:, 0], arrays[RAW[2]])
    assert np.array_equal(data.test.labels, arrays[RAW[3]])


@pytest.mark.parametrize(
    "name, folder, mean, augmentation",
    [("mnist", "MNIST", 0.1307, (0, False)), ("fashion-mnist", "FashionMNIST", 0.2860, (3, True))],
)
def test_raw_files_load_without_network(tmp_path, offline, name, folder, mean, augmentation):
    write_raw(tmp_path / folder / "raw")
    data = load(name, tmp_path, 0, 0)
    check_mnist(data)
    assert data.name == name and data.mean == (mean,)
    assert (data.padding, data.flip) == augmentation


def test_a_fresh_process_needs_no_help_with_torchvision(tmp_path):
    """This file's fixture declares torchvision's missing operators; `load` must do so itself."""
    write_raw(tmp_path / "MNIST/raw")
    code = ("from training.datasets import load\n"
            f"print(len(load('mnist', {str(tmp_path)!r}, 0, 0).test))")
    result = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2],
                            capture_output=True, text=True)
    assert result.stdout.strip() == "6", result.stderr


def damaged(name, content):
    return lambda raw: (raw / name).write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        damaged(RAW[0], idx(mnist_arrays()[RAW[0]])[:-1]),
        damaged(RAW[0], b""),
        damaged(RAW[1], b"\x00\x00\x08\x01"),
        damaged(RAW[1], idx(np.zeros(11, np.uint8))),
        lambda raw: (raw / RAW[3]).unlink(),
    ],
    ids=["truncated", "empty", "header only", "fewer labels", "missing"],
)
def test_damaged_raw_files_are_reported_or_repaired(tmp_path, archives, damage):
    raw = tmp_path / "MNIST/raw"
    write_raw(raw)
    damage(raw)
    with pytest.raises(UserError, match="MNIST is missing or damaged in .* cannot be downloaded"):
        load("mnist", tmp_path, 0, 0)
    for name, content in archives.items():
        (raw / name).write_bytes(content)
    check_mnist(load("mnist", tmp_path, 0, 0))
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]


def test_labels_out_of_range(tmp_path, offline):
    write_raw(tmp_path / "MNIST/raw")
    (tmp_path / "MNIST/raw" / RAW[3]).write_bytes(idx(np.array([0, 1, 2, 3, 77, 5], np.uint8)))
    with pytest.raises(UserError, match="mnist: the test split has the label 77"):
        load("mnist", tmp_path, 0, 0)


def test_a_label_that_no_class_can_have(tmp_path, tv, offline):
    """2**32 is 0 in 32 bits."""
    (tmp_path / "MNIST/processed").mkdir(parents=True)
    for name, label in (("training", 0), ("test", 2**32)):
        torch.save((torch.zeros(2, 28, 28, dtype=torch.uint8), torch.tensor([1, label])),
                   tmp_path / f"MNIST/processed/{name}.pt")
    with pytest.raises(UserError, match="MNIST is missing or damaged"):
        load("mnist", tmp_path, 0, 0)
    with pytest.raises(UserError, match="MNIST has the label 4294967296, which is no class"):
        downloads._read(tv.MNIST, tmp_path)


def test_a_download_is_complete_or_absent(tmp_path, server):
    server.limit = 60
    with pytest.raises(UserError, match="cannot be downloaded"):
        load("mnist", tmp_path / "new", 0, 0)
    assert not (tmp_path / "new").exists()
    server.limit = None
    check_mnist(load("mnist", tmp_path / "new", 0, 0))
    server.files = {}
    check_mnist(load("mnist", tmp_path / "new", 0, 0))  # no second download


def test_a_silent_server_does_not_hang(tmp_path, tv, monkeypatch):
    monkeypatch.setattr(downloads, "_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(tv.CIFAR10, "url", f"http://127.0.0.1:{silent.getsockname()[1]}/x")
        rescue = threading.Timer(5, silent.close)  # resets the connection: another message
        rescue.start()
        with pytest.raises(UserError, match="CIFAR-10 .*timed out.*put cifar-10-python.tar.gz"):
            load("cifar10", tmp_path, 0, 0)
        rescue.cancel()
    assert socket.getdefaulttimeout() is None


def test_the_data_folder_cannot_be_made(tmp_path, offline):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="MNIST is missing .*cannot be downloaded"):
        load("mnist", tmp_path / "file" / "data", 0, 0)


def test_auto_without_network(tmp_path, offline):
    notices = []
    assert load("auto", tmp_path, 0, 0, warn=notices.append).name == "digits"
    assert "NOT CIFAR-10" in notices[0] and "Connection refused" in notices[0]


@pytest.fixture
def cifar(tv, offline, monkeypatch):
    """A toy CIFAR-10 of 4 + 2 images: (archive, [N,3,32,32] of train and test)."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), np.uint8)
    names = [f"class {i}" for i in range(10)]
    batches = {f"data_batch_{i}": (pixels[2 * i:2 * i + 2], [i, i + 1]) for i in range(2)}
    batches["test_batch"] = (pixels[4:], [8, 9])
    files = {
        name: pickle.dumps({"data": images.reshape(2, -1), "labels": labels})
        for name, (images, labels) in batches.items()
    }
    files["batches.meta"] = pickle.dumps({"label_names": names})
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    sums = {name: md5(content) for name, content in files.items()}
    monkeypatch.setattr(tv.CIFAR10, "tgz_md5", md5(packed.getvalue()))
    monkeypatch.setattr(tv.CIFAR10, "train_list", [[n, sums[n]] for n in list(files)[:2]])
    monkeypatch.setattr(tv.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(tv.CIFAR10, "meta",
                        {**tv.CIFAR10.meta, "md5": sums["batches.meta"]})
    return packed.getvalue(), pixels


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torchvision's tar.extractall
def test_cifar10_from_an_archive_on_the_disk(tmp_path, cifar):
    archive, pixels = cifar
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive)
    data = load("auto", tmp_path, 0, 0, warn=pytest.fail)
    assert data.name == "cifar10" and data.classes[3] == "class 3"
    assert np.array_equal(data.train.images, pixels[:4])
    assert np.array_equal(data.test.images, pixels[4:])
    assert data.train.labels.tolist() == [0, 1, 1, 2] and data.test.labels.tolist() == [8, 9]

    (tmp_path / "cifar-10-batches-py/data_batch_1").write_bytes(b"half")
    assert load("cifar10", tmp_path, 0, 0).sha256 == data.sha256
    shutil.rmtree(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive[:-1])
    with pytest.raises(UserError, match="CIFAR-10 is missing or damaged"):
        load("cifar10", tmp_path, 0, 0)


def test_no_torchvision(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(UserError, match="MNIST needs torchvision, which cannot be imported"):
        load("mnist", tmp_path, 0, 0)
