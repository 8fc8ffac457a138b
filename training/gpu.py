"""What the record of a run says of its NVIDIA GPU."""
from __future__ import annotations

import os
import subprocess


def precision(device: str) -> str:
    """Of float32 on "cpu" or "cuda", in words: both frameworks let cuDNN round the factors of a convolution to
    ten bits (TF32) where the GPU can, unless the environment forbids it."""
    tf32 = device == "cuda" and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"
    return "float32, convolutions in TF32" if tf32 else "float32"


def name() -> str | None:
    """The first GPU's name. None if `nvidia-smi` does not tell."""
    return next(iter(_asked("--query-gpu=name")), None)


def memory() -> float | None:
    """What this process holds of the GPU by the driver's count, in MB: the framework's pool, cuDNN's workspace
    and the context. None if `nvidia-smi` does not tell."""
    try:
        held = dict(line.split(", ") for line in _asked("--query-compute-apps=pid,used_gpu_memory"))
        return float(held[str(os.getpid())]) * 2**20 / 1e6
    except (ValueError, KeyError):
        return None


def _asked(query: str) -> list[str]:
    """Lines that the driver's tool answers; none without it."""
    try:
        done = subprocess.run(["nvidia-smi", query, "--format=csv,noheader,nounits"], capture_output=True,
                              text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []
