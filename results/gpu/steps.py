"""Where a training step on a GPU spends its time: 128 images of 32x32, as bench.py's.

    NVIDIA_TF32_OVERRIDE=0 python results/gpu/steps.py KIND NET ...   rewrites rows of results/gpu/steps.json

KIND is "torch", "jittor", or "jittor-conv2d", which is ours with Jittor's own convolution. `step_ms` is the least of
three times five steps, without a profiler. The operations are those of the framework's own profiler, with their
milliseconds a step; Jittor's waits for each, so that their sum may exceed the step.
"""
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from training.bench_worker import Work  # noqa: E402
from training.files import write_json  # noqa: E402

FILE = Path(__file__).with_name("steps.json")
STEPS, SHOWN, WIDTH = 5, 20, 300
# Part of a step -> what the name of Jittor's operation holds, which is the source of a compiled one.
PARTS = {"convolution": ("convolve(", "cudnn_conv"), "BatchNorm": ("cudnnBatchNormalization",),
         "concatenation": ("cudaMemcpy2DAsync",), "SGD": ("nesterov",), "other": ("",)}


def own_convolution() -> None:
    """From here on the nets convolve with Jittor's operation."""
    import jittor as jt
    from jt_models import layers
    layers.Convolution = lambda *options: lambda x, weight: jt.nn.conv2d(
        x, weight, None, *options, groups=x.shape[1] // weight.shape[1])


def jittor_operations(work: Work) -> list[tuple[str, float, float]]:
    """(name, calls a step, ms a step), the slowest first; what Jittor has made part of another one has no time."""
    import jittor as jt
    with jt.profile_scope() as report:
        work.train(STEPS)
    return [(row[0], float(row[2]) / STEPS, float(row[3]) / 1e6 / STEPS) for row in report[1:] if float(row[3])]


def torch_operations(work: Work) -> list[tuple[str, float, float]]:
    """The same of PyTorch's CUDA kernels."""
    from torch.profiler import ProfilerActivity, profile
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work.train(STEPS)
    found = [(kernel.key, kernel.count / STEPS, kernel.self_device_time_total / 1e3 / STEPS)
             for kernel in profiler.key_averages()]
    return sorted(found, key=lambda row: -row[2])


def main() -> None:
    kind, *nets = sys.argv[1:]
    framework = kind.partition("-")[0]
    if kind == "jittor-conv2d":
        own_convolution()
    rows = json.loads(FILE.read_text()) if FILE.is_file() else []
    for net in nets:
        work = Work(framework, net, 32, 128)
        work.train(3)
        step = min(work.train(STEPS) / STEPS for _ in range(3))
        operations = (jittor_operations if framework == "jittor" else torch_operations)(work)
        where = work.engine.environment()
        rows = [row for row in rows if (row["kind"], row["net"]) != (kind, net)]
        parts = dict.fromkeys(PARTS, 0.0)
        for name, _, ms in operations:
            parts[next(part for part, words in PARTS.items() if any(word in name for word in words))] += ms
        rows.append({"kind": kind, "net": net, "gpu": where["gpu"], "precision": where["precision"],
                     "step_ms": 1e3 * step, "operations_ms": sum(row[2] for row in operations),
                     "parts_ms": parts if framework == "jittor" else {},
                     "operations": [(name[:WIDTH], *times) for name, *times in operations[:SHOWN]]})
        print(f"{kind}, {net}: {1e3 * step:.1f} ms a step", flush=True)
        write_json(FILE, sorted(rows, key=lambda row: (row["net"], row["kind"])))


if __name__ == "__main__":
    main()
