"""Level "init": equal distributions pass and others do not, also where tensors are small."""
import numpy as np
import pytest
import torch

import jittor as jt
from jt_models import layers
from parity.initial import _compare, initial, pooled
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


@pytest.mark.parametrize("theirs, ours, right", [
    (0.1033711, -0.2718, True),  # drawn: the bias of a layer with one output
    (0.25, 0.25, True), (0.25, 0.3, False), (0.0, 0.1033711, False), (1e-6, 1e-5, False)])
def test_a_single_value(theirs, ours, right):
    """It is a constant, if two digits write it, or tells nothing."""
    reference, port = torch.nn.Linear(3, 1), layers.Linear(3, 1)
    torch.nn.init.constant_(reference.bias, theirs)
    port.bias.assign(jt.array([ours]))
    report = Report("one value")
    initial(port, reference, {"bias": "bias"}, report)
    assert all(check.passed for check in report.checks) == right
