"""Right ports that are built in another way than their reference are not accused, and wrong ones are."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn as tnn

import jittor as jt
from jittor import nn as jnn
from parity import check
from training.errors import UserError

X = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype("float32")
FAST = {"steps": 2, "locate": False}


class TorchTied(tnn.Module):
    """One matrix under two names, a layer under two names, a number, whole numbers, a constant."""

    def __init__(self):
        super().__init__()
        self.stem = tnn.Linear(8, 8)
        self.again = self.stem
        self.out = tnn.Linear(8, 8)
        self.out.weight = self.stem.weight
        self.scale = tnn.Parameter(torch.tensor(0.7))
        self.register_buffer("order", torch.tensor([2, 0, 1, 3, 7, 6, 5, 4]))
        self.register_buffer("mean", torch.tensor([0.5]))

    def forward(self, x):
        return self.out(self.again(torch.tanh(self.stem(x - self.mean)))[..., self.order]) * self.scale


class JittorTied(jt.nn.Module):
    def __init__(self):
        self.stem = jnn.Linear(8, 8)
        self.again = self.stem
        self.out = jnn.Linear(8, 8)
        self.out.weight = self.stem.weight
        self.scale = jt.array([0.7])
        self.order = jt.array([2, 0, 1, 3, 7, 6, 5, 4]).stop_grad()

    def execute(self, x):
        return self.out(self.again(jt.tanh(self.stem(x - 0.5)))[..., self.order]) * self.scale


def test_tied_weights_single_numbers_whole_numbers_and_constants():
    report = check(JittorTied(), TorchTied(), X, **FAST)
    assert report.passed, str(report)
    assert list(report.skipped) == ["weights, mean"]
    names = {c.tensor for c in report.checks if c.level == "gradients"}
    assert names == {"input", "stem.weight", "stem.bias", "out.bias", "scale"}


def test_a_port_that_forgets_a_tie_is_caught():
    port = JittorTied()
    port.out.weight = jnn.Linear(8, 8).weight
    report = check(port, TorchTied(), X, **FAST)
    assert {"gradients"} <= {c.level for c in report.failures}


def test_a_tie_too_many_is_caught():
    reference = TorchTied()
    reference.out.weight = tnn.Parameter(torch.randn(8, 8))
    report = check(JittorTied(), reference, X, **FAST)
    failure, = report.failures
    assert "stem.weight and out.weight are one tensor in this net" in failure.note


class TorchTransformer(tnn.Module):
    """What convolutional nets of today have: GELU, LayerNorm, a layer scale, bilinear resizing."""

    def __init__(self):
        super().__init__()
        self.norm = tnn.LayerNorm(8)
        self.mix = tnn.Conv2d(3, 3, 3, padding=1)
        self.gamma = tnn.Parameter(torch.full((3, 1, 1), 1e-6))

    def forward(self, x):
        x = x + self.gamma * F.gelu(self.mix(self.norm(x)))
        x = F.interpolate(x, size=(13, 13), mode="bilinear", align_corners=True)
        return {"whole": x, "half": F.silu(x)[..., ::2]}


class JittorTransformer(jt.nn.Module):
    def __init__(self):
        self.norm = jnn.LayerNorm(8)
        self.mix = jnn.Conv2d(3, 3, 3, padding=1)
        self.gamma = jt.full((3, 1, 1), 1e-6)

    def execute(self, x):
        x = x + self.gamma * jnn.gelu(self.mix(self.norm(x)))
        x = jnn.interpolate(x, size=(13, 13), mode="bilinear", align_corners=True)
        return {"half": jnn.silu(x)[..., ::2], "whole": x}


def test_activations_norms_and_resizing_of_jittor_are_right_in_float64():
    report = check(JittorTransformer(), TorchTransformer(), X, verdicts="structure", **FAST)
    assert report.passed and not report.skipped, str(report)


def test_a_parameter_that_starts_at_a_constant_hides_no_bug():
    port = JittorTransformer()
    norm, usual = port.norm, port.norm.execute
    norm.execute = lambda x: (usual(x) - norm.bias) / norm.weight + norm.bias  # ignores its scale
    report = check(port, TorchTransformer(), X, levels="eval", verdicts="structure", **FAST)
    assert {c.level for c in report.failures} == {"eval"}


class TorchPlain(tnn.Module):
    def __init__(self):
        super().__init__()
        self.conv = tnn.Conv2d(3, 4, 3)
        self.act = tnn.ReLU()
        self.drop = tnn.Identity()
        self.fc = tnn.Linear(4, 5)

    def forward(self, x):
        return self.fc(self.drop(self.act(self.conv(x)).mean((2, 3))))


class ConvReLU(jnn.Conv2d):
    def execute(self, x):
        return jnn.relu(super().execute(x))


class JittorFused(jt.nn.Module):
    def __init__(self):
        self.conv = ConvReLU(3, 4, 3)
        self.act = jnn.Identity()
        self.drop = jnn.Identity()
        self.fc = jnn.Linear(4, 5)

    def execute(self, x):
        return self.fc(self.drop(self.act(self.conv(x)).mean([2, 3])))


def test_a_fused_activation_is_no_failure():
    report = check(JittorFused(), TorchPlain(), X, **FAST)
    assert report.passed, str(report)
    assert set(report.skipped) == {f"{verdict} layers, {name}" for verdict in ("structure", "numerics")
                                   for name in ("conv", "act")}


def test_an_activation_that_is_nowhere_is_a_failure():
    port = JittorFused()
    port.conv = jnn.Conv2d(3, 4, 3)
    report = check(port, TorchPlain(), X, **FAST)
    assert {"eval", "layers"} <= {c.level for c in report.failures}
    assert "act" in {c.tensor for c in report.failures if c.level == "layers"}


class DropPath(tnn.Module):
    def forward(self, x):
        return x * (torch.rand(len(x), 1) > 0.5) if self.training else x


def test_other_randomness_than_dropout_is_said_and_nothing_is_accused():
    reference = TorchPlain()
    reference.drop = DropPath()
    report = check(JittorFused(), reference, X, **FAST)
    assert report.passed, str(report)
    assert "random in training mode" in report.skipped["gradients"]
    reference.drop.forward = lambda x: x * torch.rand(len(x), 1)
    with pytest.raises(UserError, match="another output each time it runs in evaluation mode"):
        check(JittorFused(), reference, X, **FAST)


def test_the_port_comes_back_in_the_mode_in_which_it_came():
    for mode in (True, False):
        port = JittorFused()
        port.train() if mode else port.eval()
        check(port, TorchPlain(), X, levels="eval", **FAST)
        assert port.is_training() == port.conv.is_training() == mode
        assert port.conv.weight.is_stop_grad() != mode


def test_so_it_does_after_bad_arguments():
    port = jnn.Linear(8, 8)
    port.eval()
    with pytest.raises(UserError, match="does not run on these inputs"):
        check(port, tnn.Linear(8, 8), X[..., :7])
    with pytest.raises(UserError, match="did you mean"):
        check(port, tnn.Linear(8, 8), X, key_map={"wieght": "weight"})
    assert not port.is_training()


class TorchKeywords(tnn.Module):
    def __init__(self):
        super().__init__()
        self.mix = tnn.Bilinear(8, 8, 4)
        self.out = tnn.Linear(4, 4)

    def forward(self, x):
        return self.out(input=self.mix(input2=torch.tanh(x), input1=x))


class JittorMix(jt.nn.Module):
    def __init__(self, swapped):
        self.weight, self.bias, self.swapped = jt.randn(4, 8, 8), jt.randn(4), swapped

    def execute(self, input1, input2):
        if self.swapped:
            input1, input2 = input2, input1
        left = (input1.unsqueeze(-2).unsqueeze(-1) * self.weight).sum(-2)
        return (left * input2.unsqueeze(-2)).sum(-1) + self.bias


class JittorKeywords(jt.nn.Module):
    def __init__(self, swapped):
        self.mix = JittorMix(swapped)
        self.out = jnn.Linear(4, 4)

    def execute(self, x):
        return self.out(self.mix(x, jt.tanh(x)))


@pytest.mark.parametrize("swapped", [False, True])
def test_layers_called_by_keyword_are_judged(swapped):
    report = check(JittorKeywords(swapped), TorchKeywords(), X[:, 0], steps=2)
    assert report.passed != swapped
    layers = {c.tensor: c.passed for c in report.checks if c.level == "layers"}
    assert layers["mix"] != swapped and layers["out"]
    assert [p.module for p in report.places if p.verdict == "structure"] == ["mix"] * swapped


def test_labels_beyond_the_classes_are_one_sentence():
    with pytest.raises(UserError, match="loss do not run backward .* Target 7 is out of bounds"):
        check(JittorFused(), TorchPlain(), X, labels=[0, 1, 2, 7], **FAST)


def test_modules_in_a_python_list_are_named():
    port = JittorFused()
    port.blocks = [jnn.Linear(4, 4)]
    reference = TorchPlain()
    reference.blocks = tnn.ModuleList([tnn.Linear(4, 4)])
    failure, = check(port, reference, X, **FAST).failures
    assert "blocks of the jittor model is a Python list" in failure.note


def test_a_mask_of_booleans_is_an_input():
    class Torch(TorchPlain):
        def forward(self, x, mask):
            return super().forward(torch.where(mask, x, torch.zeros_like(x)))

    class Jittor(JittorFused):
        def execute(self, x, mask):
            return super().execute(jt.where(mask, x, jt.zeros_like(x)))

    report = check(Jittor(), Torch(), (X, X > 0), levels=("eval", "gradients"), **FAST)
    assert report.passed, str(report)


class TorchFunction(tnn.Module):
    def forward(self, x):
        return F.relu(x * 2 - 1).flatten(1)


class JittorFunction(jt.nn.Module):
    def execute(self, x):
        return jnn.relu(x * 2 - 1).flatten(1)


def test_models_without_parameters():
    report = check(JittorFunction(), TorchFunction(), X, **FAST)
    assert report.passed and "gradients" in {c.level for c in report.checks}, str(report)


def test_a_reference_without_gradients_is_judged_forward(monkeypatch):
    monkeypatch.setattr(TorchFunction, "forward", torch.no_grad()(TorchFunction.forward))
    report = check(JittorFunction(), TorchFunction(), X, levels=["eval", "train"], **FAST)
    assert report.passed and {c.level for c in report.checks} >= {"eval", "train"}, str(report)
    with pytest.raises(UserError, match="do not run backward"):
        check(JittorFunction(), TorchFunction(), X, **FAST)


class TorchWords(tnn.Module):
    """Logits and features, of another width, in a dict; whole numbers as an input."""

    def __init__(self):
        super().__init__()
        self.table = tnn.Embedding(20, 7)
        self.blocks = tnn.ModuleList([tnn.Linear(7, 7), tnn.Linear(7, 7)])
        self.head = tnn.Linear(7, 3)

    def forward(self, words, x):
        x = self.table(words).sum(1) + x
        for block in self.blocks:
            x = torch.tanh(block(x)) + x
        return {"features": x, "logits": self.head(x)}


class JittorWords(jt.nn.Module):
    backwards = False

    def __init__(self):
        self.table = jnn.Embedding(20, 7)
        self.blocks = jnn.ModuleList([jnn.Linear(7, 7), jnn.Linear(7, 7)])
        self.head = jnn.Linear(7, 3)

    def execute(self, words, x):
        x = self.table(words).sum(1) + x
        for block in list(self.blocks)[::-1] if self.backwards else self.blocks:
            x = jt.tanh(block(x)) + x
        return {"features": x, "logits": self.head(x)}


@pytest.mark.parametrize("backwards", [False, True])
def test_outputs_of_several_widths(backwards):
    words = np.random.default_rng(1).integers(0, 20, (6, 5))
    port = JittorWords()
    port.backwards = backwards
    report = check(port, TorchWords(), (words, X.reshape(-1)[:42].reshape(6, 7)), **FAST)
    assert report.passed != backwards, str(report)
    assert "gradients" in {c.level for c in report.checks}
