"""Declared divergences: where stock Jittor 1.3.11.0 differs from PyTorch in what a porter of CNNs meets.

One table, ROWS. Each row says what differs, by how much, at which line of Jittor, and which part of this
project agrees with PyTorch instead; and it measures both anew. So a Jittor that changes fails a test,
and so does a remedy that no longer helps.
"""
from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jt_models  # noqa: F401  (prepares Jittor's start)
import jittor as jt
import numpy as np
import torch
import torch.nn.functional as F

from jt_models import arithmetic, layers, losses, optim
from training.data import Data, Split
from training.errors import UserError
from training.schedule import Schedule

from . import weights
from .float64 import float64
from .truth import error


@dataclass(frozen=True)
class Row:
    """One divergence.

    Attributes:
        id: name of the row.
        what: one sentence.
        size: the difference between stock Jittor and PyTorch, as `measure` finds it, in `unit`.
        unit: what the number is: of what, for which input.
        where: "package/file:line" of the cause, in the installed Jittor.
        quote: code that stands on that line.
        measure: returns the difference of stock Jittor, and that of the remedy (of the advice in
            `instead`, where there is no remedy; None where neither is a number), from PyTorch.
        remedy: dotted path of what agrees with PyTorch in this project, or None.
        instead: what to do; always there if `remedy` is None.
        factor: how far a measurement may lie from `size`, as a ratio; 1 for counts.
        bound: largest difference of the remedy from PyTorch.
    """
    id: str
    what: str
    size: float
    unit: str
    where: str
    quote: str
    measure: Callable[[], tuple[float, float | None]]
    remedy: str | None = None
    instead: str = ""
    factor: float = 1.1
    bound: float = 1e-12


ROWS: list[Row] = []


def declare(**facts):
    """Decorator: adds to ROWS a row which this function measures. Its name gives the id, its docstring
    says what differs, and `facts` are the other attributes of Row."""
    def add(measure):
        ROWS.append(Row(id=measure.__name__.replace("_", "-"), what=" ".join(measure.__doc__.split()),
                        measure=measure, **facts))
        return measure
    return add


def table() -> list[dict]:
    """The rows as plain data (without `measure`), in order."""
    names = [field.name for field in dataclasses.fields(Row) if field.name != "measure"]
    return [{name: getattr(row, name) for name in names} for row in ROWS]


def markdown() -> str:
    """The rows as a Markdown table."""
    lines = ["| What differs | Size | Where in Jittor | Instead |", "|---|---|---|---|"]
    for row in ROWS:
        remedy = f"`{row.remedy}`" if row.remedy else ""
        instead = ": ".join(filter(None, (remedy, row.instead)))
        cells = row.what, f"{row.size:.3g} {row.unit}", f"`{row.where}`", instead
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _image(*shape, seed=0) -> np.ndarray:
    """float64, of the standard normal distribution."""
    return np.random.default_rng(seed).standard_normal(shape)


def _jittor(function, *arrays) -> np.ndarray:
    """function(*arrays) in Jittor, in the dtype of the arrays."""
    with jt.flag_scope(auto_convert_64_to_32=0):
        return np.array(function(*map(jt.array, arrays)).numpy())


def _float64(function, *arrays) -> np.ndarray:
    """function(*arrays) in Jittor, in float64, Python floats included."""
    with float64():
        return np.array(function(*map(jt.array, arrays)).numpy())


def _torch(function, *arrays) -> np.ndarray:
    return function(*(torch.tensor(a) for a in arrays)).detach().numpy()


def _apart(x: np.ndarray, truth: np.ndarray) -> float:
    """The larger of the relative errors in the 2-norm and the maximum norm, whatever the shape."""
    return error(np.ravel(x), np.ravel(truth)).worst


def _refuses(kind, function, *args, **options) -> bool:
    """Whether function(*args, **options) raises an exception of this kind."""
    try:
        function(*args, **options)
    except kind:
        return True
    return False


# Layers

def _batch_norms(x):
    """BatchNorms after one pass over `x` (float32) in training mode, and what they gave: Jittor's in
    float32, ours and PyTorch's in float64."""
    stock, ours, theirs = (library.BatchNorm2d(x.shape[1], momentum=1.0)
                           for library in (jt.nn, layers, torch.nn))
    with float64():
        ours.float64()
    exact = x.astype("float64")
    return (stock, ours, theirs), (_jittor(stock, x), _float64(ours, exact), _torch(theirs.double(), exact))


@declare(size=1 / 144, unit="relative, of `running_var`, 144 values per channel",
         where="jittor/nn.py:688", quote="(xvar.reshape((-1,))-self.running_var)*self.momentum)",
         remedy="jt_models.layers.BatchNorm2d")
def batch_norm_running_var():
    """BatchNorm keeps the biased variance in `running_var`; PyTorch keeps the unbiased one."""
    modules, _ = _batch_norms(_image(4, 3, 6, 6).astype("float32"))
    stock, ours, theirs = (m.running_var.numpy() for m in modules)
    return _apart(stock, theirs), _apart(ours, theirs)


@declare(size=2e-3, unit="relative, of the output, float32, mean 100 times the deviation",
         where="jittor/nn.py:680", quote="xvar = (x2mean-xmean*xmean).maximum(0.0)",
         remedy="jt_models.layers.BatchNorm2d", factor=10)
def batch_norm_large_mean():
    """BatchNorm computes the variance as E[x^2] - E[x]^2, which cancels where the mean is large."""
    _, (stock, ours, theirs) = _batch_norms((_image(4, 3, 6, 6) + 100).astype("float32"))
    return _apart(stock, theirs), _apart(ours, theirs)


@declare(size=1, unit="input of 1 accepted that PyTorch refuses: [1, 3, 1, 1]",
         where="jittor/nn.py:672", quote="dims = [0]+list(range(2,x.ndim))",
         remedy="jt_models.layers.BatchNorm2d", factor=1)
def batch_norm_one_value():
    """BatchNorm trains on one value per channel, whose variance is 0; PyTorch raises."""
    x = np.ones((1, 3, 1, 1), "float32")
    assert _refuses(ValueError, _torch, torch.nn.BatchNorm2d(3), x)
    return (not _refuses(Exception, _jittor, jt.nn.BatchNorm2d(3), x),
            not _refuses(ValueError, _jittor, layers.BatchNorm2d(3), x))


@declare(size=1.9e-5, unit="relative to float64, mean of 2^18 values in [0, 1), float32",
         where="jittor/src/ops/reduce_op.cc:395", quote="yp[yid] = @expand_op(@OP, @Ty, yp[yid]",
         instead="sum in two stages, then divide: `x.reshape((512, 512)).sum(1).sum() / n`", factor=10,
         bound=1e-6)
def mean_of_many():
    """`mean` and `sum` add up one number after the other; PyTorch adds in blocks."""
    x = np.random.default_rng(0).random((2, 2 ** 18)).astype("float32")
    truth = x.astype("float64").mean(1)
    staged = _jittor(lambda v: v.reshape((2, 512, 512)).sum(2).sum(1) / 2 ** 18, x)
    return _apart(_jittor(lambda v: v.mean(1), x), truth), _apart(staged, truth)


@declare(size=7.5e-9, unit="relative, of a float64 gradient, mean over 3 x 3",
         where="jittor/src/ops/reduce_op.cc:351", quote="make_number(1.0f*out->num / v->num, a)",
         remedy="jt_models.layers.AdaptiveAvgPool2d", instead="divide a sum by an int")
def mean_gradient():
    """The gradient of `mean` is multiplied by a float32 1/n, in float64 too."""
    x = _image(2, 3, 3, 3)
    truth = np.full(x.shape, 1 / 9)
    return (_apart(_jittor(lambda v: jt.grad(v.mean([2, 3]).sum(), v), x), truth),
            _apart(_float64(lambda v: jt.grad(layers.AdaptiveAvgPool2d(1)(v).sum(), v), x), truth))


@declare(size=1.0e-10, unit="relative, of 20.5, float64", where="jittor/nn.py:1880",
         quote="(x - threshold/beta).maximum(0.0)",
         instead="nothing in float32, where it is below rounding; else `jt.ternary(x > 20, x, softplus(x))`")
def softplus_above_threshold():
    """Above its threshold softplus adds log(1 + e^threshold); PyTorch's is the identity there."""
    x = np.array([20.5])
    truth = _torch(F.softplus, x)
    return (_apart(_float64(jt.nn.softplus, x), truth),
            _apart(_float64(lambda v: jt.ternary(v > 20, v, jt.nn.softplus(v)), x), truth))


@declare(size=5.2e-8, unit="relative, of a float64 gradient", where="jittor/src/ops/unary_op.cc:991",
         quote="make_number(2/1.7724538509055159, x)", remedy="parity.float64.float64")
def erf_gradient():
    """The gradient of `erf`, and so of `gelu`, has a float32 constant, in float64 too."""
    x = _image(3, 4)
    truth = 2 / np.pi ** 0.5 * np.exp(-x ** 2)
    return (_apart(_jittor(lambda v: jt.grad(jt.erf(v).sum(), v), x), truth),
            _apart(_float64(lambda v: jt.grad(jt.erf(v).sum(), v), x), truth))


@declare(size=0.5, unit="less of 10,000 elements zeroed, p = 0.5",
         where="jittor/nn.py:560", quote="p=0.5, is_train=False", remedy="jt_models.layers.Dropout",
         factor=1, bound=0.05)
def dropout_when_fresh():
    """A new Dropout is off until `train()` is called; PyTorch's is on."""
    jt.set_global_seed(0)
    x = jt.ones(10_000)
    stock, ours = ((np.array(m(x).numpy()) == 0).mean() for m in (jt.nn.Dropout(), layers.Dropout()))
    return 0.5 - stock, abs(0.5 - ours)


@declare(size=3, unit="inputs of 3 refused: 2x2 by kernel 2, 3x3 by kernel 3 with padding 1, 4x2 by kernel 2",
         where="jittor/pool.py:44", quote="if H <= self.kernel_size[0] or W <= self.kernel_size[1]:",
         remedy="jt_models.layers.MaxPool2d", factor=1)
def pool_of_whole_image():
    """Pools raise where the image is no larger than the kernel, padding not counted."""
    cases = [((2, 2), 2, 0), ((3, 3), 3, 1), ((4, 2), 2, 0)]
    refused, apart = 0, 0.0
    for size, kernel, padding in cases:
        x = _image(1, 2, *size)
        refused += _refuses(RuntimeError, jt.nn.MaxPool2d(kernel, 1, padding), jt.array(x))
        apart = max(apart, _apart(_float64(layers.MaxPool2d(kernel, 1, padding), x),
                                  _torch(lambda v: F.max_pool2d(v, kernel, 1, padding), x)))
    return refused, apart


def _avg_pools(x, **options):
    """Distance from PyTorch of the stock average pool of `x` and of ours."""
    truth = _torch(torch.nn.AvgPool2d(3, 2, 1, **options), x)
    return (_apart(_float64(jt.nn.AvgPool2d(3, 2, 1, **options), x), truth),
            _apart(_float64(layers.AvgPool2d(3, 2, 1, **options), x), truth))


@declare(size=0.39, unit="relative, kernel 3, stride 2, padding 1, 6x6",
         where="jittor/pool.py:197", quote="return xx.reduce(self.op, [4,5])",
         remedy="jt_models.layers.AvgPool2d")
def avg_pool_padding_counted():
    """AvgPool2d counts the padding also with count_include_pad=False."""
    return _avg_pools(_image(1, 2, 6, 6), count_include_pad=False)


@declare(size=0.33, unit="relative, kernel 3, stride 2, padding 1, 6x6",
         where="jittor/pool.py:59", quote="int count = {self.kernel_size[0]*self.kernel_size[1]};",
         remedy="jt_models.layers.AvgPool2d")
def avg_pool_ceil_divisor():
    """AvgPool2d with ceil_mode divides by the whole kernel also where it leaves the padded image."""
    return _avg_pools(_image(1, 2, 6, 6), ceil_mode=True)


@declare(size=1, unit="row of windows too many: 6x6, kernel 1, stride 2",
         where="jittor/pool.py:52", quote="self.kernel_size[0] + self.stride[0] - 1)//self.stride[0]+1",
         remedy="jt_models.layers.MaxPool2d", factor=1)
def pool_ceil_window():
    """ceil_mode adds windows that begin outside the image; PyTorch drops them."""
    x = _image(1, 2, 6, 6)
    rows = len(_torch(torch.nn.MaxPool2d(1, 2, ceil_mode=True), x)[0, 0])
    stock, ours = (library.MaxPool2d(1, 2, ceil_mode=True)(jt.array(x)).shape[2]
                   for library in (jt.nn, layers))
    return stock - rows, ours - rows


@declare(size=0.96, unit="relative, 10x10 to 7x7", where="jittor/pool.py:421",
         quote="self.sh = math.floor(H / oh)", remedy="jt_models.layers.AdaptiveAvgPool2d")
def adaptive_avg_pool_bins():
    """AdaptiveAvgPool2d has equal bins at equal distances; PyTorch's are those of the exact fractions."""
    x = _image(2, 3, 10, 10)
    truth = _torch(torch.nn.AdaptiveAvgPool2d(7), x)
    return (_apart(_float64(jt.nn.AdaptiveAvgPool2d(7), x), truth),
            _apart(_float64(layers.AdaptiveAvgPool2d(7), x), truth))


@declare(size=1, unit="input of 1 refused: 3x3 to 7x7", where="jittor/pool.py:425",
         quote="h = (H-self.ksh)//self.sh+1", remedy="jt_models.layers.AdaptiveAvgPool2d", factor=1)
def adaptive_avg_pool_of_small_image():
    """AdaptiveAvgPool2d divides by zero where the output is larger than the image."""
    x = _image(2, 3, 3, 3)
    return (_refuses(ZeroDivisionError, jt.nn.AdaptiveAvgPool2d(7), jt.array(x)),
            _apart(_float64(layers.AdaptiveAvgPool2d(7), x), _torch(torch.nn.AdaptiveAvgPool2d(7), x)))


@declare(size=3, unit="too much in the sum of the gradient (4 instead of 1), 2x2 equal values",
         where="jittor/pool.py:450",
         quote='return x.reduce("maximum", [2,3], keepdims=True)', remedy="jt_models.layers.MaxPool2d",
         instead="a kernel as large as the image", factor=1)
def adaptive_max_pool_ties():
    """AdaptiveMaxPool2d(1) gives the whole gradient to each of several equal maxima."""
    x = np.zeros((1, 1, 2, 2))
    stock, ours = (_float64(lambda v: jt.grad(m(v).sum(), v), x)
                   for m in (jt.nn.AdaptiveMaxPool2d(1), layers.MaxPool2d(2)))
    leaf = torch.tensor(x, requires_grad=True)
    F.adaptive_max_pool2d(leaf, 1).sum().backward()
    return stock.sum() - float(leaf.grad.sum()), _apart(ours, leaf.grad.numpy())


@declare(size=1, unit="batch of 1 with label 3 among 3 classes accepted", where="jittor/nn.py:383",
         quote="target_weight = ((target >= 0) & (target < output.shape[1])).float32()",
         remedy="training.data.Data", instead="check the labels once, on the host", factor=1)
def cross_entropy_label_out_of_range():
    """Cross-entropy leaves out a label that names no class; PyTorch raises."""
    logits, labels = _image(2, 3).astype("float32"), np.array([0, 3], "int32")
    assert _refuses(IndexError, F.cross_entropy, torch.tensor(logits), torch.tensor(labels).long())
    loss = _jittor(jt.nn.cross_entropy_loss, logits, labels)
    split, classes = Split(np.zeros((2, 1, 1, 1), "uint8"), labels), ("a", "b", "c")
    return bool(np.isfinite(loss)), not _refuses(
        UserError, Data, name="folder", train=split, val=split, test=split, classes=classes,
        mean=(0.0,), std=(1.0,), padding=0, flip=False, source="")


@declare(size=1, unit="option of 1 refused", where="jittor/nn.py:375",
         quote="def cross_entropy_loss(output, target", remedy="jt_models.losses.cross_entropy", factor=1)
def cross_entropy_label_smoothing():
    """Cross-entropy has no label smoothing."""
    logits, labels = _image(4, 3), np.array([0, 2, 1, 1], "int32")
    truth = F.cross_entropy(torch.tensor(logits), torch.tensor(labels).long(), label_smoothing=0.1)
    ours = _float64(lambda v: losses.cross_entropy(v, jt.array(labels), 0.1), logits)
    return (_refuses(TypeError, jt.nn.cross_entropy_loss, jt.array(logits), jt.array(labels),
                     label_smoothing=0.1), _apart(ours, truth.numpy()))


@declare(size=1, unit="dimension too many: shape [1] instead of []",
         where="jittor/src/ops/reduce_op.cc:330", quote="yshape.push_back(1);",
         instead="`.item()` for a number", factor=1)
def full_reduction_shape():
    """A reduction over everything, a loss too, has shape [1]."""
    return len(jt.ones((2, 3)).sum().shape) - torch.ones(2, 3).sum().ndim, None


@declare(size=3, unit="missing from 4, the sum of 4 rows of probabilities",
         where="jittor/nn.py:527", quote="if dim is None: dim = ()", instead="name `dim`")
def softmax_without_dim():
    """Softmax without `dim` normalises over all elements; PyTorch's over the classes (and warns)."""
    x = _image(4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth = _torch(torch.nn.Softmax(), x)
    return truth.sum() - _float64(jt.nn.Softmax(), x).sum(), _apart(_float64(jt.nn.Softmax(1), x), truth)


@declare(size=2, unit="methods of 2 with another result", where="jittor/__init__.py:893",
         quote='return jt.arg_reduce(x, "max", dim, keepdims)',
         instead="`index, value = x.argmax(dim)`", factor=1)
def argmax_is_a_pair():
    """`argmax(dim)` returns (index, value) and `max(dim)` the value; PyTorch's return the index, and
    (value, index)."""
    x = _image(4, 3)
    ours, theirs = jt.array(x), torch.tensor(x)
    index = ours.argmax(1)[0].numpy()
    return (isinstance(ours.argmax(1), tuple) + isinstance(ours.max(1), jt.Var),
            _apart(index, theirs.argmax(1).numpy()))


@declare(size=0.35, unit="relative, 3x3 to 6x6", where="jittor/nn.py:2018",
         quote="mode='bilinear', align_corners=False", remedy="jt_models.layers.interpolate",
         instead="name the mode on both sides")
def interpolate_default():
    """`interpolate` is bilinear by default; PyTorch's takes the nearest pixel."""
    x = _image(1, 2, 3, 3)
    return (_apart(_float64(lambda v: jt.nn.interpolate(v, size=(6, 6)), x),
                   _torch(lambda v: F.interpolate(v, (6, 6)), x)),
            _apart(_float64(lambda v: layers.interpolate(v, (6, 6), mode="bilinear"), x),
                   _torch(lambda v: F.interpolate(v, (6, 6), mode="bilinear"), x)))


# Numbers and types

@declare(size=1 / 12, unit="relative, 12 values", where="jittor/__init__.py:603",
         quote="unbiased=False, keepdims=False", instead="`var(unbiased=True)`")
def var_is_biased():
    """`var` is biased by default; PyTorch's is not."""
    x = _image(3, 4)
    truth = _torch(torch.var, x)
    return _apart(_float64(jt.var, x), truth), _apart(_float64(lambda v: v.var(unbiased=True), x), truth)


@declare(size=99, unit="relative, of a deviation of 1e-5", where="jittor/__init__.py:662",
         quote="out=out.maximum(1e-6).sqrt()", instead="`jt.sqrt(x.var(unbiased=True))`")
def std_has_a_floor():
    """`std` returns at least 1e-3."""
    x = _image(3, 4)
    x *= 1e-5 / x.std(ddof=1)
    truth = _torch(torch.std, x)
    return (_apart(_float64(jt.std, x), truth),
            _apart(_float64(lambda v: jt.sqrt(v.var(unbiased=True)), x), truth))


@declare(size=2, unit="values too many (3 instead of 1) from [3, 4]", where="jittor/__init__.py:673",
         quote="def norm(x, p=2, dim=-1", instead="`jt.sqrt((x * x).sum())`", factor=1)
def norm_of_rows():
    """`norm` is that of the last axis by default; PyTorch's is that of the whole tensor."""
    x = _image(3, 4)
    return (jt.array(x).norm().numel() - torch.tensor(x).norm().numel(),
            _apart(_float64(lambda v: jt.sqrt((v * v).sum()), x), _torch(torch.norm, x)))


@declare(size=2, unit="missing gradients of 2, at both bounds", where="jittor/__init__.py:750",
         quote="x = x.maximum(min_v)", factor=1,
         instead="`jt.ternary((x < low) | (x > high), x.clamp(low, high).detach(), x)`")
def clamp_gradient():
    """`clamp` has gradient 0 at its bounds; PyTorch's has 1."""
    x = np.array([-1.0, 0.0, 0.5, 1.0, 2.0])
    leaf = torch.tensor(x, requires_grad=True)
    leaf.clamp(0, 1).sum().backward()

    def open_ended(v):
        return jt.ternary((v < 0) | (v > 1), v.clamp(0, 1).detach(), v)

    stock, ours = (_float64(lambda v: jt.grad(clamp(v).sum(), v), x)
                   for clamp in (lambda v: v.clamp(0, 1), open_ended))
    return np.abs(stock - leaf.grad.numpy()).sum(), _apart(ours, leaf.grad.numpy())


@declare(size=1, unit="call of 1 refused", where="jittor/__init__.py:740", quote="assert shape[dim] == 1",
         instead="`reshape`", factor=1)
def squeeze_of_many():
    """`squeeze(dim)` raises where the axis is longer than 1; PyTorch leaves it."""
    assert torch.ones(2, 3).squeeze(0).shape == (2, 3)
    return _refuses(AssertionError, jt.ones((2, 3)).squeeze, 0), None


@declare(size=1.5e-8, unit="relative, of 0.1", where="jittor/src/pyjt/py_array_op.cc:128",
         quote="if ((auto_convert_64_to_32 || holder.obj)", remedy="parity.float64.float64",
         instead="`jt.array64`")
def array_is_float32():
    """`jt.array` makes float64 into float32 (and int64 into int32)."""
    x = np.array([0.1])
    return _apart(np.array(jt.array(x).numpy()).astype("float64"), x), _apart(_float64(lambda v: v, x), x)


@declare(size=1.5e-8, unit="relative, of 0.1 times a float64", where="jittor/src/pyjt/py_converter.h:356",
         quote="tmp_data.f32 = PyFloat_AS_DOUBLE(obj);", remedy="jt_models.arithmetic.constant")
def python_float_is_float32():
    """A Python float beside a float64 Var is a float32 number."""
    x = _image(3, 4)
    return (_apart(_jittor(lambda v: v * 0.1, x), x * 0.1),
            _apart(_jittor(lambda v: v * arithmetic.constant(0.1, v), x), x * 0.1))


@declare(size=1.51e-10, unit="of a gradient at 12, where PyTorch's is 0", where="jittor/src/ops/unary_op.cc:957",
         quote="return make_binary(dout, cos2x, ns_divide);", remedy="jt_models.layers.Tanh")
def tanh_gradient():
    """The gradient of tanh is 1 / cosh(x)^2, not 1 - tanh(x)^2: beyond 44 the square overflows in float32, and
    a vectorised CPU kernel makes NaN of the division by infinity."""
    x = np.array([12], "float32")  # one value is not vectorised
    stock, ours = (_jittor(lambda v: jt.grad(function(v).sum(), v), x) for function in (jt.tanh, layers.Tanh()))
    leaf = torch.tensor(x, requires_grad=True)
    torch.tanh(leaf).sum().backward()
    return stock.item() - leaf.grad.item(), abs(ours.item() - leaf.grad.item())


@declare(size=2.4e-4, unit="relative, of the pixels 0 to 255", where="jittor/src/misc/nano_string.h:214",
         quote="has_bf16 ? ns_bfloat16 : ns_float16;", instead="`.float32()` first", bound=1e-7)
def uint8_becomes_float16():
    """uint8 divided by a float is float16; PyTorch's is float32."""
    pixels = np.arange(256, dtype="uint8")
    truth = _torch(lambda v: v / 255.0, pixels)
    return (_apart(_jittor(lambda v: v / 255.0, pixels), truth),
            _apart(_jittor(lambda v: v.float32() / 255.0, pixels), truth))


@declare(size=0.75, unit="less than the accuracy of 3 right in 4", where="jittor/src/ops/reduce_op.cc:288",
         quote="y = create_output(nullptr, ns_int32);", instead="`.float32()` first", factor=1)
def mean_of_bool():
    """The mean of a bool Var is an integer; PyTorch refuses it."""
    right = np.array([True, True, True, False])
    assert _refuses(RuntimeError, torch.tensor(right).mean)
    return (0.75 - _jittor(lambda v: v.mean(), right).item(),
            0.75 - _jittor(lambda v: v.float32().mean(), right).item())


@declare(size=2, unit="tests of 2 that lose a NaN: MaxPool (beside numbers), `x != x`",
         where="jittor/compiler.py:1170", quote='kernel_opt_flags += " -Ofast "',
         instead="`jt.isnan`, or look at numpy arrays, as the trainers do with losses and weights", factor=1)
def nan_is_lost():
    """Kernels are compiled as if there were no NaN: MaxPool turns it into a number, so does ReLU in a loop of one
    thread, and `x != x` is False."""
    x = np.ones((1, 1, 4, 4), "float32")
    x[0, 0, 0, 0] = np.nan
    assert all(np.isnan(_torch(f, x)).sum() == 1 for f in (torch.relu, torch.nn.MaxPool2d(2)))
    found = [np.isnan(_jittor(jt.nn.MaxPool2d(2), x)).any(), _jittor(lambda v: v != v, x).any()]
    return 2 - sum(found), 1 - int(_jittor(jt.isnan, x).sum())


# Optimizers: each path is how far a parameter has gone, by given gradients, in float64.

_START = _image(3, 4)
_GRADIENTS = [_image(3, 4, seed=seed) for seed in range(1, 11)]


def _path(make, gradients=_GRADIENTS, per_step=1):
    """Of a Jittor optimizer make([parameter]), the gradients of `per_step` backward passes added up."""
    with float64():
        p = jt.array(_START)
        optimizer = make([p])
        for index, g in enumerate(gradients, 1):
            optimizer.backward((p * jt.array(g)).sum())
            if index % per_step == 0:
                optimizer.step()
        return np.array(p.numpy()) - _START


def _torch_path(make, gradients=_GRADIENTS, per_step=1):
    p = torch.tensor(_START, requires_grad=True)
    optimizer = make([p])
    for index, g in enumerate(gradients, 1):
        (p * torch.tensor(g)).sum().backward()
        if index % per_step == 0:
            optimizer.step()
            optimizer.zero_grad()
    return p.detach().numpy() - _START


def _rules(name, gradients=_GRADIENTS, per_step=1, **options):
    """Distance from PyTorch of the stock rule of this name, and of ours, relative to the path."""
    truth = _torch_path(lambda p: getattr(torch.optim, name)(p, **options), gradients, per_step)
    stock, ours = (_path(lambda p: getattr(side, name)(p, **options), gradients, per_step)
                   for side in (jt.optim, optim))
    return _apart(stock, truth), _apart(ours, truth)


@declare(size=0.097, unit="of the path, 10 steps, gradients of about 1e-5", where="jittor/optim.py:436",
         quote="p.update(p - m * step_size / (jt.sqrt(v) + eps))", remedy="jt_models.optim.Adam")
def adam_epsilon():
    """Adam adds eps before the bias of the second moment is corrected; PyTorch's adds it after."""
    return _rules("Adam", [g * 1e-5 for g in _GRADIENTS], lr=1e-2)


@declare(size=0.021, unit="of the path, 10 steps, lr 0.01", where="jittor/optim.py:448",
         quote="weight_decay=0):", remedy="jt_models.optim.AdamW")
def adamw_weight_decay():
    """AdamW has no weight decay by default; PyTorch's has 0.01."""
    return _rules("AdamW", lr=1e-2)


@declare(size=0.2, unit="of the path, 5 steps of 2 backward passes", where="jittor/optim.py:211",
         quote="self.n_step += 1", remedy="jt_models.optim.Adam")
def adam_counts_backward_passes():
    """Adam's bias correction counts backward passes, not steps, where gradients are accumulated."""
    return _rules("Adam", per_step=2, lr=1e-2)


@declare(size=0.26, unit="of the path, 10 steps, momentum 0.9, dampening 0.5", where="jittor/optim.py:340",
         quote="v.update(momentum * v + dp * (1 - dampening))", remedy="jt_models.optim.SGD")
def sgd_dampening():
    """SGD dampens the first gradient too; PyTorch starts the momentum with the whole one."""
    return _rules("SGD", lr=0.1, momentum=0.9, dampening=0.5)


@declare(size=3, unit="options of 3 refused", where="jittor/optim.py:359",
         quote="def __init__(self, params, lr=1e-2, eps=1e-8, alpha=0.99)",
         remedy="jt_models.optim.RMSprop", factor=1)
def rmsprop_options():
    """RMSprop has no momentum, weight decay or centring."""
    options = dict(momentum=0.9, weight_decay=0.1, centered=True)
    refused = [_refuses(TypeError, jt.optim.RMSprop, [jt.ones(2)], **{name: value})
               for name, value in options.items()]
    return sum(refused), _apart(_path(lambda p: optim.RMSprop(p, **options)),
                                _torch_path(lambda p: torch.optim.RMSprop(p, **options)))


@declare(size=1, unit="times the first step, taken again", where="jittor/optim.py:143",
         quote="self.__zero_grad = True", instead="give every `step` its loss")
def stale_gradients():
    """`step` after `zero_grad`, without a new backward pass, takes the last gradient again; PyTorch's
    does nothing."""
    def twice(params, library):
        optimizer = library.SGD(params, lr=1.0)
        step = optimizer.step

        def both():
            step()
            optimizer.zero_grad()
            step()
        optimizer.step = both
        return optimizer

    once = _GRADIENTS[:1]
    truth = _torch_path(lambda p: twice(p, torch.optim), once)
    return (_apart(_path(lambda p: twice(p, jt.optim), once), truth),
            _apart(_path(lambda p: jt.optim.SGD(p, lr=1.0), once), truth))


@declare(size=0.1, unit="of its value lost, weight decay 0.1, lr 1", where="jittor/optim.py:339",
         quote="dp = p * weight_decay + g", instead="leave out of the optimizer what gets no gradient")
def unused_parameter_decays():
    """A parameter that the loss does not depend on still decays; PyTorch leaves it."""
    with float64():
        used, unused = jt.array(_START), jt.array(_START)
        jt.optim.SGD([used, unused], lr=1.0, weight_decay=0.1).step(used.sum())
        return _apart(np.array(unused.numpy()), _START), None


@declare(size=2.2e-4, unit="relative to float64, of the norm of 10^6 gradients, float32",
         where="jittor/optim.py:96", quote="total_norm = jt.norm(jt.concat(grads), norm_type)",
         remedy="jt_models.optim.SGD", instead="`optimizer.clip_gradients`, whose sums go axis by axis",
         factor=10, bound=1e-6)
def clip_grad_norm():
    """`clip_grad_norm` makes the norm of all gradients by one long sum."""
    gradient = np.random.default_rng(0).standard_normal((1000, 1000)).astype("float32")

    def clipped(optimizer, clip):
        optimizer.backward((optimizer.param_groups[0]["params"][0] * jt.array(gradient)).sum())
        clip(1.0)
        return np.linalg.norm(np.array(optimizer.param_groups[0]["grads"][0].numpy()).astype("float64"))

    stock, ours = (rules.SGD([jt.zeros((1000, 1000))], lr=1.0) for rules in (jt.optim, optim))
    return (abs(clipped(stock, stock.clip_grad_norm) - 1), abs(clipped(ours, ours.clip_gradients) - 1))


# Schedulers: the rate of each of 9 epochs, from 1.

_EPOCHS = range(9)


def _rates(scheduler, **options) -> tuple[np.ndarray, np.ndarray]:
    """Of Jittor's scheduler of this name, and of PyTorch's."""
    ours, theirs = jt.optim.SGD([jt.ones(2)], lr=1.0), torch.optim.SGD([torch.ones(2)], lr=1.0)
    stock = getattr(jt.lr_scheduler, scheduler)(ours, **options)
    reference = getattr(torch.optim.lr_scheduler, scheduler)(theirs, **options)
    found = []
    for _ in _EPOCHS:
        found.append((ours.lr, theirs.param_groups[0]["lr"]))
        theirs.step()
        stock.step()
        reference.step()
    return tuple(np.transpose(found))


def _epochs_late(stock, truth) -> float:
    """By how many epochs `stock` lags behind `truth`; NaN if it differs in another way too."""
    return next((lag for lag in range(4) if np.allclose(stock[lag:], truth[:len(truth) - lag])), np.nan)


@declare(size=1, unit="epoch late", where="jittor/lr_scheduler.py:187",
         quote="if (self.last_epoch in self.milestones):", remedy="training.schedule.Schedule", factor=1)
def multi_step_lr():
    """MultiStepLR cuts the rate one epoch late."""
    stock, truth = _rates("MultiStepLR", milestones=[2, 5])
    ours = Schedule("multistep", 1.0, 9, 1, milestones=(2, 5))
    return _epochs_late(stock, truth), _apart([ours(epoch) for epoch in _EPOCHS], truth)


@declare(size=1, unit="epoch late", where="jittor/lr_scheduler.py:100", quote="if self.last_epoch == 0:",
         remedy="training.schedule.Schedule", factor=1)
def cosine_annealing_lr():
    """CosineAnnealingLR stays at the first rate for two epochs."""
    stock, truth = _rates("CosineAnnealingLR", T_max=9)
    ours = Schedule("cosine", 1.0, 9, 1)
    return _epochs_late(stock, truth), _apart([ours(epoch) for epoch in _EPOCHS], truth)


@declare(size=1, unit="epoch late", where="jittor/lr_scheduler.py:131", quote="if self.last_epoch == 0:",
         instead="call `step` once before the first epoch", factor=1)
def exponential_lr():
    """ExponentialLR stays at the first rate for two epochs."""
    stock, truth = _rates("ExponentialLR", gamma=0.5)
    return _epochs_late(stock, truth), _apart(stock[1:], truth[:-1])


@declare(size=1, unit="epoch late", where="jittor/lr_scheduler.py:156",
         quote="if (self.cur_epoch != 0 and", instead="ExponentialLR, after a `step` before the first epoch",
         factor=1)
def step_lr_of_one():
    """StepLR(1) cuts the rate one epoch late (StepLR(2) and more are right)."""
    assert _epochs_late(*_rates("StepLR", step_size=2)) == 0
    stock, truth = _rates("StepLR", step_size=1, gamma=0.5)
    return _epochs_late(stock, truth), _apart(_rates("ExponentialLR", gamma=0.5)[0][1:], truth[:-1])


@declare(size=1, unit="cut too many of the rate of 2 groups", where="jittor/lr_scheduler.py:73",
         quote="self.optimizer.lr = new_lr", instead="give every group its own `lr`", factor=1)
def plateau_with_groups():
    """ReduceLROnPlateau cuts the common rate once for every parameter group."""
    def cuts(**group):
        optimizer = jt.optim.SGD([{"params": [jt.ones(2)], **group} for _ in range(2)], lr=1.0)
        scheduler = jt.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        for _ in range(2):
            scheduler.step(1.0)
        return round(-np.log10(optimizer.param_groups[0].get("lr", optimizer.lr)))

    return cuts() - 1, cuts(lr=1.0) - 1


# Modules

def _frozen(module) -> int:
    return sum(p.is_stop_grad() for p in optim.trainable(module).values())


@declare(size=2, unit="parameters of 2 frozen", where="jittor/__init__.py:1728", quote="p.stop_grad()",
         remedy="jt_models.layers.set_training", factor=1)
def eval_freezes():
    """`eval()` freezes every parameter, so that an optimizer step does nothing, silently."""
    stock, ours = jt.nn.Linear(2, 3), jt.nn.Linear(2, 3)
    stock.eval()
    layers.set_training(ours, False)
    return _frozen(stock), _frozen(ours)


@declare(size=2, unit="parameters of 2 frozen", where="jittor/__init__.py:1739",
         quote='if hasattr(self, "backup_grad_state"):', remedy="jt_models.layers.set_training", factor=1)
def train_leaves_frozen():
    """A part that was set to evaluation alone stays frozen when the whole net is set to training."""
    stock, ours = (jt.nn.Sequential(jt.nn.Linear(2, 3)) for _ in range(2))
    stock[0].eval()
    stock.train()
    layers.set_training(ours[0], False)
    layers.set_training(ours)
    return _frozen(stock), _frozen(ours)


@declare(size=3, unit="faults of 3 accepted: a tensor missing, unexpected, of another shape",
         where="jittor/__init__.py:1619", quote="for key in params.keys():", remedy="parity.weights.load",
         factor=1)
def load_state_dict_never_raises():
    """`load_state_dict` raises for nothing: it writes a line to the log at most."""
    good = {"weight": np.ones((3, 2), "float32"), "bias": np.ones(3, "float32")}
    faults = [{"bias": good["bias"]}, {**good, "scale": good["bias"]}, {**good, "bias": good["weight"]}]
    return (sum(not _refuses(Exception, jt.nn.Linear(2, 3).load_state_dict, fault) for fault in faults),
            sum(not _refuses(weights.WeightError, weights.load, jt.nn.Linear(2, 3), fault)
                for fault in faults))


@declare(size=1, unit="float16 tensor of 1 left in a float32 layer", where="jittor/__init__.py:1658",
         quote="v.update(param)", remedy="parity.weights.load", factor=1)
def load_state_dict_takes_the_dtype():
    """`load_state_dict` takes over the dtype of the file; PyTorch keeps the layer's."""
    half = {"weight": np.ones((3, 2), "float16"), "bias": np.ones(3, "float32")}
    stock = jt.nn.Linear(2, 3)
    stock.load_state_dict(half)
    return (str(stock.weight.dtype) == "float16",
            not _refuses(weights.WeightError, weights.load, jt.nn.Linear(2, 3), half))


@declare(size=0.4, unit="relative, of a column of a matrix", where="jittor_utils/load_pytorch.py:89",
         quote="storage[storage_offset:storage_offset+record_size]", remedy="parity.weights.read", bound=0.0)
def load_of_strided_tensor():
    """`jt.load` of a PyTorch file reads a strided tensor from the wrong places."""
    column = torch.arange(6.0).reshape(3, 2)[:, 1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "column.pth")
        torch.save({"column": column}, path)
        stock, ours = np.array(jt.load(str(path))["column"].numpy()), weights.read(path)["column"]
    return _apart(stock, column.numpy()), _apart(ours, column.numpy())


@declare(size=6, unit="numbers too many in a BatchNorm of 3 channels", where="jittor/__init__.py:1283",
         quote="ps.append(p)", remedy="jt_models.optim.trainable", factor=1)
def parameters_include_statistics():
    """`parameters()` lists the running statistics too."""
    stock, ours = jt.nn.BatchNorm2d(3), layers.BatchNorm2d(3)
    count = sum(p.numel() for p in torch.nn.BatchNorm2d(3).parameters())
    return (sum(p.numel() for p in stock.parameters()) - count,
            sum(p.numel() for p in optim.trainable(ours).values()) - count)


@declare(size=1, unit="parameter of 1 missing", where="jittor/__init__.py:1281",
         quote='if isinstance(k2, str) and k2.startswith("_"): continue', instead="name it without", factor=1)
def underscore_hides_parameter():
    """A Var whose name begins with `_` is no parameter; PyTorch's would be."""
    net = jt.nn.Module()
    net._scale, before = jt.ones(2), len(net.parameters())
    net.scale = net._scale
    return 1 - before, 1 - len(net.parameters())


@declare(size=1, unit="hook of 2 not called", where="jittor/__init__.py:1520", quote="self.__fhook__ = func",
         instead="one hook that calls the others", factor=1)
def one_forward_hook():
    """A module has one forward hook: the second replaces the first."""
    net, called = jt.nn.Sequential(), []
    for name in "ab":
        net.register_forward_hook(lambda module, inputs, output, name=name: called.append(name))
    net(jt.ones(1))
    return 2 - len(called), None
