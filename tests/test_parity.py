"""The proof: every net computes in Jittor what it computes in PyTorch."""
import importlib
import inspect

import numpy as np
import pytest
import torch

import jittor as jt
import jt_models
import torch_ref
from jt_models import layers
from parity import checks
from parity.branches import Branches, RecordTorch, ReplayTorch
from parity.truth import (CEILING, FLOAT64_BOUND, FLOAT64_CEILING, U, budget, budget64, error,
                          one_ulp, weight_of)
from zoo.catalog import NETS, input_size

# Image size and batch. Odd sizes, so that every stride meets a border; small ones, since float64
# runs in Jittor's plain loops. With few values per channel the last BatchNorms are so steep that
# PyTorch's own float64 gradients move by 3e-11 when the input moves by 1e-15 (densenet161, batch 4;
# 4e-13 with 8): hence eight images for the deepest nets without residual branches.
SIZE, BATCH = 33, 4
SIZES = {"se_resnet18_preact": 17, "densenet_bc_100_12": 17, "googlenet": 65, "googlenet_paper": 65,
         "bn_inception": 65, "se_bn_inception": 65,
         **dict.fromkeys(("inception_v2", "inception_v3", "inception_v4"), 107)}
BATCHES = {"googlenet_paper": 2, "mobilenet_mnist": 2, "densenet121_mnist": 8, "densenet121": 8,
           "densenet161": 8, "densenet169": 8, "densenet201": 8, "inception_v4": 8,
           **dict.fromkeys(("alexnet", "alexnet_paper", "alexnet_single"), 2)}

# `make test` takes every family and every kind of layer; `make test-all` takes every net with
# everything. With five steps of SGD:
STEPPED = ("cnn", "lenet", "resnet18", "densenet", "mobilenet_slim")
# Outputs, gradients and buffers:
WITHOUT_STEPS = ("cnn_pad2", "cnn_1x1", "lenet_bn", "alexnet_mnist", "vgg11_lrn_bn", "vgg16_1x1",
                 "vgg_mnist", "alexnet_paper", "googlenet", "googlenet_paper", "bn_inception",
                 "inception_v3", "inception_resnet_v1_facenet", "resnet50", "resnet18_lab",
                 "resnet18_mnist", "plain18", "resnet20_cifar", "plain20_cifar", "densenet_wide",
                 "densenet_fc128", "densenet121", "densenet_bc_100_12", "densenet121_mnist",
                 "se_resnet18", "se_resnet50", "se_bn_inception", "se_resnet18_lab",
                 "se_resnet18_preact", "mobilenet", "mobilenet_mnist")
FLOAT32 = ("cnn", "lenet_bn", "alexnet_mnist", "vgg_mnist", "googlenet", "resnet18", "densenet",
           "se_resnet18_lab", "mobilenet_slim")


def among(names):
    """Every net; those that are not among `names` are marked slow."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in NETS]


@pytest.fixture(autouse=True)
def give_memory_back():
    """Jittor keeps what it has allocated: five deep nets in one process held 11 GB."""
    yield
    jt.sync_all(True)
    jt.gc()


def pair(name, seed=0):
    """Both nets with non-degenerate weights, and a batch for them."""
    native = NETS[name]
    size = SIZES.get(name, input_size(name, min(native.size, SIZE)))
    # The ImageNet stem; VGG has none, and its ImageNet head is 120 million weights more.
    parameters = inspect.signature(getattr(importlib.import_module(
        f"torch_ref.{native.family}"), name)).parameters
    options = {"stem": "imagenet"} if "stem" in parameters and native.family != "vgg" else {}
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
    x = rng.standard_normal((BATCHES.get(name, BATCH), native.channels, size, size)).astype("float32")
    return port, reference, x, rng.integers(0, 10, len(x))


def failures(found):
    return [str(check) for check in found if not check.passed]


def report(capsys, name, found):
    with capsys.disabled():
        print(f"\n{name}: " + "; ".join(map(str, checks.worst(found).values())), end=" ")


@pytest.mark.parametrize("name", among(STEPPED + WITHOUT_STEPS))
def test_structure_in_float64(name, capsys):
    port, reference, x, y = pair(name)
    found = checks.structure(port, reference, x, y, steps=5 if name in STEPPED else 0)
    report(capsys, name, found)
    assert failures(found) == []
    judged = {check.tensor for check in found if check.level == "gradients"}
    assert judged == {"input", *(parameter for parameter, _ in reference.named_parameters())}
    assert {c.level for c in found} >= {"eval", "train", "gradients"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETS if name not in STEPPED])
def test_five_steps_in_float64(name, capsys):
    found = checks.structure(*pair(name))
    report(capsys, name, found)
    assert {c.level for c in found} >= {"momentum", "steps"}
    assert failures(found) == []


@pytest.mark.parametrize("name", among(FLOAT32))
def test_numerics_in_float32(name, capsys):
    found = checks.numerics(*pair(name))
    report(capsys, name, found)
    assert failures(found) == []


@pytest.mark.parametrize("name", among(("cnn", "mobilenet_slim")))
def test_numerics_in_jittors_own_loops(name, capsys):
    """Without oneDNN, as with use_mkl=0: the tuner no longer replaces convolutions and products."""
    with jt.flag_scope(enable_tuner=0):
        found = checks.numerics(*pair(name), steps=1)
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


@pytest.mark.parametrize("relu6", [torch.nn.functional.relu6, torch.nn.ReLU6(), torch.nn.ReLU6(True)])
def test_relu6_is_recorded_and_replayed_with_both_kinks(relu6):
    x = torch.tensor([[-1.0, 2.0, 5.999, 6.001, 7.0]], dtype=torch.float64)
    branches = Branches()
    with RecordTorch(branches):
        relu6(x.clone())
    assert branches.taken[0].tolist() == [[0, 1, 1, 2, 2]]
    branches.taken[0][0, 2:4] = 2, 1  # as a run in which both fell to the other side of 6
    leaf = x.clone().requires_grad_()
    with ReplayTorch(branches):
        out = relu6(leaf.clone())
    out.sum().backward()
    assert out.tolist() == [[0, 2, 6, 6.001, 6]]
    assert leaf.grad.tolist() == [[0, 1, 0, 1, 0]]
    assert branches.flips == 2
    assert branches.margin == pytest.approx(0.001 / 7 / U)
    assert torch.nn.functional.hardtanh(x).tolist() == [[-1, 1, 1, 1, 1]]
    with ReplayTorch(Branches()):  # another clipping is no branch point: Jittor records none
        torch.nn.functional.hardtanh(x)


def test_an_output_too_many_is_caught():
    """A port that returns its auxiliary heads in evaluation mode too."""
    port, reference, x, y = pair("cnn")

    class Talkative(type(port)):
        def execute(self, v):
            logits = super().execute(v)
            return logits if self.training else (logits, logits)

    port.__class__ = Talkative
    for judge in (checks.structure, checks.numerics):
        assert {c.tensor for c in judge(port, reference, x, y, steps=0) if not c.passed} == {
            "auxiliary output 1", "auxiliary output 1, mean/std 10"}


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
    bound = FLOAT64_BOUND / U
    assert [budget64(f * bound) for f in (0, 0.1, 0.5, 1e9)] == [
        bound, bound, 4 * bound, FLOAT64_CEILING / U]


def test_a_bias_is_judged_on_the_scale_of_its_weight_where_that_is_larger():
    assert weight_of("a.0.bias") == "a.0.weight"
    assert weight_of("a.weight") is None and weight_of("input") is None
    truth = np.full(4, 1e-6)
    assert error(truth * 2, truth, np.ones(4)).worst == pytest.approx(1e-6)
    assert error(truth * 2, truth, np.full(4, 1e-9)).worst == pytest.approx(1)


def test_one_ulp_moves_by_at_most_one():
    x = np.random.default_rng(0).standard_normal(1000).astype("float32")
    moved = one_ulp(np.random.default_rng(1), x)
    assert moved.dtype == np.float32 and (moved != x).any() and (moved == x).any()
    assert (np.abs(moved - x) <= np.spacing(np.abs(x))).all()
