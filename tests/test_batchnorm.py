"""BatchNorm, alone and in one operation with the ReLU behind it."""
import contextlib
import gc

import numpy as np
import pytest
import torch

import jittor as jt
from jt_models import batchnorm, layers
from parity.float64 import float64
from parity.truth import U

from test_layers import assert_close, image, run_jittor, run_torch


@pytest.mark.parametrize("shape", [(4, 5, 6, 6), (1, 5, 41, 53)])
@pytest.mark.parametrize("ratio", [0, 10, 100])
def test_batch_norm_trains_and_tracks_as_torch(ratio, shape):
    """Also with a mean that is large beside the deviation, where E[x^2]-E[x]^2 cancels."""
    x = image(*shape) + np.float32(ratio)
    ours = layers.BatchNorm2d(5, eps=1e-3, momentum=0.3)
    theirs = torch.nn.BatchNorm2d(5, eps=1e-3, momentum=0.3).double()
    w, b = image(5, seed=1), image(5, seed=2)
    ours.weight.update(jt.array(w))
    ours.bias.update(jt.array(b))
    theirs.load_state_dict({**theirs.state_dict(), "weight": torch.tensor(w), "bias": torch.tensor(b)})
    # One float32 step of the input is `ratio` times coarser beside its deviation.
    units = 64 * max(1, ratio)
    for _ in range(3):
        assert_close(run_jittor(ours, x), run_torch(theirs, x), units)
    assert_close([ours.running_mean.numpy(), ours.running_var.numpy()],
                 [theirs.running_mean.numpy(), theirs.running_var.numpy()], units)
    assert ours.num_batches_tracked == int(theirs.num_batches_tracked) == 3
    layers.set_training(ours, False)
    assert_close(run_jittor(ours, x), run_torch(theirs.eval(), x), units)


class WithoutKernel(layers.BatchNorm2d):
    def _has_kernel(self, x):
        return False


@pytest.mark.parametrize("dtype, bound", [("float32", 64 * U), ("float64", 1e-14)])
def test_the_kernel_of_batch_norm_computes_what_its_formula_says(dtype, bound):
    """Against the layer's own formula in Jittor's operators, which trains on a GPU.

    Measured: 2.7 u in float32, 3.4e-16 in float64."""
    x, g = (image(3, 5, 7, 11, seed=seed).astype(dtype) for seed in (1, 2))
    found = []
    for kind in (layers.BatchNorm2d, WithoutKernel):
        with float64() if dtype == "float64" else contextlib.nullcontext():
            norm, v = kind(5), jt.array(x)
            getattr(norm, dtype)()
            y = norm(v)
            gradients = jt.grad((y * jt.array(g)).sum(), [v, norm.weight, norm.bias])
            found.append([t.numpy() for t in (y, *gradients, norm.running_mean, norm.running_var)])
    for ours, formula in zip(*found):
        assert ours.dtype == formula.dtype == dtype
        assert np.abs(ours - formula).max() <= bound * np.abs(formula).max()


def test_stock_batch_norm_is_jittors():
    x = jt.array(image(4, 5, 2, 2) * 2 + 3)
    ours, theirs = layers.BatchNorm2d(5), layers.stock(layers.BatchNorm2d(5))
    for norm in (ours, theirs):
        layers.set_training(norm)(x).sync()
    biased, unbiased = theirs.running_var.numpy() - 0.9, ours.running_var.numpy() - 0.9
    # A tenth of a variance is stored beside 0.9, where float32 is 6e-8 apart. Measured: 1.4e-6.
    np.testing.assert_allclose(unbiased, biased * 16 / 15, rtol=1e-5)


def test_batch_norm_of_vectors():
    x = image(8, 5) + np.float32(3)
    ours, theirs = layers.BatchNorm1d(5, eps=1e-3), torch.nn.BatchNorm1d(5, eps=1e-3).double()
    assert_close(run_jittor(ours, x), run_torch(theirs, x), 64)
    assert_close([ours.running_mean.numpy(), ours.running_var.numpy()],
                 [theirs.running_mean.numpy(), theirs.running_var.numpy()], 64)
    layers.set_training(ours, False)
    assert_close(run_jittor(ours, x), run_torch(theirs.eval(), x), 64)
    with pytest.raises(ValueError, match=r"BatchNorm1d takes \[N, 5\], not \[8, 4\]"):
        ours(jt.ones((8, 4)))


def test_batch_norm_refuses_one_value_per_channel_and_wrong_channels():
    norm = layers.BatchNorm2d(3)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(jt.ones((1, 3, 1, 1)))
    with pytest.raises(ValueError, match=r"\[N, 3, H, W\], not \[2, 4, 5, 5\]"):
        norm(jt.ones((2, 4, 5, 5)))
    with pytest.raises(ValueError, match=r"\[N, 4, H, W\], not \[2, 3, 5, 5\]"):
        layers.Conv2d(4, 8, 3)(jt.ones((2, 3, 5, 5)))


SHAPES = [(4, 5, 6, 7), (33, 6, 2, 2), (3, 70, 1, 3), (2, 3, 40, 41), (1, 2, 16, 16)]  # of several blocks and of parts of one


def norm_of(channels: int):
    """(ours, PyTorch's in float64), with the same drawn weights."""
    ours, theirs = layers.BatchNorm2d(channels), torch.nn.BatchNorm2d(channels).double()
    state = {"weight": image(channels, seed=1), "bias": image(channels, seed=2) + np.float32(1)}
    for name, value in state.items():
        getattr(ours, name).update(jt.array(value))
    theirs.load_state_dict({**theirs.state_dict(), **{name: torch.tensor(v) for name, v in state.items()}})
    return ours, theirs


@pytest.mark.parametrize("name", ["ReLU", "ReLU6"])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_and_the_relu_behind_it_as_torchs(shape, name):
    """Measured: 2.5 u."""
    x = image(*shape) * np.float32(3) + np.float32(1)
    ours, theirs = norm_of(shape[1])
    joined, alone = [], batchnorm.BatchNorm._code

    def code(self, *args):
        joined.append(self.rectifier)
        return alone(self, *args)

    relu, expected = getattr(layers, name)(inplace=True), getattr(torch.nn, name)()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batchnorm.BatchNorm, "_code", code)
        found = run_jittor(lambda v: relu(ours(v)), x)
    assert joined[1:] == [getattr(batchnorm, name.upper())] * 2  # forward and backward, of what was computed
    assert_close(found, run_torch(lambda v: expected(theirs(v)), x))
    assert_close([ours.running_mean.numpy(), ours.running_var.numpy()],
                 [theirs.running_mean.numpy(), theirs.running_var.numpy()])
    assert ours.num_batches_tracked == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_operation_computes_what_two_do(shape, dtype):
    """The outputs and the running statistics to the last bit, and the gradients of parameters up to rounding, also of what
    uses the BatchNorm's output otherwise and in float64."""
    found = []
    for inplace in (False, True):
        with float64() if dtype == "float64" else contextlib.nullcontext():
            norm, relu, x = norm_of(shape[1])[0], layers.ReLU(inplace), jt.array(image(*shape).astype(dtype))
            getattr(norm, dtype)()
            probe = jt.array(image(*shape, seed=3).astype(dtype))
            y = norm(x)
            z, again = relu(y), relu(y)
            loss = (z * probe).sum() + (y * again).sum()
            gradients = jt.grad(loss, [x, norm.weight, norm.bias])
            found.append([v.numpy() for v in (z, again, y, norm.running_mean, norm.running_var, *gradients)])
    for two, one in zip(*found):
        assert two.dtype == one.dtype == dtype
    for two, one in zip(*(values[:5] for values in found)):
        assert np.array_equal(two, one)
    for two, one in zip(*(values[5:] for values in found)):
        assert np.abs(two - one).max() <= (64 * U if dtype == "float32" else 1e-13) * np.abs(two).max()


def changed_input(norm, x, y):
    x += 1


def changed_output(norm, x, y):
    y += 1


def changed_weight(norm, x, y):
    norm.weight.update(norm.weight * 2)


def changed_statistics(norm, x, y):
    norm(x * 2)


def detached(norm, x, y):
    y.assign(y.detach())


def without_gradient(norm, x, y):
    y.stop_grad()


@pytest.mark.parametrize("change", [changed_input, changed_output, changed_weight, changed_statistics, detached,
                                    without_gradient])
def test_a_relu_is_not_joined_to_what_has_changed(change):
    """Each would be lost in an operation that begins with the BatchNorm's input."""
    found = []
    for inplace in (False, True):
        norm, x = norm_of(3)[0], jt.array(image(4, 3, 5, 5))
        y = norm(x)
        change(norm, x, y)
        z = layers.relu(y, inplace)
        gradient = jt.grad((z * z).sum(), norm.bias)
        found.append([v.numpy() for v in (z, norm.running_mean, norm.running_var, gradient)])
    for a, b in zip(*found):
        assert np.array_equal(a, b)


def test_the_declared_loss_of_a_gradient():
    """In place, as in PyTorch, what a BatchNorm returned is given up: it has no gradient."""
    x, gradients = image(4, 3, 5, 5), {}
    for inplace in (False, True):
        y = norm_of(3)[0](jt.array(x))
        gradients[inplace] = jt.grad((layers.relu(y, inplace) * 2).sum(), y).numpy()
    assert np.array_equal(gradients[False], 2 * (y.numpy() > 0)) and not gradients[True].any()


@pytest.mark.parametrize("relu", [layers.relu, layers.relu6])
def test_a_diverged_net_shows(relu):
    x = image(4, 3, 5, 5)
    x[0, 1, 2, 2] = np.nan
    z = relu(layers.BatchNorm2d(3)(jt.array(x)), True).numpy()
    assert np.isnan(z[:, 1]).all() and np.isfinite(z[:, [0, 2]]).all()


def test_another_momentum_compiles_nothing():
    norm, x = layers.BatchNorm2d(3), jt.array(image(4, 3, 5, 5))
    sources = set()
    for norm.momentum in (0.1, 0.25):
        with jt.profile_scope() as report:
            norm(x).sync()
        sources |= {row[1] for row in report[1:] if "variance" in row[0]}
    assert len(sources) == 1
    mean = x.numpy().mean((0, 2, 3), dtype="float64")
    np.testing.assert_allclose(norm.running_mean.numpy(), mean * (0.1 * 0.75 + 0.25), 1e-4, 1e-6)


def test_no_pixels():
    assert layers.BatchNorm2d(3)(jt.zeros((2, 3, 0, 4))).numpy().shape == (2, 3, 0, 4)


def test_parameters_of_another_dtype():
    with float64():
        y = layers.BatchNorm2d(3)(jt.array(image(4, 3, 5, 5).astype("float64"))).numpy()
    assert y.dtype == "float64"


def test_nothing_is_kept_of_a_graph_that_is_gone():
    norm, before = norm_of(3)[0], len(batchnorm._made)
    z = layers.relu(norm(jt.array(image(4, 3, 5, 5))), True)
    with jt.no_grad():
        norm(jt.array(image(4, 3, 5, 5)))
    z.sync()
    del z
    gc.collect()
    assert len(batchnorm._made) == before
