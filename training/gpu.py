"""What the driver says of an NVIDIA GPU, for the record and the log of a run."""
from __future__ import annotations

import functools
import os
from typing import Callable, TypeVar

import pynvml

T = TypeVar("T")


def precision(device: str) -> str:
    """Of float32 on "cpu" or "cuda", in words: both frameworks let cuDNN round the factors of a convolution to
    ten bits (TF32) where the GPU can, unless the environment forbids it."""
    tf32 = device == "cuda" and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"
    return "float32, convolutions in TF32" if tf32 else "float32"


def name() -> str | None:
    """The GPU's name. None if the driver does not tell."""
    return _asked(pynvml.nvmlDeviceGetName)


def memory() -> float | None:
    """What this process holds of the GPU by the driver's count, in MB: the framework's pool, cuDNN's workspace
    and the context. None if the driver does not tell."""
    for process in _asked(pynvml.nvmlDeviceGetComputeRunningProcesses) or ():
        if process.pid == os.getpid() and process.usedGpuMemory is not None:
            return process.usedGpuMemory / 1e6
    return None


def energy() -> float | None:
    """What the GPU has used since its driver was loaded, in joules, whoever used it. None if the driver does not
    tell (GPUs before Volta)."""
    millijoules = _asked(pynvml.nvmlDeviceGetTotalEnergyConsumption)
    return None if millijoules is None else millijoules / 1e3


def _asked(question: Callable[..., T]) -> T | None:
    """The driver's answer for the first GPU that CUDA may use; None without one."""
    try:
        return question(_first())
    except pynvml.NVMLError:
        return None


@functools.cache
def _first():
    pynvml.nvmlInit()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    if chosen.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(chosen))
    return pynvml.nvmlDeviceGetHandleByUUID(chosen)
