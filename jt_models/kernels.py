"""Compiled operations of our own for a CPU, where those that Jittor generates lose time and digits."""
from __future__ import annotations

import jittor as jt

from .arithmetic import like
from .source import filled

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
        return self._code(_BACKWARD, shapes, x, like(x, g), self.mean, self.variance, weight)

    def _code(self, source, shapes, x, *others):
        return jt.code(shapes, [x.dtype] * 3, [x, *others], cpu_header=_SUM,
                       cpu_src=filled(source, EPS=float(self.eps)))


# A plane is copied into rows with their padding, one after the other, so that what a tap of the kernel meets
# is one run of memory, a vector at a time; the outputs that a stride leaves out are computed and dropped.
# Forward and backward, Jittor's oneDNN takes about four times as long, and a third for 4x4 with stride 2.
_PLANES = """
    const int64_t images = in0_shape0, channels = in0_shape1, height = in0_shape2, width = in0_shape3;
    const int64_t padded = height + 2 * PAD_H, pitch = width + 2 * PAD_W, size = height * width;
    const int64_t down = (padded - KH) / STEP_H + 1, across = (pitch - KW) / STEP_W + 1;
    const int64_t inputs = padded * pitch, outputs = (padded - KH) * pitch + pitch - KW + 1;
    const int64_t last = (KH - 1) * pitch + KW - 1;  // the kernel's last tap
    typedef in0_type Vector __attribute__((vector_size(64), aligned(sizeof(in0_type)), may_alias));
    const int64_t lanes = sizeof(Vector) / sizeof(in0_type);
    auto at = [](in0_type* place) -> Vector& { return *(Vector*)place; };
    int64_t taps[KH * KW];
    for (int64_t tap = 0; tap < KH * KW; tap++) taps[tap] = tap / KW * pitch + tap % KW;
    auto pad = [=](in0_type* rows, const in0_type* x) {
        for (int64_t r = 0; r < height; r++)
            std::copy(x + r * width, x + (r + 1) * width, rows + (r + PAD_H) * pitch + PAD_W);
    };
"""
_DEPTHWISE = _PLANES + """
    #pragma omp parallel
    {
        std::vector<in0_type> rows(inputs + lanes), found(outputs + lanes);
        #pragma omp for
        for (int64_t plane = 0; plane < images * channels; plane++) {
            const in0_type* w = in1_p + plane % channels * KH * KW;
            out0_type* y = out0_p + plane * down * across;
            pad(rows.data(), in0_p + plane * size);
            for (int64_t k = 0; k < outputs; k += lanes) {
                Vector sum = {};
                for (int64_t tap = 0; tap < KH * KW; tap++) sum += w[tap] * at(&rows[k + taps[tap]]);
                at(&found[k]) = sum;
            }
            for (int64_t r = 0; r < down; r++)
                for (int64_t c = 0; c < across; c++) *y++ = found[r * STEP_H * pitch + c * STEP_W];
        }
    }
"""
_DEPTHWISE_BACKWARD = _PLANES + """
    #pragma omp parallel
    {
        // The gradient, in the rows of its plane, follows as many zeros as a tap may reach back.
        std::vector<in0_type> rows(inputs + lanes), found(inputs + lanes), spread(last + inputs + lanes);
        #pragma omp for
        for (int64_t channel = 0; channel < channels; channel++) {
            const in0_type* w = in1_p + channel * KH * KW;
            double sums[KH * KW] = {};
            for (int64_t plane = channel; plane < images * channels; plane += channels) {
                const in0_type* g = in2_p + plane * down * across;
                out0_type* d = out0_p + plane * size;
                pad(rows.data(), in0_p + plane * size);
                for (int64_t r = 0; r < down; r++)
                    for (int64_t c = 0; c < across; c++)
                        spread[last + r * STEP_H * pitch + c * STEP_W] = *g++;
                for (int64_t tap = 0; tap < KH * KW; tap++) {
                    Vector sum = {};
                    for (int64_t k = 0; k < outputs; k += lanes)
                        sum += at(&spread[last + k]) * at(&rows[k + taps[tap]]);
                    in0_type part = 0;
                    for (int64_t lane = 0; lane < lanes; lane++) part += sum[lane];
                    sums[tap] += part;
                }
                for (int64_t k = 0; k < inputs; k += lanes) {
                    Vector sum = {};
                    for (int64_t tap = 0; tap < KH * KW; tap++)
                        sum += w[tap] * at(&spread[last + k - taps[tap]]);
                    at(&found[k]) = sum;
                }
                for (int64_t r = 0; r < height; r++) {
                    const in0_type* row = &found[(r + PAD_H) * pitch + PAD_W];
                    std::copy(row, row + width, d + r * width);
                }
            }
            std::copy(sums, sums + KH * KW, out1_p + channel * KH * KW);
        }
    }
"""


class Depthwise(jt.Function):
    """Convolution of each channel of x [N, C, H, W] with its own kernel, of weight [C, 1, KH, KW], as torch's
    with groups=C and dilation 1: float32 or float64, on a CPU."""

    def __init__(self, stride: tuple[int, int], padding: tuple[int, int]):
        self.stride, self.padding = stride, padding

    def execute(self, x, weight):
        self.inputs = x, weight
        n, c, *sides = x.shape
        out = [(side + 2 * p - k) // s + 1
               for side, p, k, s in zip(sides, self.padding, weight.shape[2:], self.stride)]
        return self._code(_DEPTHWISE, [[n, c, *out]])[0]

    def grad(self, g):
        return self._code(_DEPTHWISE_BACKWARD, [v.shape for v in self.inputs], like(self.inputs[0], g))

    def _code(self, source, shapes, *others):
        x, weight = self.inputs
        names = ("KH", "KW", "STEP_H", "STEP_W", "PAD_H", "PAD_W")
        values = (*weight.shape[2:], *self.stride, *self.padding)
        defined = "".join(f"#define {name} {value}\n" for name, value in zip(names, values))
        return jt.code(shapes, [x.dtype] * len(shapes), [x, weight, *others],
                       cpu_header=f"#include <algorithm>\n#include <vector>\n{defined}", cpu_src=source)
