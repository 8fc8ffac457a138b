"""The yardstick: errors against a float64 truth, in units of float32 rounding, and their budget."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

U = 2.0 ** -24              # unit roundoff of float32
FLOAT64_BOUND = 1e-11       # a right port agrees to 1e-15, the smallest port bug shows at 1e-9
FLOAT64_CEILING = 1e-10     # for a net so steep that PyTorch's own float64 is off by 1e-12 and more
CEILING = 2.0 ** -10 / U    # no budget may exceed it, however noisy the reference


@dataclass(frozen=True)
class Error:
    """Distance of a tensor from its truth, relative to the truth's size (not per element).

    Attributes:
        e2: ||x - t||_2 / ||t||_2.
        einf: max|x - t| / max|t|.
    """
    e2: float
    einf: float

    @property
    def worst(self) -> float:
        return max(self.e2, self.einf)


def error(x: np.ndarray, truth: np.ndarray, other: np.ndarray | None = None) -> Error:
    """How far `x` lies from `truth` (float64), relative to the size of the truth, or to that of
    `other` if it is larger.

    Returns:
        Infinite errors if shape, or the pattern of NaN and infinity, differ.
    """
    x, truth = np.asarray(x), np.asarray(truth, "float64")
    if x.size == truth.size == 1 and x.ndim + truth.ndim == 1:
        x = x.reshape(truth.shape)  # Jittor has no 0-d tensors
    if x.shape != truth.shape:
        return Error(np.inf, np.inf)
    finite = np.isfinite(truth)
    if not np.array_equal(finite, np.isfinite(x)):
        return Error(np.inf, np.inf)
    if not finite.all():
        if not np.array_equal(x[~finite], truth[~finite], equal_nan=True):
            return Error(np.inf, np.inf)
        x, truth = x[finite], truth[finite]
    difference2, differenceinf = _size(x - truth)
    scale2, scaleinf = _size(truth)
    if other is not None:
        other2, otherinf = _size(np.asarray(other, "float64"))
        scale2, scaleinf = max(scale2, other2), max(scaleinf, otherinf)
    return Error(_ratio(difference2, scale2), _ratio(differenceinf, scaleinf))


def partner_of(name: str, t: np.ndarray) -> str | None:
    """Name of the tensor on whose scale `t` is judged where that is larger: for a bias the weight of its
    layer, and for the scale of a normalisation its shift; None for any other."""
    layer, _, last = name.rpartition(".")
    if last == "bias":
        return f"{layer}.weight"
    return f"{layer}.bias" if last == "weight" and t.ndim == 1 else None


def _size(t: np.ndarray) -> tuple[float, float]:
    """Root mean square and largest magnitude."""
    if not t.size:
        return 0.0, 0.0
    flat, largest = t.ravel(), float(max(t.max(), -t.min()))
    # Squares of such numbers would overflow or vanish.
    scale = largest if largest > 1e150 or 0 < largest < 1e-150 else 1.0
    if scale != 1:
        flat = flat / scale
    return scale * float(np.sqrt(flat @ flat / t.size)), largest


def _ratio(difference: float, scale: float) -> float:
    if difference == 0:
        return 0.0
    return float(difference / scale) if scale > 0 else float("inf")


def budget(floor: float) -> float:
    """Largest error allowed, in u, where PyTorch's own float32 errs by up to `floor` u.

    At least 64 u, at most the ceiling of 2^-10 relative, so that a noisy reference cannot open
    the gate.
    """
    return min(max(64.0, 8.0 * floor), CEILING)


def budget64(floor: float) -> float:
    """Largest error allowed in float64, in u, where PyTorch's own float64 moves by `floor` u when its
    input moves by one unit in the last place or its memory layout changes: 1e-11 relative, or 8 floors
    if that is more, but at most 1e-10."""
    return min(max(FLOAT64_BOUND / U, 8.0 * floor), FLOAT64_CEILING / U)


BUDGETS = {"float64": budget64, "float32": budget}


def one_ulp(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """`x` (float32 or float64) with each element moved to a neighbouring number of its dtype or
    left, at random; zero and what is not finite stay."""
    # The bits of neighbouring numbers are neighbouring whole numbers: ten times faster than nextafter.
    bits = x.view(f"int{8 * x.itemsize}").copy()
    bits += np.where((x == 0) | ~np.isfinite(x), np.int8(0), rng.integers(-1, 2, x.shape, "int8"))
    return bits.view(x.dtype)


def all_one_ulp(rng: np.random.Generator, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state whose float32 arrays are `one_ulp` away, in their order; the others stay."""
    return {name: one_ulp(rng, a) if a.dtype == "float32" else a for name, a in arrays.items()}
