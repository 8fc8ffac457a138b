"""What follows a convolution in evaluation on a CPU, as part of it."""
import contextlib

import numpy as np
import pytest

import jittor as jt
from jt_models import epilogue, layers
from jt_models.epilogue import After
from parity.float64 import float64
from parity.truth import U

from test_layers import image

# By each of our operations, if it has enough pixels and channels: name in its source, layer, images, height and width.
CONVOLUTIONS = [("winograd", lambda bias: layers.Conv2d(32, 33, 3, padding=1, bias=bias), (5, 32, 9, 8)),
                ("dnnl_sgemm", lambda bias: layers.Conv2d(5, 6, 1, bias=bias), (3, 5, 9, 8)),
                ("dnnl_sgemm", lambda bias: layers.Conv2d(5, 6, 1, stride=2, bias=bias), (7, 5, 9, 11)),
                ("KH", lambda bias: layers.Conv2d(5, 5, 3, padding=1, stride=2, groups=5, bias=bias), (3, 5, 9, 8))]


def block(make, bias):
    """A convolution and a BatchNorm with drawn weights and statistics, in evaluation."""
    conv = make(bias)
    norm = layers.BatchNorm2d(conv.out_channels)
    for i, v in enumerate((norm.weight, norm.bias, norm.running_mean)):
        v.update(jt.array(image(conv.out_channels, seed=i + 5)))
    norm.running_var.update(jt.array(1 + image(conv.out_channels, seed=9) ** 2))
    return conv, layers.set_training(norm, False)


def joined(conv, norm, relu, x):
    return relu(norm(conv(x)))


def apart(conv, norm, relu, x):
    """The same by operations that know nothing of each other."""
    y = conv(x) * 1
    y = norm(y) + 0
    return relu(y)


@pytest.mark.parametrize("relu", [layers.ReLU(inplace=True), layers.ReLU6()], ids=["ReLU", "ReLU6"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name, make, shape", CONVOLUTIONS)
def test_batch_norm_and_relu_are_part_of_a_convolution(name, make, shape, bias, relu):
    conv, norm = block(make, bias)
    x = jt.array(image(*shape) * np.float32(4))
    with jt.no_grad():
        a, b = (way(conv, norm, relu, x).numpy() for way in (joined, apart))
        with jt.profile_scope() as report:
            joined(conv, norm, relu, x).sync()
    assert 0 < np.abs(b).max() and np.abs(a - b).max() <= 32 * U * np.abs(b).max()
    whole = [row[0] for row in report[1:] if "DIM=4" in row[0] or name in row[0]]
    assert len(whole) == 1 and name in whole[0]  # nothing else is as large as an image


def test_a_depthwise_one_in_float64():
    with float64():
        conv, norm = block(CONVOLUTIONS[-1][1], True)
        for module in (conv, norm):
            module.float64()
        x = jt.array(image(3, 5, 9, 8).astype("float64"))
        with jt.no_grad():
            a, b = (way(conv, norm, layers.ReLU(), x).numpy() for way in (joined, apart))
    assert a.dtype == "float64" and np.abs(a - b).max() <= 1e-14 * np.abs(b).max()


def test_each_result_can_be_used():
    """The convolution's own, the BatchNorm's, and those of two that follow each other."""
    conv, norm = block(CONVOLUTIONS[0][1], True)
    relu, x = layers.ReLU(), jt.array(image(5, 32, 9, 8))
    with jt.no_grad():
        y = conv(x)
        z = norm(y)
        again = norm(z)
        found = [v.numpy() for v in (y, z, again, relu(again))]
        y = conv(x) * 1
        z = norm(y) * 1
        again = norm(z) * 1
        expected = [v.numpy() for v in (y, z, again, relu(again))]
    for a, b in zip(found, expected):
        assert np.abs(a - b).max() <= 32 * U * np.abs(b).max()


def other_weight(conv, x, y):
    conv.weight.update(conv.weight * 2)


def other_bias(conv, x, y):
    conv.bias.update(conv.bias + 9)


def other_input(conv, x, y):
    x += 1


def other_output(conv, x, y):
    y += 1


def other_convolution(conv, x, y):
    conv(x * 2).sync()


@pytest.mark.parametrize("change", [other_weight, other_bias, other_input, other_output, other_convolution])
def test_what_has_changed_is_not_joined(change):
    conv, norm = block(CONVOLUTIONS[0][1], True)
    x = jt.array(image(5, 32, 9, 8))
    with jt.no_grad():
        y = conv(x)
        same = (y * 1).numpy()
        change(conv, x, y)
        found = norm(y).numpy()
        expected = norm(jt.array(same + (change is other_output))).numpy()
    assert np.abs(found - expected).max() <= 32 * U * np.abs(expected).max()


@pytest.mark.parametrize("mode", [contextlib.nullcontext, jt.no_grad])
def test_only_without_gradients(mode):
    conv, norm = block(CONVOLUTIONS[0][1], False)
    x = jt.array(image(5, 32, 9, 8))
    with mode():
        taken = epilogue.normalised(conv(x), norm.weight, norm.bias) is not None
    assert taken == (mode is jt.no_grad)


@pytest.mark.parametrize("value, most, expected", [
    (1e30, np.inf, np.inf), (1e30, 6.0, 6.0), (-1e30, np.inf, 0.0), (np.nan, np.inf, np.nan), (np.nan, 6.0, np.nan),
    (0.0, 6.0, 0.0)])
@pytest.mark.parametrize("name, make, shape", CONVOLUTIONS)
def test_infinity_and_nan_stay(name, make, shape, value, most, expected):
    """Of 1e30 * 1e30, and what a diverged net gives."""
    conv = make(False)
    conv.weight.update(jt.array(np.full(conv.weight.shape, 1e30, "float32")))
    relu = layers.relu if most == np.inf else layers.relu6
    with jt.no_grad():
        y = relu(conv(jt.array(np.full(shape, value, "float32")))).numpy()
    np.testing.assert_array_equal(y[:, :, 1:-1, 1:-1], np.float32(expected))


def test_other_dtypes_are_not_joined():
    conv, norm = block(CONVOLUTIONS[1][1], False)
    x = jt.array(image(3, 5, 9, 8))
    with jt.no_grad(), float64():
        norm.float64()
        found, y = norm(conv(x)).numpy(), conv(x).numpy()
        assert found.dtype == "float64"
        np.testing.assert_allclose(found, norm(jt.array(y.astype("float64"))).numpy(), 1e-6)


def test_nothing_is_kept_beyond_the_next_convolution():
    conv, x = CONVOLUTIONS[0][1](True), jt.array(image(5, 32, 9, 8))
    with jt.no_grad():
        conv(x)
    assert epilogue._last.inputs[0].id == x.id
    conv(x)
    assert epilogue._last is None
