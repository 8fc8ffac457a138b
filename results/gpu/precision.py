"""In which precision does each framework multiply on this GPU?

    NVIDIA_TF32_OVERRIDE=0 python results/gpu/precision.py      rewrites this entry of results/gpu/precision.json

The relative error, in units of float32's rounding (2^-24), of a convolution, of its gradients and of a matrix
product, by dtype of the operands; or why it does not run. TF32, whose factors have ten bits, is off by some thousand
units, float16 too, and bfloat16 by some ten thousand. "jittor" is Jittor's own convolution, "jt_models" ours, which
takes float32 only.
"""
import json
import os
import re
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import jt_models  # noqa: E402,F401
import jittor as jt  # noqa: E402
import torch  # noqa: E402
from jt_models.convolution import Convolution  # noqa: E402
from parity.truth import U  # noqa: E402
from training.files import write_json  # noqa: E402
from training.run import environment  # noqa: E402

FILE = Path(__file__).with_name("precision.json")
RNG = np.random.default_rng(0)
IMAGES, KERNEL, WEIGHT = (RNG.standard_normal(shape, "float32") for shape in
                          ((16, 64, 32, 32), (64, 64, 3, 3), (16, 64, 30, 30)))
A, B = RNG.standard_normal((2, 512, 512), "float32")
TENSORS = ("convolution", "gradient of its images", "gradient of its kernel", "product")
# dtype, Jittor's flag use_tensorcore
SETTINGS = (("float32", 0), ("float32", 1), ("float16", 0), ("bfloat16", 0))


def in_torch(count, device, dtype):
    x, w, g, a, b = (torch.from_numpy(v).to(device, getattr(torch, dtype)).requires_grad_()
                     for v in (IMAGES[:count], KERNEL, WEIGHT[:count], A, B))
    y = torch.nn.functional.conv2d(x, w)
    y.backward(g.detach())
    return [v.detach().double().cpu().numpy() for v in (y, x.grad, w.grad, a @ b)]


def in_jittor(count, dtype, tensorcore, convolve=jt.nn.conv2d):
    x, w, g, a, b = (jt.array(v).cast(dtype) for v in (IMAGES[:count], KERNEL, WEIGHT[:count], A, B))
    y = convolve(x, w)
    with jt.flag_scope(use_tensorcore=tensorcore):
        return [v.float32().numpy() for v in (y, *jt.grad((y * g).sum(), [x, w]), jt.matmul(a, b))]


def errors(values, truths) -> dict:
    return {name: float(np.linalg.norm(value - truth) / np.linalg.norm(truth) / U)
            for name, value, truth in zip(TENSORS, values, truths)}


def main() -> None:
    forbidden = os.environ.get("NVIDIA_TF32_OVERRIDE") == "0"
    entry = {"unit": "2^-24", "gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda,
             "cudnn": torch.backends.cudnn.version(), **environment(("jittor", "torch", "numpy")), "rows": []}
    for index, (dtype, tensorcore) in enumerate(SETTINGS):
        count = len(IMAGES) - index  # Jittor remembers an algorithm for a shape, whatever the dtype
        truths = in_torch(count, "cpu", "float64")
        row = {"dtype": dtype, "use_tensorcore": tensorcore,
               "torch": errors(in_torch(count, "cuda", dtype), truths)}
        try:
            with jt.flag_scope(use_cuda=1):
                row["jittor"] = errors(in_jittor(count, dtype, tensorcore), truths)
                if dtype == "float32":
                    row["jt_models"] = errors(in_jittor(count, dtype, tensorcore, Convolution((1, 1), (0, 0), (1, 1))),
                                              truths)
        except Exception as error:  # whatever Jittor may raise
            reason = re.search(r"CUDNN_STATUS_\w+", str(error))
            row["failure"] = reason[0] if reason else f"{type(error).__name__}: {error}"[-300:]
        print(row, flush=True)
        entry["rows"].append(row)
    entries = json.loads(FILE.read_text()) if FILE.is_file() else {}
    write_json(FILE, {**entries, f"TF32 {'forbidden' if forbidden else 'allowed'}": entry})


if __name__ == "__main__":
    main()
