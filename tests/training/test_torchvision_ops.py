"""`declare_missing_ops` repairs a broken torchvision and leaves every other one alone."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")


def run(code, *folders):
    path = [str(ROOT), *map(str, folders)]
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n"
         "from training.torchvision_ops import declare_missing_ops\n" + code],
        capture_output=True, text=True, cwd=folders[0] if folders else ROOT,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def fake_torchvision(folder, extension):
    """A package that needs the schema of nms, as torchvision's _meta_registrations.py does."""
    package = folder / "torchvision"
    package.mkdir()
    package.joinpath("__init__.py").write_text(
        "import torch\ntorch.library.register_fake('torchvision::nms')(lambda d, s, i: d)\n"
    )
    if extension is not None:
        shutil.copy(extension, package / "_C.so")


DECLARED = """
declare_missing_ops()
declare_missing_ops()
import torch
print(*(hasattr(torch.ops.torchvision, name) for name in ("nms", "qnms")))
"""


@needs_torch
@pytest.mark.parametrize("kind", ["missing", "garbage"])
def test_a_broken_extension_is_repaired(tmp_path, kind):
    garbage = tmp_path / "garbage"
    garbage.write_text("not a library")
    fake_torchvision(tmp_path, garbage if kind == "garbage" else None)
    broken = "try: import torchvision\nexcept RuntimeError as e: print('nms' in str(e))"
    assert run(broken, tmp_path) == ["True"]
    assert run(DECLARED + "import torchvision", tmp_path) == ["True", "True"]


@needs_torch
def test_an_extension_that_loads_is_left_alone(tmp_path):
    """Any library that loads will do: a second nms beside torchvision's own would crash."""
    from PIL import _imagingmath

    fake_torchvision(tmp_path, _imagingmath.__file__)
    assert run(DECLARED, tmp_path) == ["False", "False"]


@needs_torch
def test_nothing_is_declared_after_torchvision_was_imported():
    code = "sys.modules['torchvision'] = sys\n" + DECLARED
    assert run(code) == ["False", "False"]


@pytest.mark.parametrize("absent", ["torch", "torchvision"])
def test_without_torch_or_torchvision_nothing_happens(absent):
    code = f"""
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == {absent!r} else found(name)
declare_missing_ops()
print("torch" in sys.modules)
"""
    assert run(code) == ["False"]


@needs_torch
@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None,
                    reason="torchvision is not installed")
def test_the_installed_torchvision_imports():
    code = """
declare_missing_ops()
import torchvision
net = torchvision.models.resnet18(num_classes=3)
print(sum(p.numel() for p in net.parameters()))
"""
    assert run(code) == ["11178051"]
