"""Layers and SGD on a GPU against PyTorch's in float64 on the CPU. Without a GPU all of it is skipped."""
import numpy as np
import pytest
import torch

import jittor as jt
from jt_models import layers, optim
from jt_models.bias import Bias

from test_layers import assert_close, image, run_jittor, run_torch

F = torch.nn.functional
pytestmark = pytest.mark.skipif(not jt.has_cuda, reason="no NVIDIA GPU that Jittor can use")


@pytest.fixture(autouse=True)
def on_the_gpu():
    with jt.flag_scope(use_cuda=1):
        yield


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(training):
    """Values, gradients and running statistics, in training and in evaluation."""
    x, weight, bias, mean = image(4, 6, 5, 7) * 3 + 2, image(6, seed=2), image(6, seed=3), image(6, seed=4)
    variance = np.square(image(6, seed=5)) + 0.1
    layer = layers.set_training(layers.BatchNorm2d(6), training)
    layer.running_mean.update(jt.array(mean))
    layer.running_var.update(jt.array(variance))
    running = [torch.tensor(v, dtype=torch.float64) for v in (mean, variance)]

    def ours(x, weight, bias):
        layer.weight, layer.bias = weight, bias
        return layer(x)

    assert_close(run_jittor(ours, x, weight, bias), run_torch(
        lambda x, weight, bias: F.batch_norm(x, *running, weight, bias, training), x, weight, bias))
    assert_close([v.numpy() for v in (layer.running_mean, layer.running_var)], [v.numpy() for v in running])


@pytest.mark.parametrize("kernel, stride, padding, dilation, groups", [
    ((1, 1), 1, 0, 1, 1), ((3, 3), 1, 1, 1, 1), ((7, 7), 2, 3, 1, 1), ((3, 3), 1, 2, 2, 1), ((1, 5), 1, (0, 2), 1, 1),
    ((3, 3), (2, 1), 1, 1, 2), ((3, 3), 1, 1, 1, 8), ((5, 5), 2, 0, 1, 8), ((3, 3), 1, 2, 2, 8)])
def test_convolution(kernel, stride, padding, dilation, groups):
    options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
    layer = layers.Conv2d(8, 16, kernel, **options)

    def ours(x, weight, bias):
        layer.weight, layer.bias = weight, bias
        return layer(x)

    arrays = image(3, 8, 11, 13), image(16, 8 // groups, *kernel, seed=2), image(16, seed=3)
    assert_close(run_jittor(ours, *arrays), run_torch(lambda *v: F.conv2d(*v, **options), *arrays))


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (4, 4, 4, 4), (41, 41, 43, 2)])
@pytest.mark.parametrize("dim", [0, 1, 3])
def test_concat(dim, shape):
    """Rows of any number of bytes, of multiples of 16, and more of them than a grid has blocks."""
    parts = [image(*shape[:dim], size, *shape[dim + 1:], seed=size) for size in (1, 4, 12)]
    for a, b in zip(run_jittor(lambda *v: layers.concat(v, dim), *parts),
                    run_torch(lambda *v: torch.concat(v, dim), *parts)):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (130, 3, 2, 2), (3, 70, 17, 31)])
def test_bias(shape):
    y, bias = image(*shape), image(shape[1], seed=1)
    assert_close(run_jittor(Bias(), y, bias), run_torch(lambda y, bias: y + bias[:, None, None], y, bias))


def test_tanh_is_not_a_fast_one():
    x = image(1000) * 2
    assert_close(run_jittor(layers.Tanh(), x), run_torch(torch.tanh, x))


def test_sgd():
    """Ten parameters of one kind: eight share an operation, two have their own."""
    options = dict(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True)
    start = [image(5, 7, seed=i) for i in range(10)]
    ours = [jt.array(a) for a in start]
    theirs = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in start]
    rules = optim.SGD(ours, **options), torch.optim.SGD(theirs, **options)
    for _ in range(3):
        rules[0].step(sum((p * p * p).sum() for p in ours))
        rules[1].zero_grad()
        sum((p ** 3).sum() for p in theirs).backward()
        rules[1].step()
    assert_close([p.numpy() for p in ours], [p.detach().numpy() for p in theirs])
