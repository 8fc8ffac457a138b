"""The proof: every net computes in Jittor what it computes in PyTorch."""
import numpy as np
import pytest
import torch

import jittor as jt
import jt_models
import torch_ref
from jt_models import layers
from parity import checks
from parity.branches import Branches, ReplayTorch
from parity.truth import CEILING, U, budget, error, one_ulp, vanishing
from zoo.catalog import NETS

# Odd, so that every stride meets a border, and small: float64 runs in Jittor's plain loops.
SIZE = 33
SIZES = {"se_resnet18_preact": 17}
# The five deepest nets are the classes of resnet50 and densenet121 with more blocks. They take as long
# as all others together, so `make test` leaves them to `make test-all`.
DEEPEST = ("resnet101", "resnet152", "densenet161", "densenet169", "densenet201")
EVERY_NET = [pytest.param(name, marks=pytest.mark.slow) if name in DEEPEST else name for name in NETS]
# With four images the last BatchNorms of these have four values per channel: so steep that PyTorch's
# own float64 gradients move by 3e-11 when the input moves by 1e-15 (densenet161; 4e-13 with eight).
BATCH = {"densenet121": 8, "densenet161": 8, "densenet169": 8, "densenet201": 8}


def pair(name, seed=0):
    """Both nets with non-degenerate weights, and a batch for them."""
    native = NETS[name]
    size = SIZES.get(name, min(native.size, SIZE))
    options = {"stem": "imagenet"} if native.size == 224 else {}
    torch.manual_seed(seed)
    reference = torch_ref.create(name, 10, native.channels, size, **options)
    checks.randomise(reference, seed)
    # Residual branches at full size make 50 blocks as steep (resnet152: 4e-11); at a fifth, as in a
    # trained net, 1e-13.
    with torch.no_grad():
        for module in reference.modules():
            if hasattr(module, "bn3"):
                module.bn3.weight.mul_(0.2)
    port = jt_models.create(name, 10, native.channels, size, **options)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((BATCH.get(name, 4), native.channels, size, size)).astype("float32")
    return port, reference, x, rng.integers(0, 10, len(x))


def failures(found):
    return [str(check) for check in found if not check.passed]


def report(capsys, name, found):
    with capsys.disabled():
        print(f"\n{name}: " + "; ".join(map(str, checks.worst(found).values())), end=" ")


@pytest.mark.parametrize("name", EVERY_NET)
def test_structure_in_float64(name, capsys):
    found = checks.structure(*pair(name))
    report(capsys, name, found)
    assert {c.level for c in found} >= {"eval", "train", "gradients", "momentum", "steps"}
    assert failures(found) == []


@pytest.mark.parametrize("name", EVERY_NET)
def test_numerics_in_float32(name, capsys):
    found = checks.numerics(*pair(name))
    report(capsys, name, found)
    assert failures(found) == []


class Faulty:
    """Port bugs, each put into a right port of resnet18 (or cnn)."""

    @staticmethod
    def eps(net):
        net.layer2[0].bn1.eps = 1.001e-5

    @staticmethod
    def momentum(net):
        net.layer3[1].bn2.momentum = 0.1001

    @staticmethod
    def stride_in_the_first_convolution_of_the_shortcut(net):
        net.layer2[0].downsample[0].stride = (2, 2)
        net.layer2[0].downsample[0].padding = (0, 0)
        net.layer2[0].conv1.stride, net.layer2[0].conv2.stride = (1, 1), (2, 2)

    @staticmethod
    def swapped_blocks(net):
        # In the order of execution: weights come by name, so that exchanged attributes are no fault.
        class Reversed(layers.Sequential):
            def execute(self, x):
                return self[0](self[1](x))
        net.layer1.__class__ = Reversed

    @staticmethod
    def missing_relu(net):
        net.layer4[1].relu = layers.Identity()

    @staticmethod
    def evaluation_mode_in_one_layer(net):
        class Stale(layers.BatchNorm2d):
            training = False
        net.layer1[0].bn1.__class__ = Stale


@pytest.mark.parametrize("fault", [n for n in vars(Faulty) if not n.startswith("_")])
def test_the_judge_catches_a_port_bug(fault):
    port, reference, x, y = pair("resnet18")
    getattr(Faulty, fault)(port)
    assert failures(checks.structure(port, reference, x, y, steps=1))


def test_the_judge_catches_a_wrong_concat_order_and_pool(monkeypatch):
    port, reference, x, y = pair("densenet")
    monkeypatch.setattr(type(port.denseblock1.denseblock[0]), "execute",
                        lambda self, v: jt.concat((self.layer(v), v), 1))
    assert failures(checks.structure(port, reference, x, y, steps=1))
    monkeypatch.undo()
    port.avg1 = layers.MaxPool2d(2, 2)
    assert failures(checks.structure(port, reference, x, y, steps=1))


def test_a_wrong_update_is_caught_also_beside_parameters_that_are_zero(monkeypatch):
    """A zero parameter once set the gentle rate to 0, at which any optimizer is right."""
    from jt_models import optim
    port, reference, x, y = pair("resnet18_lab")
    with torch.no_grad():
        reference.layer1[3].bias.zero_()
    right = optim.SGD.update
    monkeypatch.setattr(optim.SGD, "update",
                        lambda self, p, g, buffer, lr, **options: right(
                            self, p, g, buffer, lr=lr * (1 + 1e-6), **options))
    found = checks.structure(port, reference, x, y, steps=1)
    assert any(f.startswith("steps") for f in failures(found))
    assert not any(f.startswith("momentum") for f in failures(found))


def test_a_port_with_another_number_of_branches_is_refused():
    branches = Branches(taken=[np.ones((2, 3), bool)] * 2)
    with pytest.raises(ValueError, match="more ReLUs and max-pools than the reference"):
        with ReplayTorch(branches):
            torch.relu(torch.ones(2, 3))
    with pytest.raises(ValueError, match="the reference has more ReLUs"):
        with ReplayTorch(Branches()):
            torch.relu(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"shape \[3, 2\] in the reference meets .* \[2, 3\]"):
        with ReplayTorch(branches):
            torch.relu(torch.ones(3, 2))


def test_a_replay_takes_the_recorded_branch_and_measures_it():
    x = torch.tensor([[1.0, -1e-6, 4.0]], dtype=torch.float64, requires_grad=True)
    branches = Branches(taken=[np.array([[True, True, False]])])
    with ReplayTorch(branches):
        out = torch.relu(x)
    out.sum().backward()
    assert x.grad.tolist() == [[1, 1, 0]] and out.tolist() == [[1, -1e-6, 0]]
    assert branches.flips == 2
    assert branches.margin == pytest.approx(1 / U)  # the third unit: 4 of at most 4


def test_a_wrong_optimizer_is_caught_at_the_second_step(monkeypatch):
    from jt_models import optim
    right = optim.SGD.update

    def dampened_first_step(self, p, g, buffer, **options):
        right(self, p, g * 0.9 if self.steps == 1 else g, buffer, **options)

    monkeypatch.setattr(optim.SGD, "update", dampened_first_step)
    found = checks.numerics(*pair("cnn"), steps=2)
    assert any(f.startswith("momentum") for f in failures(found))
    assert any(f.startswith("steps") for f in failures(found))


def test_a_check_names_tensor_errors_and_budget():
    assert str(checks.Check("eval", "output", 8.8, 6.6, 64)) == (
        "eval output: Jittor 8.8 u, torch 6.6 u, budget 64 u")
    assert not checks.Check("eval", "output", 64.1, 6.6, 64).passed


def test_error_is_relative_to_the_size_of_the_truth():
    truth = np.array([3.0, -4.0])
    found = error(np.array([3.0, -4.0 - 4e-3]), truth)
    assert found.e2 == pytest.approx(4e-3 / 5)
    assert found.einf == pytest.approx(1e-3)
    assert error(truth, truth).worst == 0
    assert error(truth + 1, np.zeros(2)).worst == np.inf
    assert error(np.ones((2, 1)), truth).worst == np.inf
    assert error(np.array([np.nan, 1]), truth).worst == np.inf
    assert error(np.array([np.inf, 1]), np.array([-np.inf, 1])).worst == np.inf
    assert error(np.array([np.inf, 1]), np.array([np.inf, 1])).worst == 0


def test_budget_follows_the_floor_up_to_the_ceiling():
    assert [budget(f) for f in (0, 8, 10, 1e9)] == [64, 64, 80, CEILING]


def test_vanishing_finds_the_bias_before_batch_norm():
    big, tiny = np.ones(4), np.full(4, 1e-15)
    gradients = {"a.weight": big, "a.bias": tiny, "b.weight": big, "b.bias": big, "input": tiny}
    assert vanishing(gradients) == {"a.bias"}


def test_one_ulp_moves_by_at_most_one():
    x = np.random.default_rng(0).standard_normal(1000).astype("float32")
    moved = one_ulp(np.random.default_rng(1), x)
    assert moved.dtype == np.float32 and (moved != x).any() and (moved == x).any()
    assert (np.abs(moved - x) <= np.spacing(np.abs(x))).all()
