"""Every net trains from the command line: CIFAR-10-shaped images, and MNIST-shaped for those forms."""
import json

import numpy as np
import pytest
from PIL import Image

import train_jittor
import train_torch
from zoo.catalog import NETS, input_size

TRAINERS = {"jittor": train_jittor, "torch": train_torch}
# One of each kind that needs something of the trainer: auxiliary heads, resized images, grouped
# convolutions, one channel. All others are left to `make test-all`.
LIGHT = ("googlenet", "alexnet", "mobilenet_slim", "densenet121_mnist")
CASES = [name if name in LIGHT else pytest.param(name, marks=pytest.mark.slow) for name in NETS]


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """Two classes of random images in CIFAR-10's shape."""
    folder = tmp_path_factory.mktemp("cifar")
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for label in "ab":
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{i}.png")
    return folder


@pytest.mark.parametrize("framework", TRAINERS)
@pytest.mark.parametrize("name", CASES)
def test_two_training_steps(framework, name, cifar, tmp_path, capsys):
    if NETS[name].channels == 1:
        data, size = ["--dataset", "digits", "--image-size", "28"], 28
    else:
        data, size = ["--data-dir", str(cifar)], 32
    assert TRAINERS[framework].main(
        ["--net", name, *data, "--val-fraction", "0", "-b", "4", "--limit-batches", "2",
         "--epochs", "1", "--device", "cpu", "--output-dir", str(tmp_path / "run")]) == 0
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert np.isfinite(found["test_loss"])
    used = input_size(name, size)
    assert json.loads((tmp_path / "run" / "args.json").read_text())["net_image_size"] == used
    assert ("images are resized on the device" in capsys.readouterr().out) == (used != size)
