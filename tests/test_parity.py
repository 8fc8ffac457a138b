"""The proof: every net computes in Jittor what it computes in PyTorch."""
import numpy as np
import pytest
import torch

import jittor as jt
from parity import check, models
from parity.branches import Branches, RecordTorch, ReplayTorch
from parity.report import Check
from parity.truth import (CEILING, FLOAT64_BOUND, FLOAT64_CEILING, U, budget, budget64, error,
                          one_ulp, partner_of)
from zoo.catalog import NETS

# `make test` takes a net of each of these kinds; `make test-all` takes every net with everything.
# With twenty steps of SGD:
STEPPED = ("cnn", "lenet", "resnet20_cifar", "densenet", "mobilenet_slim")
# Outputs, gradients and buffers:
WITHOUT_STEPS = ("lenet_bn", "alexnet_mnist", "vgg11_lrn_bn", "googlenet", "bn_inception",
                 "inception_resnet_v1_facenet", "resnet18", "densenet_fc128", "se_resnet18_lab")
FLOAT32 = ("cnn", "lenet_bn", "resnet20_cifar", "densenet", "mobilenet_slim")


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
    """Port, reference and inputs."""
    source, x = models.zoo(name, seed)
    return (*source.build(seed), x)


def structure(port, reference, x, steps=1, levels=("eval", "train", "gradients", "buffers",
                                                   "momentum", "steps")):
    return check(port, reference, x, levels=levels, verdicts="structure", steps=steps, locate=False)


def failures(report):
    return [str(check) for check in report.failures]


def show(capsys, name, report):
    with capsys.disabled():
        print(f"\n{name}: " + "; ".join(map(str, report.worst().values())), end=" ")


@pytest.mark.parametrize("name", among(STEPPED + WITHOUT_STEPS))
def test_structure_in_float64(name, capsys):
    port, reference, x = pair(name)
    levels = "all" if name in STEPPED else ("weights", "init", "eval", "train", "gradients", "buffers")
    report = structure(port, reference, x, steps=20, levels=levels)
    show(capsys, name, report)
    assert failures(report) == [] and report.skipped == {}
    judged = {check.tensor for check in report.checks if check.level == "gradients"}
    assert judged == {"input", *(parameter for parameter, _ in reference.named_parameters())}
    assert {c.level for c in report.checks} >= {"weights", "init", "eval", "train", "gradients"}
    if name in STEPPED:
        assert {c.level for c in report.checks} >= {"layers", "momentum", "steps", "optimizer",
                                                    "schedule", "data"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETS if name not in STEPPED])
def test_all_levels_in_float64(name, capsys):
    report = structure(*pair(name), steps=20, levels="all")
    show(capsys, name, report)
    assert {c.level for c in report.checks} >= {"layers", "momentum", "steps"}
    assert failures(report) == [] and report.skipped == {}


@pytest.mark.parametrize("name", among(FLOAT32))
def test_numerics_in_float32(name, capsys):
    report = check(*pair(name), verdicts="numerics", locate=False)
    show(capsys, name, report)
    assert failures(report) == [] and report.skipped == {}
    assert {c.level for c in report.checks} >= {"layers", "gradients", "flips", "momentum", "steps"}


@pytest.mark.parametrize("name", among(("cnn", "mobilenet_slim")))
def test_numerics_in_jittors_own_loops(name, capsys):
    """Without oneDNN, as with use_mkl=0: the tuner no longer replaces convolutions and products."""
    with jt.flag_scope(enable_tuner=0):
        report = check(*pair(name), verdicts="numerics", steps=1, locate=False)
    show(capsys, name, report)
    assert failures(report) == [] and report.skipped == {}


def test_a_wrong_update_is_caught_also_beside_parameters_that_are_zero(monkeypatch):
    """A zero parameter once set the gentle rate to 0, at which any optimizer is right."""
    from jt_models import optim
    port, reference, x = pair("resnet18_lab")
    with torch.no_grad():
        reference.layer1[3].bias.zero_()
        reference.layer1[3].bias[0] = 1e-30  # else it is drawn anew
    right = optim.SGD.update_all
    monkeypatch.setattr(optim.SGD, "update_all",
                        lambda self, rows, lr, **options: right(self, rows, lr=lr * (1 + 1e-6), **options))
    found = failures(structure(port, reference, x))
    assert any(f.startswith("steps") for f in found)
    assert not any(f.startswith("momentum") for f in found)


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
    port, reference, x = pair("cnn")

    class Talkative(type(port)):
        def execute(self, v):
            logits = super().execute(v)
            return logits if self.training else (logits, logits)

    port.__class__ = Talkative
    report = check(port, reference, x, levels=("eval", "train"), locate=False)
    assert {(c.verdict, c.tensor) for c in report.failures} == {
        (verdict, "auxiliary output 1" + suffix) for verdict in ("structure", "numerics")
        for suffix in ("", ", mean/std 10", ", times 100")}


def test_a_wrong_optimizer_is_caught_in_float32(monkeypatch):
    from jt_models import optim
    right = optim.SGD.update_all

    def dampened_first_step(self, rows, **options):
        right(self, [(p, g * 0.9 if self.steps == 1 else g, buffer) for p, g, buffer in rows], **options)

    monkeypatch.setattr(optim.SGD, "update_all", dampened_first_step)
    found = failures(check(*pair("cnn"), verdicts="numerics", levels=("momentum", "steps")))
    assert any(f.startswith("momentum") for f in found)
    assert any(f.startswith("steps") for f in found)


def test_a_check_names_tensor_errors_and_budget():
    found = Check("numerics", "eval", "output", 8.8, 5.2, 6.6, 64)
    assert str(found) == "eval output: Jittor 8.8 u, torch 6.6 u, budget 64 u"
    assert found.passed and not Check("numerics", "eval", "output", 5.2, 64.1, 6.6, 64).passed


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


def test_errors_of_huge_and_of_tiny_numbers():
    for size in (1e-300, 1e-20, 1.0, 1e160, 1e300):
        x = np.array([1.0, 2.0, 2.0]) * size
        found = error(x * np.array([1, 1, 1.5]), x)
        assert (found.e2, found.einf) == pytest.approx((1 / 3, 0.5))


def test_budget_follows_the_floor_up_to_the_ceiling():
    assert [budget(f) for f in (0, 8, 10, 1e9)] == [64, 64, 80, CEILING]
    bound = FLOAT64_BOUND / U
    assert [budget64(f * bound) for f in (0, 0.1, 0.5, 1e9)] == [
        bound, bound, 4 * bound, FLOAT64_CEILING / U]


def test_a_bias_is_judged_on_the_scale_of_its_weight_where_that_is_larger():
    matrix, vector = np.zeros((4, 4)), np.zeros(4)
    assert partner_of("a.0.bias", vector) == "a.0.weight" and partner_of("a.weight", vector) == "a.bias"
    assert partner_of("a.weight", matrix) is None and partner_of("input", vector) is None
    truth = np.full(4, 1e-6)
    assert error(truth * 2, truth, np.ones(4)).worst == pytest.approx(1e-6)
    assert error(truth * 2, truth, np.full(4, 1e-9)).worst == pytest.approx(1)


def test_one_ulp_moves_by_at_most_one():
    x = np.random.default_rng(0).standard_normal(1000).astype("float32")
    moved = one_ulp(np.random.default_rng(1), x)
    assert moved.dtype == np.float32 and (moved != x).any() and (moved == x).any()
    assert (np.abs(moved - x) <= np.spacing(np.abs(x))).all()
    assert (moved > x).any() and (moved < x).any()
    stays = np.array([0.0, -0.0, np.inf, -np.inf, np.nan] * 20)
    np.testing.assert_array_equal(one_ulp(np.random.default_rng(1), stays), stays)
    assert one_ulp(np.random.default_rng(1), np.array(1.5)).shape == ()
