"""3x3 convolutions by minimal filtering, on a CPU."""
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st

import jittor as jt
from jt_models import layers
from jt_models.winograd import Winograd
from parity.truth import U, error

F = torch.nn.functional


def ours(function, *arrays, g):
    """Output, and gradients of its sum weighted by g."""
    inputs = [jt.array(v) for v in arrays]
    y = function(*inputs)
    return [v.numpy() for v in (y, *jt.grad((y * jt.array(g)).sum(), inputs))]


def truth(x, weight, padding, g):
    inputs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (x, weight)]
    y = F.conv2d(*inputs, padding=padding)
    y.backward(torch.tensor(g, dtype=torch.float64))
    return [v.numpy() for v in (y.detach(), *(v.grad for v in inputs))]


def drawn(draw, images, fan_in, fan_out, h, w, padding):
    """x, weight and the gradient of the output, each by `draw(shape)` in float32."""
    shapes = (images, fan_in, h, w), (fan_out, fan_in, 3, 3), (images, fan_out, h + 2 * padding - 2, w + 2 * padding - 2)
    return [draw(shape).astype("float32") for shape in shapes]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(images=st.integers(1, 5), fan_in=st.integers(1, 40), fan_out=st.integers(1, 40), h=st.integers(1, 12),
       w=st.integers(1, 12), padding=st.integers(0, 2))
@example(images=40, fan_in=16, fan_out=17, h=5, w=8, padding=1)  # several blocks of tiles
@example(images=2, fan_in=3, fan_out=2, h=4, w=220, padding=1)  # a row of tiles that is longer than a block
def test_whole_numbers_are_exact(images, fan_in, fan_out, h, w, padding):
    """Whole numbers, their halves and quarters have no rounding: what differs is wrong."""
    h, w = max(h, 3 - 2 * padding), max(w, 3 - 2 * padding)
    rng = np.random.default_rng(0)
    x, weight, g = drawn(lambda shape: rng.integers(-4, 5, shape), images, fan_in, fan_out, h, w, padding)
    for a, b in zip(ours(Winograd(padding), x, weight, g=g), truth(x, weight, padding, g)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(32, 64, 64, 16, 16), (8, 256, 128, 4, 4)])
def test_rounding(shape):
    """Measured: 7.4 u, and 23 u by oneDNN's direct convolution (the first shape's weight: 8 u and 39 u)."""
    x, weight, g = drawn(np.random.default_rng(0).standard_normal, *shape, padding=1)
    for a, b in zip(ours(Winograd(1), x, weight, g=g), truth(x, weight, 1, g)):
        assert error(a, b).worst <= 32 * U


def test_a_large_pixel_reaches_its_own_windows_only():
    """To the bit, though a tile computes four windows together."""
    x, weight, _ = drawn(np.random.default_rng(0).standard_normal, 1, 16, 16, 9, 8, padding=1)
    for row, column in ((3, 4), (4, 4), (3, 5), (4, 5)):  # one of each kind of place in a tile
        large = x.copy()
        large[:, :, row, column] = 1e30
        own = np.zeros((9, 8), bool)
        own[row - 1:row + 2, column - 1:column + 2] = True
        a, b = (Winograd(1)(jt.array(v), jt.array(weight)).numpy() for v in (x, large))
        assert (np.abs(b[..., own]) > 1e20).all()
        np.testing.assert_array_equal(a[..., ~own], b[..., ~own])


@pytest.mark.parametrize("options, by_winograd", [({}, True), ({"padding": 0}, True), ({"stride": 2}, False),
                                                  ({"dilation": 2}, False), ({"groups": 2}, False)])
def test_which_convolutions_go_this_way(options, by_winograd):
    layer = layers.Conv2d(16, 32, 3, **{"padding": 1, "bias": False, **options})
    x = jt.array(np.random.default_rng(0).standard_normal((4, 16, 9, 9)).astype("float32"))
    with jt.profile_scope() as report:
        layer(x).sync()
    assert any("winograd" in row[0] for row in report[1:]) == by_winograd
