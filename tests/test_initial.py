"""Level "init": equal distributions pass and others do not, also where tensors are small."""
import numpy as np
import pytest

from parity.initial import _compare, pooled
from parity.report import Report


def worst(draws) -> float:
    """The largest share of its budget that a comparison of pooled tensors used, over these draws."""
    report = Report("draws")
    for found in draws:
        _compare("all", *pooled(found), report)
    return max(check.error / check.budget for check in report.checks)


def tensors(rng, sizes, ratio):
    """Pairs of tensors from the uniform distribution, the first ones wider by this ratio."""
    return [(rng.uniform(-ratio, ratio, n) * s, rng.uniform(-1, 1, n) * s)
            for n, s in zip(sizes, np.geomspace(0.01, 1, len(sizes)))]


# Sizes of the biases of the gates of an SE-ResNet-18.
GATES = [4, 64, 4, 64, 8, 128, 8, 128, 16, 256, 16, 256]


@pytest.mark.parametrize("sizes", [GATES, [4] * 16, [2] * 30, [30] * 30])
def test_equal_distributions_pass(sizes):
    rng = np.random.default_rng(0)
    assert worst(tensors(rng, sizes, 1.0) for _ in range(1000)) < 0.8


@pytest.mark.parametrize("ratio", [1 / 1.5, 1.5])
def test_a_wider_distribution_does_not(ratio):
    rng = np.random.default_rng(0)
    assert min(worst([tensors(rng, GATES, ratio)]) for _ in range(100)) > 1
