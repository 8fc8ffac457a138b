"""lenet_bn without branches: which of two equal values a max-pool takes, rounding decides, and where sums are
added in another order it decides otherwise.

    python smooth.py train_jittor.py OPTIONS
"""
import importlib
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace


def smooth(zoo: str) -> tuple:
    """(the lenet module of "jt_models" or "torch_ref", what its `nn` has to be)."""
    lenet = importlib.import_module(f"{zoo}.lenet")
    nn = lenet.nn
    return lenet, SimpleNamespace(**{**vars(nn), "MaxPool2d": nn.AvgPool2d, "ReLU": nn.Tanh})


if __name__ == "__main__":
    del sys.argv[0]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    lenet, lenet.nn = smooth({"train_jittor.py": "jt_models", "train_torch.py": "torch_ref"}[Path(sys.argv[0]).name])
    runpy.run_path(sys.argv[0], run_name="__main__")
