"""Level "init": are fresh weights drawn from the same distribution in both frameworks?"""
from __future__ import annotations

import numpy as np
from scipy.stats import ks_2samp, norm

from . import weights
from .report import Check, Report

# A pair of models makes some thousand comparisons; together they raise a false alarm in one of 10^5
# runs.
LEVEL = 1e-9
MOST = 50_000  # values per tensor that take part


def initial(jittor_model, torch_model, names: dict[str, str], report: Report) -> None:
    """Compare the weights that two fresh models have.

    Each tensor that PyTorch leaves constant must be equal; a single value counts as one if two digits write it, and is
    else not judged. Of each other one with 50 values or more, and of all tensors of one kind and type of layer
    together (see `pooled`), the largest distance of the two empirical distributions (Kolmogorov-Smirnov) must be one that equal distributions reach with a
    probability above 1e-9, and so must the ratio of the standard deviations.

    Args:
        names: name in the Jittor model -> name in the PyTorch model.
    """
    ours, theirs = weights.tensors(jittor_model), weights.tensors(torch_model)
    kinds: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for mine, name in names.items():
        a, b = ours[mine].ravel(), theirs[name].ravel()
        if b.size == 1 and b.dtype.kind == "f" and b[0] != b.dtype.type(f"{b[0]:.2g}"):
            continue  # drawn, and one value tells nothing; of draws three in a million look like a constant
        if not b.size or (b == b[0]).all():
            # Compared as numbers, for a counter has another dtype on each side.
            distance = 0.0 if np.array_equal(a, b) else np.inf
            note = "" if not distance else f"PyTorch starts with {b[0]:g} everywhere"
            report.checks.append(Check("structure", "init", name, distance, distance, 0.0, 0.0,
                                       "KS distance", note))
            continue
        path, _, last = name.rpartition(".")
        layer = type(torch_model.get_submodule(path)).__name__
        kinds.setdefault(f"all {last} of {layer}", []).append((a, b))
        if b.size >= 50:
            _compare(name, a, b, report)
    for kind, found in kinds.items():
        if sum(b.size for _, b in found) >= 50:
            _compare(kind, *pooled(found), report)


def pooled(found: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """All values of both sides, each tensor divided by the standard deviation of its values on both sides
    together. (By PyTorch's alone, a tensor of four values that happen to lie close together would outweigh
    all others: 18 standard errors between equal distributions.)"""
    scale = [max(float(np.concatenate(pair).std()), 1e-30) for pair in found]
    return tuple(np.concatenate([pair[side] / s for pair, s in zip(found, scale)]) for side in (0, 1))


def _compare(name: str, a: np.ndarray, b: np.ndarray, report: Report) -> None:
    # Evenly spread ones: the values of a tensor are independent of their place.
    a, b = (v[:: -(-v.size // MOST)].astype("float64") for v in (a, b))
    distance = float(ks_2samp(a, b, method="asymp").statistic)
    # Largest distance at this level for samples of these sizes: sqrt(-ln(level / 2) / 2 / size).
    size = a.size * b.size / (a.size + b.size)
    most = min(float(np.sqrt(-np.log(LEVEL / 2) / 2 / size)), 1.0)
    report.checks.append(Check("structure", "init", name, distance, distance, 0.0, most, "KS distance"))
    # Of small tensors, the spread tells more: the log of a sample's standard deviation has the
    # variance (kurtosis - 1) / (4 n), at most 1 / (2 n) for uniform and normal weights.
    spread = np.inf
    if a.std() > 0:
        spread = float(abs(np.log(a.std() / b.std())) / np.sqrt((1 / a.size + 1 / b.size) / 2))
    report.checks.append(Check("structure", "init", f"{name}, spread", spread, spread, 0.0,
                               float(norm.isf(LEVEL / 2)), "standard errors"))
