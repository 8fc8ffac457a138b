"""Compiled operations of our own for a CPU, where those that Jittor generates lose time and digits."""
from __future__ import annotations

import jittor as jt

from . import onednn
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


def _defined(names, values) -> str:
    """Lines that define these names for a compiler."""
    return "".join(f"#define {name} {value}\n" for name, value in zip(names, values))


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
        defined = _defined(("KH", "KW", "STEP_H", "STEP_W", "PAD_H", "PAD_W"),
                           (*weight.shape[2:], *self.stride, *self.padding))
        return jt.code(shapes, [x.dtype] * len(shapes), [x, weight, *others],
                       cpu_header=f"#include <algorithm>\n#include <vector>\n{defined}", cpu_src=source)


# Jittor's oneDNN brings an image's channels into blocks and back at each call, which takes as long as the products.
_SGEMM = """
#include <algorithm>
#include <cstdint>
#include <vector>
#include <omp.h>
extern "C" int dnnl_sgemm(char, char, int64_t, int64_t, int64_t, float, const float*, int64_t, const float*, int64_t,
                          float, float*, int64_t);
"""
_POINTWISE = """
    const int64_t images = in0_shape0, c = in0_shape1, pixels = in0_shape2 * in0_shape3, k = in1_shape0;
"""
_PRODUCT = _POINTWISE + """
    #pragma omp parallel for if (images > 1)
    for (int64_t n = 0; n < images; n++)
        dnnl_sgemm('N', 'N', k, pixels, c, 1, in1_p, c, in0_p + n * c * pixels, pixels, 0, out0_p + n * k * pixels, pixels);
"""
_PRODUCT_BACKWARD = _POINTWISE + """
    std::vector<std::vector<float>> sums(omp_get_max_threads());
    #pragma omp parallel if (images > 1)
    {
        auto& sum = sums[omp_get_thread_num()];
        #pragma omp for schedule(static)
        for (int64_t n = 0; n < images; n++) {
            const float *x = in0_p + n * c * pixels, *g = in2_p + n * k * pixels;
            const float added = !sum.empty();
            sum.resize(k * c);
            dnnl_sgemm('T', 'N', c, pixels, k, 1, in1_p, c, g, pixels, 0, out0_p + n * c * pixels, pixels);
            dnnl_sgemm('N', 'T', k, c, pixels, 1, g, pixels, x, pixels, added, sum.data(), c);
        }
    }
    std::fill(out1_p, out1_p + k * c, 0);
    for (auto& sum : sums)
        for (size_t i = 0; i < sum.size(); i++) out1_p[i] += sum[i];
"""


class Pointwise(jt.Function):
    """Convolution of x [N, C, H, W] with weight [K, C, 1, 1], float32, on a CPU: a product of matrices for each image,
    by the oneDNN that Jittor has."""

    def execute(self, x, weight):
        self.inputs = x, weight
        return self._code(_PRODUCT, [[x.shape[0], weight.shape[0], *x.shape[2:]]])[0]

    def grad(self, g):
        return self._code(_PRODUCT_BACKWARD, [v.shape for v in self.inputs], like(self.inputs[0], g))

    def _code(self, source, shapes, *others):
        with jt.flag_scope(compile_options={f"FLAGS: {onednn.linker_options()} ": 1}):
            return jt.code(shapes, ["float32"] * len(shapes), [*self.inputs, *others], cpu_header=_SGEMM, cpu_src=source)


_BETWEEN = """
    const int64_t count = in0->num;
    #pragma omp parallel for simd if (parallel: count > 32768)
    for (int64_t i = 0; i < count; i++) out0_p[i] = in0_p[i] > 0 && in0_p[i] < MOST ? in1_p[i] : 0;
"""


class Rectified(jt.Function):
    """`function` of a Var, ReLU or ReLU6, with its gradient: 0 where the output is not between 0 and `most`. What Jittor
    generates for that takes a condition of one byte an element, which does not vectorise."""

    def __init__(self, function, most: float):
        self.function, self.most = function, most

    def execute(self, x):
        self.y = self.function(x)
        return self.y

    def grad(self, g):
        return jt.code(self.y.shape, self.y.dtype, [self.y, like(self.y, g)], cpu_src=filled(_BETWEEN, MOST=self.most))


# A plane is copied into as many pixels as the windows cover, so that all of these are whole. The place of a window's
# maximum, its first one, is kept as the number of that pixel in the window.
_WINDOWS = """
    const int64_t planes = in0_shape0 * in0_shape1, height = in0_shape2, width = in0_shape3;
    const int64_t down = DOWN, across = ACROSS, tall = (down - 1) * STEP_H + KH, wide = (across - 1) * STEP_W + KW;
"""
_LARGEST = _WINDOWS + """
    const in0_type least = std::numeric_limits<in0_type>::lowest();
    #pragma omp parallel
    {
        std::vector<in0_type> pixels(tall * wide, least);
        #pragma omp for
        for (int64_t plane = 0; plane < planes; plane++) {
            for (int64_t r = 0; r < std::min(height, tall - PAD_H); r++) {
                const in0_type* row = in0_p + (plane * height + r) * width;
                std::copy(row, row + std::min(width, wide - PAD_W), &pixels[(r + PAD_H) * wide + PAD_W]);
            }
            for (int64_t r = 0; r < down; r++) {
                in0_type* y = out0_p + (plane * down + r) * across;
                int32_t* found = out1_p + (plane * down + r) * across;
                const int64_t top = std::max<int64_t>(0, PAD_H - r * STEP_H);
                for (int64_t c = 0; c < across; c++) {
                    y[c] = least;
                    found[c] = top * KW + std::max<int64_t>(0, PAD_W - c * STEP_W);
                }
                for (int tap = 0; tap < KH * KW; tap++) {
                    const in0_type* x = &pixels[(r * STEP_H + tap / KW) * wide + tap % KW];
                    #pragma omp simd
                    for (int64_t c = 0; c < across; c++) {
                        const in0_type value = x[c * STEP_W];
                        const bool larger = value > y[c];
                        y[c] = larger ? value : y[c];
                        found[c] = larger ? tap : found[c];
                    }
                }
            }
        }
    }
"""
_LARGEST_BACKWARD = _WINDOWS + """
    #pragma omp parallel for
    for (int64_t plane = 0; plane < planes; plane++) {
        in0_type* d = out0_p + plane * height * width;
        std::fill(d, d + height * width, 0);
        for (int64_t r = 0; r < down; r++)
            for (int64_t c = 0; c < across; c++) {
                const int64_t i = (plane * down + r) * across + c;
                const int tap = in2_p[i];
                d[(r * STEP_H + tap / KW - PAD_H) * width + c * STEP_W + tap % KW - PAD_W] += in1_p[i];
            }
    }
"""


class MaxPool(jt.Function):
    """Maxima of x [N, C, H, W] over windows, `size` of them down and across, as torch's: on a CPU."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], size: tuple[int, int]):
        names = ("KH", "KW", "STEP_H", "STEP_W", "PAD_H", "PAD_W", "DOWN", "ACROSS")
        self.defined = _defined(names, (*kernel, *stride, *padding, *size))
        self.size = size

    def execute(self, x):
        self.x, shape = x, [*x.shape[:2], *self.size]
        y, self.found = self._code(_LARGEST, [shape, shape], [x.dtype, "int32"], x)
        return y

    def grad(self, g):
        return self._code(_LARGEST_BACKWARD, [self.x.shape], [self.x.dtype], self.x, like(self.x, g), self.found)[0]

    def _code(self, source, shapes, dtypes, *inputs):
        return jt.code(shapes, dtypes, list(inputs), cpu_src=source,
                       cpu_header=f"#include <algorithm>\n#include <limits>\n#include <vector>\n{self.defined}")
