"""3x3 convolutions by minimal filtering, on a CPU."""
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st

import jittor as jt
from jt_models import layers
from jt_models.winograd import Winograd

from test_layers import assert_close, image, run_jittor, run_torch

F = torch.nn.functional


def whole(shape):
    return np.random.default_rng([*shape]).integers(-4, 5, tuple(shape)).astype("float32")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(images=st.integers(1, 5), fan_in=st.integers(1, 40), fan_out=st.integers(1, 40), h=st.integers(1, 12),
       w=st.integers(1, 40), padding=st.integers(0, 2), biased=st.booleans())
@example(images=40, fan_in=16, fan_out=17, h=5, w=8, padding=1, biased=True)  # several blocks of tiles
@example(images=2, fan_in=3, fan_out=2, h=4, w=220, padding=1, biased=False)  # a row of tiles that is longer than a block
@example(images=9, fan_in=80, fan_out=96, h=8, w=35, padding=1, biased=True)  # threads that share the gradient's sums
def test_whole_numbers_are_exact(images, fan_in, fan_out, h, w, padding, biased):
    """Whole numbers, their halves and quarters have no rounding: what differs is wrong."""
    x = whole((images, fan_in, max(h, 3 - 2 * padding), max(w, 3 - 2 * padding)))
    weight = whole((fan_out, fan_in, 3, 3))
    arrays = [x, weight, *([whole([fan_out])] if biased else [])]
    for a, b in zip(run_jittor(Winograd(padding), *arrays, weights=whole),
                    run_torch(lambda *v: F.conv2d(*v, padding=padding), *arrays, weights=whole)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("images, fan_in, fan_out, side", [(32, 64, 64, 16), (8, 256, 128, 4)])
def test_rounding(images, fan_in, fan_out, side):
    """oneDNN's direct convolution is off by about three times as much, and more in the first shape's weight."""
    x, weight = image(images, fan_in, side, side), image(fan_out, fan_in, 3, 3, seed=2)
    assert_close(run_jittor(Winograd(1), x, weight), run_torch(lambda *v: F.conv2d(*v, padding=1), x, weight), 32)


def test_a_large_pixel_reaches_its_own_windows_only():
    """To the bit, though a tile computes four windows together."""
    x, weight = image(1, 16, 9, 8), image(16, 16, 3, 3, seed=2)
    for row, column in ((3, 4), (4, 4), (3, 5), (4, 5)):  # one of each kind of place in a tile
        large = x.copy()
        large[:, :, row, column] = 1e30
        own = np.zeros((9, 8), bool)
        own[row - 1:row + 2, column - 1:column + 2] = True
        a, b = (Winograd(1)(jt.array(v), jt.array(weight)).numpy() for v in (x, large))
        assert (np.abs(b[..., own]) > 1e20).all()
        np.testing.assert_array_equal(a[..., ~own], b[..., ~own])


@pytest.mark.parametrize("options, by_winograd", [
    ({}, True), ({"padding": 0}, True), ({"stride": 2}, False), ({"dilation": 2}, False), ({"groups": 2}, False),
    ({"in_channels": 12}, True), ({"in_channels": 11}, False)])
def test_which_convolutions_go_this_way(options, by_winograd):
    layer = layers.Conv2d(**{"in_channels": 16, "out_channels": 32, "kernel_size": 3, "padding": 1, "bias": False,
                             **options})
    x = jt.array(image(4, layer.in_channels, 9, 9))
    with jt.profile_scope() as report:
        layer(x).sync()
    assert any("winograd" in row[0] for row in report[1:]) == by_winograd
