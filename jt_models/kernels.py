"""Compiled operations of our own, for the CPU, where those that Jittor generates lose time and digits."""
from __future__ import annotations

import jittor as jt

# Sums go block by block in the dtype of x (the compiler makes several partial sums of each), and the sums of
# the blocks are added in float64.
_SUM = """
#include <algorithm>
#include <cmath>
template <class T, class Term> static double sum(int64_t images, int64_t stride, int64_t size, Term term) {
    double total = 0;
    for (int64_t start = 0; start < images * stride; start += stride)
        for (int64_t begin = start; begin < start + size; begin += 1024) {
            const int64_t end = std::min(begin + 1024, start + size);
            T part = 0;
            for (int64_t i = begin; i < end; i++) part += term(i);
            total += part;
        }
    return total;
}
"""
_CHANNELS = """
    const int64_t images = in0_shape0, channels = in0_shape1, size = in0_shape2 * in0_shape3;
    const int64_t stride = channels * size;
    const double count = images * size;
    #pragma omp parallel for
    for (int64_t c = 0; c < channels; c++) {
        const in0_type* x = in0_p + c * size;
"""
_FORWARD = _CHANNELS + """
        out0_type* y = out0_p + c * size;
        const in0_type mean = sum<in0_type>(images, stride, size, [=](int64_t i) { return x[i]; }) / count;
        const in0_type variance = sum<in0_type>(images, stride, size, [=](int64_t i) {
            return (x[i] - mean) * (x[i] - mean); }) / count;
        const in0_type scale = in1_p[c] / std::sqrt(variance + (in0_type)EPS), shift = in2_p[c];
        for (int64_t start = 0; start < images * stride; start += stride)
            for (int64_t i = start; i < start + size; i++) y[i] = (x[i] - mean) * scale + shift;
        out1_p[c] = mean;
        out2_p[c] = variance;
    }
"""
_BACKWARD = _CHANNELS + """
        const in0_type* g = in1_p + c * size;
        out0_type* d = out0_p + c * size;
        const in0_type mean = in2_p[c], inverse = 1 / std::sqrt(in3_p[c] + (in0_type)EPS);
        const double bias = sum<in0_type>(images, stride, size, [=](int64_t i) { return g[i]; });
        const double weight = inverse * sum<in0_type>(images, stride, size, [=](int64_t i) {
            return g[i] * (x[i] - mean); });
        const in0_type level = bias / count, slope = weight * inverse / count, scale = in4_p[c] * inverse;
        for (int64_t start = 0; start < images * stride; start += stride)
            for (int64_t i = start; i < start + size; i++)
                d[i] = (g[i] - level - (x[i] - mean) * slope) * scale;
        out1_p[c] = weight;
        out2_p[c] = bias;
    }
"""


class BatchNorm(jt.Function):
    """Batch normalisation of x [N, C, H, W] with the statistics of its batch (Ioffe and Szegedy 2015,
    arXiv:1502.03167, algorithm 1, and the gradients of section 3): float32 or float64, on a CPU.

    The variance is the mean of squared distances from the mean, in a second pass.

    Attributes:
        mean, variance: [C], the latter biased; constants after the call.
    """

    def __init__(self, eps: float):
        self.eps = eps

    def execute(self, x, weight, bias):
        channels = [x.shape[1]]
        y, self.mean, self.variance = self._code(_FORWARD, [x.shape, channels, channels], x, weight, bias)
        self.inputs = x, weight
        return y

    def grad(self, g):
        x, weight = self.inputs
        shapes = [x.shape, weight.shape, weight.shape]
        return self._code(_BACKWARD, shapes, x, g, self.mean, self.variance, weight)

    def _code(self, source, shapes, x, *others):
        return jt.code(shapes, [x.dtype] * 3, [x, *others], cpu_header=_SUM,
                       cpu_src=source.replace("EPS", repr(float(self.eps))))
