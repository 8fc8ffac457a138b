"""BLAS convolutions and products in float64 against Jittor's own plain loops."""
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import jittor as jt
from parity.float64 import float64
from parity.products import by_blas
from parity.truth import error

# Every drawn configuration compiles kernels: few examples, no deadline.
drawn = settings(max_examples=6, deadline=None, derandomize=True)
TOLERANCE = 1e-14  # of sums of at most 400 products; one ulp is 1.1e-16


def run(function, *arrays):
    """Output, and gradients with respect to `arrays`, of sum(function(...) * fixed weights)."""
    inputs = [jt.array64(a) for a in arrays]
    out = function(*inputs)
    probe = np.random.default_rng(1).standard_normal(tuple(out.shape))
    return [np.array(v.numpy()) for v in (out, *jt.grad((out * jt.array64(probe)).sum(), inputs))]


def assert_same(function, *arrays):
    with float64():
        loops = run(function, *arrays)
        with by_blas():
            blas = run(function, *arrays)
    for ours, theirs in zip(blas, loops):
        assert ours.dtype == "float64"
        assert error(ours, theirs).worst <= TOLERANCE


@drawn
@given(groups=st.integers(1, 3), depth=st.integers(1, 3), out=st.integers(1, 3),
       kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
       stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
       padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
       dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)), layer=st.booleans(), bias=st.booleans())
def test_convolution(groups, depth, out, kernel, stride, padding, dilation, layer, bias):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, groups * depth, 7, 6))
    weight = rng.standard_normal((groups * out, depth, *kernel))
    shift = [rng.standard_normal(groups * out)] if bias else []

    def function(x, weight, shift=None):
        return jt.nn.conv2d(x, weight, shift, stride, padding, dilation, groups)

    def module(x, weight, shift=None):
        own = jt.nn.Conv2d(groups * depth, groups * out, kernel, stride, padding, dilation, groups, bias)
        own.weight, own.bias = weight, shift
        return own(x)

    assert_same(module if layer else function, x, weight, *shift)


@pytest.mark.parametrize("function", [
    lambda a, b: jt.matmul(a, b), lambda a, b: a @ b, lambda a, b: jt.nn.matmul(a, b),
    lambda a, b: jt.nn.linear(a, b.transpose(1, 0)),
    lambda a, b: jt.nn.linear(a.reshape(2, 2, 5), b.transpose(1, 0)),
    lambda a, b: (a.reshape(2, 2, 5) @ b)])
def test_product_of_matrices(function):
    rng = np.random.default_rng(0)
    assert_same(function, rng.standard_normal((4, 5)), rng.standard_normal((5, 3)))


def test_it_is_blas_within_the_context_only(monkeypatch):
    calls = []
    usual = jt.numpy_code
    monkeypatch.setattr(jt, "numpy_code", lambda *args: (calls.append(args), usual(*args))[1])
    net = jt.nn.Sequential(jt.nn.Conv2d(2, 3, 3), jt.nn.Flatten(), jt.nn.Linear(12, 2))
    x = np.zeros((1, 2, 4, 4))
    with float64():
        net.float64()
        net(jt.array64(x))
        assert len(calls) == 0
        with by_blas():
            net(jt.array64(x))
            assert len(calls) == 2
            net.float32()
            net(jt.array(x.astype("float32")))
            assert len(calls) == 2
    net(jt.array(x.astype("float32")))
    assert len(calls) == 2
