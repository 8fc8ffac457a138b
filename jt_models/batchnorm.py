"""BatchNorm on a CPU, alone or in one pass with the ReLU behind it, where Jittor's operations lose time and digits."""
from __future__ import annotations

import math
import weakref
from typing import NamedTuple

import jittor as jt

from .arithmetic import like
from .channels import CHANNELS, HEADER
from .epilogue import RECTIFIER
from .source import filled

_HEADER = HEADER + RECTIFIER + """
template <class T, class Term> static void write(const Block& b, T* to, Term term) {
    for (int64_t n = 0; n < b.images; n++) {
        #pragma omp simd
        for (int64_t j = 0; j < b.count; j++) to[n * b.stride + j] = term(n * b.stride + j, j);
    }
}
// A value of each channel, at all its places.
template <class T> struct Spread {
    T at[PLACES];
    Spread(const Block& b, const T* values) {
        for (int64_t j = 0; j < b.count; j += b.each) std::fill_n(at + j, b.each, values[j / b.each]);
    }
    T operator[](int64_t j) const { return at[j]; }
};
"""
_EPS = """
    const double eps = data["eps"];
"""
_FORWARD = _EPS + """
    const double momentum = data["momentum"];
""" + CHANNELS + """
        double sums[SMALL][1] = {}, squares[SMALL][1] = {};
        T mean[SMALL], scale[SMALL];
        blocks([&](int64_t begin, const Block& b) {
            const T* x = in0_p + begin;
            tally<T>(b, sums, [=](int64_t i, int64_t j, auto& parts) { parts[0][j] += x[i]; });
        });
        for (int64_t c = 0; c < many; c++) mean[c] = sums[c][0] / count;
        blocks([&](int64_t begin, const Block& b) {
            const T* x = in0_p + begin;
            const Spread<T> level(b, mean);
            tally<T>(b, squares, [&](int64_t i, int64_t j, auto& parts) {
                const T distance = x[i] - level[j];
                parts[0][j] += distance * distance;
            });
        });
        for (int64_t c = 0; c < many; c++) {
            const double variance = squares[c][0] / count;
            scale[c] = in1_p[first + c] / std::sqrt((T)variance + eps);
            out1_p[first + c] = mean[c];
            out2_p[first + c] = variance;
            out3_p[first + c] = in3_p[first + c] + momentum * (mean[c] - in3_p[first + c]);
            out4_p[first + c] = in4_p[first + c] + momentum * (variance * count / (count - 1) - in4_p[first + c]);
        }
        blocks([&](int64_t begin, const Block& b) {
            const T* x = in0_p + begin;
            const Spread<T> level(b, mean), slope(b, scale), shift(b, in2_p + first);
            write(b, out0_p + begin, [&](int64_t i, int64_t j) {
                const T y = (x[i] - level[j]) * slope[j] + shift[j];
                return RECTIFIED;
            });
        });
    }
"""
_BACKWARD = _EPS + CHANNELS + """
        double sums[SMALL][2] = {};
        T means[SMALL], scales[SMALL], levels[SMALL], slopes[SMALL];
        for (int64_t c = 0; c < many; c++) {
            means[c] = in2_p[first + c];
            scales[c] = in4_p[first + c] / std::sqrt(in3_p[first + c] + eps);
        }
        blocks([&](int64_t begin, const Block& b) {
            const T *x = in0_p + begin, *g = in1_p + begin;
            const Spread<T> mean(b, means), scale(b, scales), shift(b, in5_p + first);
            tally<T>(b, sums, [&](int64_t i, int64_t j, auto& parts) {
                const T distance = x[i] - mean[j], y = distance * scale[j] + shift[j], all = g[i], d = LINEAR ? all : 0;
                parts[0][j] += d;
                parts[1][j] += d * distance;
            });
        });
        for (int64_t c = 0; c < many; c++) {
            const double inverse = 1 / std::sqrt(in3_p[first + c] + eps), weight = sums[c][1] * inverse;
            out1_p[first + c] = weight;
            out2_p[first + c] = sums[c][0];
            levels[c] = sums[c][0] / count;
            slopes[c] = weight * inverse / count;
        }
        blocks([&](int64_t begin, const Block& b) {
            const T *x = in0_p + begin, *g = in1_p + begin;
            const Spread<T> mean(b, means), scale(b, scales), shift(b, in5_p + first), level(b, levels), slope(b, slopes);
            write(b, out0_p + begin, [&](int64_t i, int64_t j) {
                const T distance = x[i] - mean[j], y = distance * scale[j] + shift[j], all = g[i], d = LINEAR ? all : 0;
                return (d - level[j] - distance * slope[j]) * scale[j];
            });
        });
    }
"""


class Rectifier(NamedTuple):
    """What becomes of an output y, where that is linear, both in C++, and its maximum."""
    output: str
    linear: str
    most: float


PLAIN = Rectifier("y", "true", math.inf)
RELU = Rectifier("rectified(y, std::numeric_limits<T>::infinity())", "y > 0", math.inf)
RELU6 = Rectifier("rectified(y, (T)6)", "(y > 0) & (y < 6)", 6)


class BatchNorm(jt.Function):
    """Batch normalisation of x [N, C, H, W] with the statistics of its batch (Ioffe and Szegedy 2015,
    arXiv:1502.03167, algorithm 1, and the gradients of section 3): float32 or float64, on a CPU.

    The variance is the mean of squared distances from the mean, in a second pass.

    Attributes:
        running: ([C], [C]), the running mean and the (unbiased) running variance after this batch.
    """

    def __init__(self, eps: float, momentum: float, rectifier=PLAIN):
        self.options, self.rectifier = {"eps": float(eps), "momentum": float(momentum)}, rectifier

    def execute(self, x, weight, bias, mean, variance):
        dtypes = [x.dtype] * 3 + [mean.dtype, variance.dtype]
        y, self.mean, self.variance, *self.running = self._code(
            _FORWARD, [x.shape, *[weight.shape] * 4], dtypes, x, weight, bias, mean, variance)
        self.inputs = x, weight, bias
        return y

    def grad(self, g):
        x, weight, bias = self.inputs
        shapes = [x.shape, weight.shape, bias.shape]
        return (*self._code(_BACKWARD, shapes, [x.dtype] * 3, x, like(x, g), self.mean, self.variance, weight, bias),
                None, None)

    def _code(self, source, shapes, dtypes, *inputs):
        return jt.code(shapes, dtypes, list(inputs), cpu_header=_HEADER, data=self.options, cpu_src=filled(
            source, RECTIFIED=self.rectifier.output, LINEAR=self.rectifier.linear))


_made = weakref.WeakValueDictionary()  # the BatchNorm that made a Var, by its number, as long as that can have a gradient


def normalised(x, weight, bias, running, eps: float, momentum: float):
    """`BatchNorm` of x, which also updates the Vars `running`."""
    norm = BatchNorm(eps, momentum)
    norm.former, norm.used = [v.detach() for v in running], (x, weight, bias, *running)
    y = norm(x, weight, bias, *norm.former)
    _put(norm, running, norm.running)
    _made[y.id] = norm
    return y


def rectified(y, rectifier):
    """`rectifier` of a y that `normalised` has made, both in one operation; None for another Var, or where what it was
    made from has changed since. Jittor computes what is asked for, so y itself only where it is used otherwise."""
    norm = _made.get(y.id)
    if norm is None or y.is_stop_grad() or norm.numbers != [v.id for v in norm.used]:
        return None
    *arguments, mean, variance = norm.used
    both = BatchNorm(**norm.options, rectifier=rectifier)
    z = both(*arguments, *norm.former)
    _put(norm, (mean, variance), both.running)
    norm.mean, norm.variance = both.mean, both.variance  # else these would be computed twice
    return z


def _put(norm: BatchNorm, running, values) -> None:
    for v, value in zip(running, values):
        v.update(value)
    norm.numbers = [v.id for v in norm.used]  # which an update changes
