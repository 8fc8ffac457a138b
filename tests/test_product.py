"""Convolutions as products of the weights with the windows' pixels, on a CPU."""
import contextlib

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings, strategies as st

import jittor as jt
from jt_models import layers, product
from jt_models.folded import Folded, fits
from jt_models.product import Product

from test_layers import assert_close, image, run_jittor, run_torch
from test_winograd import whole

F = torch.nn.functional
pairs = st.tuples


@settings(max_examples=80, deadline=None, derandomize=True)
@given(images=st.integers(1, 9), fan_in=st.integers(1, 6), fan_out=st.integers(1, 6),
       sides=pairs(st.integers(1, 12), st.integers(1, 12)), kernel=pairs(st.integers(1, 7), st.integers(1, 7)),
       stride=pairs(st.integers(1, 3), st.integers(1, 3)), padding=pairs(st.integers(0, 4), st.integers(0, 4)),
       biased=st.booleans())
@example(images=61, fan_in=3, fan_out=5, sides=(3, 3), kernel=(1, 7), stride=(1, 1), padding=(0, 3), biased=False)  # lines shorter than the kernel
@example(images=2, fan_in=3, fan_out=4, sides=(40, 40), kernel=(3, 3), stride=(1, 1), padding=(1, 1), biased=True)  # several blocks of rows
@example(images=2, fan_in=1, fan_out=2, sides=(3, 700), kernel=(3, 3), stride=(2, 2), padding=(1, 1), biased=False)  # a row beyond a block
@example(images=5, fan_in=4, fan_out=3, sides=(9, 8), kernel=(1, 1), stride=(1, 1), padding=(0, 0), biased=True)  # the image itself
@example(images=5, fan_in=4, fan_out=3, sides=(9, 8), kernel=(1, 1), stride=(2, 3), padding=(0, 0), biased=False)
@example(images=71, fan_in=4, fan_out=3, sides=(4, 3), kernel=(1, 1), stride=(1, 1), padding=(0, 0), biased=True)  # several images
def test_whole_numbers_are_exact(images, fan_in, fan_out, sides, kernel, stride, padding, biased):
    """These have no rounding: what differs is wrong."""
    assume(all(side + 2 * p >= k for side, p, k in zip(sides, padding, kernel)))
    exact(Product, images, fan_in, fan_out, sides, kernel, stride, padding, biased)


def exact(kind, images, fan_in, fan_out, sides, kernel, stride, padding, biased):
    x, weight = whole((images, fan_in, *sides)), whole((fan_out, fan_in, *kernel))
    arrays = [x, weight, *([whole([fan_out])] if biased else [])]
    for a, b in zip(run_jittor(kind(stride, padding), *arrays, weights=whole),
                    run_torch(lambda *v: F.conv2d(*v, stride=stride, padding=padding), *arrays, weights=whole)):
        np.testing.assert_array_equal(a, b)


def meets(line):
    """Whether every output of a line of so many pixels meets all of these."""
    side, kernel, stride, padding = line
    outputs = (side + 2 * padding - kernel) // stride + 1
    return outputs > 0 and all(0 <= pixel + padding - stride * output < kernel for output in range(outputs) for pixel in range(side))


lines = pairs(st.integers(1, 5), st.integers(2, 7), st.integers(1, 3), st.integers(0, 4)).filter(meets)
untouched = pairs(st.integers(1, 9), st.just(1), st.just(1), st.just(0))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(images=st.integers(1, 9), fan_in=st.integers(1, 6), fan_out=st.integers(1, 6),
       axes=st.one_of(pairs(lines, lines), pairs(lines, untouched), pairs(untouched, lines)), biased=st.booleans())
def test_folded_whole_numbers_are_exact(images, fan_in, fan_out, axes, biased):
    sides, kernel, stride, padding = zip(*axes)
    assert fits(jt.zeros([1, 1, *sides]), jt.zeros([1, 1, *kernel]), stride, padding)
    exact(Folded, images, fan_in, fan_out, sides, kernel, stride, padding, biased)


@settings(max_examples=200, derandomize=True)
@given(line=pairs(st.integers(1, 9), st.integers(2, 7), st.integers(1, 3), st.integers(0, 4)), other=untouched)
def test_what_fits(line, other):
    assume(line[0] + 2 * line[3] >= line[1])
    sides, kernel, stride, padding = zip(line, other)
    assert fits(jt.zeros([1, 1, *sides]), jt.zeros([1, 1, *kernel]), stride, padding) == meets(line)


@pytest.mark.parametrize("side, kernel, stride, padding", [(3, 1, 1, 0), (3, 1, 2, 0), (2, 1, 1, 1)])
def test_a_kernel_of_1x1_does_not_fit(side, kernel, stride, padding):
    assert not fits(jt.zeros([1, 1, side, side]), jt.zeros([1, 1, kernel, kernel]), (stride, stride), (padding, padding))


@pytest.mark.parametrize("kind, shape, fan_out, kernel, stride, padding", [
    (Folded, (32, 128, 3, 3), 128, (1, 7), (1, 1), (0, 3)), (Product, (8, 128, 8, 8), 256, (3, 3), (2, 2), (1, 1))])
def test_rounding(kind, shape, fan_out, kernel, stride, padding):
    """oneDNN's direct convolution is off by two to five times as much."""
    x, weight = image(*shape), image(fan_out, shape[1], *kernel, seed=2)
    assert_close(run_jittor(kind(stride, padding), x, weight),
                 run_torch(lambda *v: F.conv2d(*v, stride=stride, padding=padding), x, weight), 16)


@pytest.mark.parametrize("vector, side, kernel, options, by_product", [
    (32, 9, 1, {}, True), (32, 9, 1, {"stride": 2}, True), (32, 3, 1, {}, False), (32, 9, 1, {"padding": 1}, False),
    (32, 4, 1, {}, True), (64, 4, 1, {}, False), (64, 16, 1, {"stride": 4}, False), (64, 5, 1, {}, True),
    (32, 16, 3, {"padding": 1, "stride": 2}, True), (32, 17, 3, {"padding": 1, "stride": 2}, False),
    (64, 5, 3, {"padding": 1, "stride": 2}, False), (64, 4, 3, {"padding": 1, "stride": 2}, True),
    (32, 3, 7, {"padding": 3}, True), (32, 4, 7, {"padding": 3}, False),
    (64, 3, 7, {"padding": 3}, False), (64, 2, 7, {"padding": 3}, True),
    (32, 1, 3, {"padding": 1}, True), (32, 2, 3, {"padding": 1}, False), (64, 1, 3, {"padding": 1}, True),
    (32, 1, 3, {"padding": 1, "groups": 2}, False), (32, 3, 3, {"padding": 2, "dilation": 2}, False)])
def test_which_convolutions_go_this_way(vector, side, kernel, options, by_product, monkeypatch):
    monkeypatch.setattr(product, "vector_bytes", lambda: vector)
    layer = layers.Conv2d(16, 32, kernel, **{"bias": False, **options})
    x = jt.array(image(4, 16, side, side))
    with jt.profile_scope() as report:
        layer(x).sync()
    assert any("dnnl_sgemm" in row[0] for row in report[1:]) == by_product


@pytest.mark.parametrize("side, by_lines", [(4, True), (3, True), (1, True), (5, False)])
def test_which_of_these_are_folded(side, by_lines, monkeypatch):
    monkeypatch.setattr(product, "vector_bytes", lambda: 32)
    layer = layers.Conv2d(16, 32, (7, 1), padding=(3, 0), bias=False)
    with jt.profile_scope() as report:
        layer(jt.array(image(4, 16, side, 3))).sync()
    assert any("inner" in row[0] for row in report[1:]) == by_lines


@pytest.mark.parametrize("vector, images, side, gradients, by_product", [
    (64, 64, 4, True, True), (64, 63, 4, True, False), (32, 300, 3, True, False),
    (64, 2, 4, False, True), (32, 2, 3, False, True), (64, 2, 1, False, False)])
def test_which_1x1_kernels_with_few_pixels_go_this_way(vector, images, side, gradients, by_product, monkeypatch):
    monkeypatch.setattr(product, "vector_bytes", lambda: vector)
    x, layer = jt.array(image(images, 3, side, side)), layers.Conv2d(3, 2, 1, bias=False)
    with jt.profile_scope() as report, contextlib.nullcontext() if gradients else jt.no_grad():
        layer(x).sync()
    assert any("dnnl_sgemm" in row[0] for row in report[1:]) == by_product


@pytest.mark.parametrize("side", [1, 2])
def test_a_1x1_kernel_and_few_pixels(side):
    """One product for all images, of which a single pixel needs no transposition."""
    x, weight = whole((5, 6, side, side)), whole((7, 6, 1, 1))
    layer = layers.Conv2d(6, 7, 1, bias=False)

    def convolution(x, weight):
        layer.weight = weight
        return layer(x)

    for a, b in zip(run_jittor(convolution, x, weight, weights=whole), run_torch(F.conv2d, x, weight, weights=whole)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("vector, rows, features, by_product", [
    (64, 16, 512, True), (64, 33, 600, True), (64, 15, 512, False), (64, 257, 512, False), (64, 16, 511, False),
    (32, 16, 512, False)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers(vector, rows, features, by_product, bias, monkeypatch):
    monkeypatch.setattr(product, "vector_bytes", lambda: vector)
    layer = layers.Linear(features, 520, bias=bias)

    def linear(x, weight, *b):
        layer.weight, layer.bias = weight, b[0] if bias else None
        return layer(x)

    arrays = [whole((rows, features)), whole((520, features)), whole((520,))][:2 + bias]
    with jt.profile_scope() as report:
        found = run_jittor(linear, *arrays, weights=whole)
    for a, b in zip(found, run_torch(F.linear, *arrays, weights=whole)):
        np.testing.assert_array_equal(a, b)
    assert any("product.data()" in row[0] for row in report[1:]) == by_product
