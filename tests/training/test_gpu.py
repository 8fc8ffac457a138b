"""What a record and a log say of a GPU, with a driver that says what the test wants."""
import os
from types import SimpleNamespace

import pynvml
import pytest

from training import gpu


@pytest.fixture
def driver(monkeypatch):
    """Of two GPUs, whose handles are their numbers."""
    gpu._first.cache_clear()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, answer in {
            "nvmlInit": lambda: None, "nvmlDeviceGetHandleByIndex": int, "nvmlDeviceGetName": "GPU {}".format,
            "nvmlDeviceGetHandleByUUID": {"GPU-1": 1}.__getitem__,
            "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 1000 * handle + 1500}.items():
        monkeypatch.setattr(pynvml, name, answer)
    yield monkeypatch
    gpu._first.cache_clear()


@pytest.mark.parametrize("device, override, said", [
    ("cpu", None, "float32"), ("cuda", "0", "float32"), ("cuda", None, "float32, convolutions in TF32")])
def test_the_precision_tells_whether_tf32_is_forbidden(device, override, said, monkeypatch):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    if override is not None:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    assert gpu.precision(device) == said


@pytest.mark.parametrize("visible, name, joules", [
    (None, "GPU 0", 1.5), ("1,0", "GPU 1", 2.5), ("GPU-1", "GPU 1", 2.5)])
def test_the_gpu_is_the_first_that_cuda_may_use(visible, name, joules, driver):
    if visible:
        driver.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu.name() == name and gpu.energy() == joules


@pytest.mark.parametrize("shown, held", [
    ({1: 7, "own": 2**20}, 1.048576), ({1: 7}, None), ({"own": None}, None), ({}, None)])
def test_the_memory_is_that_of_this_process(shown, held, driver):
    processes = [SimpleNamespace(pid=os.getpid() if pid == "own" else pid, usedGpuMemory=used)
                 for pid, used in shown.items()]
    driver.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda handle: processes)
    assert gpu.memory() == held


@pytest.mark.parametrize("question", ["nvmlInit", "nvmlDeviceGetTotalEnergyConsumption"])
def test_what_a_driver_does_not_tell_is_none(question, driver):
    def refuse(*_):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    driver.setattr(pynvml, question, refuse)
    assert gpu.energy() is None
    assert gpu.name() == (None if question == "nvmlInit" else "GPU 0")


def test_without_a_driver_nothing_is_told(monkeypatch):
    """NVML's library is part of the driver."""
    def missing(name):
        raise OSError(name)

    gpu._first.cache_clear()
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", missing)
    assert gpu.memory() is None and gpu.name() is None and gpu.energy() is None
