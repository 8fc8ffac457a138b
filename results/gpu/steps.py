"""Where a training step on a GPU spends its time: 128 images of 32x32, as bench.py's.

    NVIDIA_TF32_OVERRIDE=0 python results/gpu/steps.py KIND NET ...   rewrites rows of results/gpu/steps.json

KIND is "torch" or "jittor". `step_ms` is the least of four times five steps, without a profiler. The kernels are those
that ran on the GPU, as PyTorch's profiler (CUPTI) sees them in either framework, with their calls and milliseconds a
step.
"""
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "results")]

from profiles import part_of  # noqa: E402
from training.bench_worker import Work  # noqa: E402
from training.files import write_json  # noqa: E402

FILE = Path(__file__).with_name("steps.json")
STEPS, SHOWN, WIDTH = 5, 25, 150
# Part of a step -> what the name of a kernel of its holds; the first that fits.
PARTS = {"BatchNorm": ("bn_",), "convolution": ("fprop", "dgrad", "wgrad", "gemm", "cutlass", "convolve", "fft2d",
                                                "winograd", "flip_filter", "cudnn::"), "other": ("",)}


def kernels(work: Work) -> list[tuple[str, float, float]]:
    """(name, calls a step, ms a step), the slowest first."""
    from torch.profiler import ProfilerActivity, profile
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work.train(STEPS)
    found = [(kernel.key, kernel.count / STEPS, kernel.self_device_time_total / 1e3 / STEPS)
             for kernel in profiler.key_averages() if kernel.self_device_time_total]
    return sorted(found, key=lambda row: -row[2])


def parts(found: list[tuple[str, float, float]]) -> dict[str, float]:
    """Milliseconds a step of each of PARTS."""
    sums = dict.fromkeys(PARTS, 0.0)
    for name, _, ms in found:
        sums[part_of(name.lower(), PARTS)] += ms
    return sums


def main() -> None:
    kind, *nets = sys.argv[1:]
    rows = json.loads(FILE.read_text()) if FILE.is_file() else []
    for net in nets:
        work = Work(kind, net, 32, 128)
        work.train(3)
        step = min(work.train(STEPS) / STEPS for _ in range(4))
        found, where = kernels(work), work.engine.environment()
        rows = [row for row in rows if (row["kind"], row["net"]) != (kind, net)]
        rows.append({"kind": kind, "net": net, "gpu": where["gpu"], "precision": where["precision"],
                     "step_ms": 1e3 * step, "launches": sum(row[1] for row in found), "parts_ms": parts(found),
                     "kernels": [(name[:WIDTH], *times) for name, *times in found[:SHOWN]]})
        print(f"{kind}, {net}: {1e3 * step:.1f} ms a step", flush=True)
        write_json(FILE, sorted(rows, key=lambda row: (row["net"], row["kind"])))


if __name__ == "__main__":
    main()
