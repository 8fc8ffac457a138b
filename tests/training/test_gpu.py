"""What a record says of its GPU, with a driver's tool that says what the test wants."""
import os

import pytest

from training import gpu


@pytest.mark.parametrize("device, override, said", [
    ("cpu", None, "float32"), ("cuda", "0", "float32"), ("cuda", None, "float32, convolutions in TF32")])
def test_the_precision_tells_whether_tf32_is_forbidden(device, override, said, monkeypatch):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    if override is not None:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    assert gpu.precision(device) == said


@pytest.mark.parametrize("shown, held", [
    ("1, 7\n{own}, 1000\n", 1048.576), ("1, 7\n", None), ("{own}, [N/A]\n", None), ("", None),
    ("No devices were found\n", None)])
def test_the_memory_is_that_of_this_process(shown, held, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{shown.format(own=os.getpid())}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert gpu.memory() == held


def test_without_a_driver_nothing_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.memory() is None and gpu.name() is None
