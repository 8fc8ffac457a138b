"""Makes `import torchvision` work when its compiled extension does not load.

torchvision's extension fits exactly one build of torch. Beside another build (for example a
CPU-only torch under the default torchvision wheel) torchvision skips it on purpose
(torchvision/extension.py), but then registers Python functions for two of its operators
(`register_fake` in torchvision/_meta_registrations.py), and `import torchvision` ends in
"operator torchvision::nms does not exist". With the two schemas declared the import succeeds:
models, datasets and transforms work, and only the compiled operators themselves do not.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys

_MISSING = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# torch forgets a declaration as soon as its Library object is collected.
_library = None


def declare_missing_ops() -> None:
    """Declare torchvision's `nms` and `qnms` if, and only if, its extension cannot load.

    Call it before the first `import torchvision`; later it does nothing. It does nothing
    either where torch or torchvision is not installed, where the extension loads, or on
    Windows, where only torchvision itself knows how to find its libraries. Idempotent.
    """
    global _library
    if _library is not None or "torchvision" in sys.modules or os.name == "nt":
        return
    torchvision = importlib.util.find_spec("torchvision")  # finds the package, runs nothing
    if torchvision is None or importlib.util.find_spec("torch") is None:
        return

    import torch

    if any(_loads(torch, folder) for folder in torchvision.submodule_search_locations or ()):
        return
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _MISSING:
        if not hasattr(torch.ops.torchvision, name):
            _library.define(name + _SIGNATURE)


def _loads(torch, folder: str) -> bool:
    """Whether torchvision's extension in `folder` loads (what torchvision/extension.py does).

    torchvision loads the same file again afterwards, which is harmless: the dynamic loader
    knows it, and its operators register once.
    """
    loader = (
        importlib.machinery.ExtensionFileLoader,
        importlib.machinery.EXTENSION_SUFFIXES,
    )
    extension = importlib.machinery.FileFinder(folder, loader).find_spec("_C")
    if extension is None:
        return False
    try:
        torch.ops.load_library(extension.origin)
    except (ImportError, OSError):
        return False
    return True
