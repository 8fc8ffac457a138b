"""Convolutions and linear layers as products of matrices, on a CPU: those for which what Jittor has oneDNN 2.2 do takes
longer, which brings an image's channels into blocks and back at each call (docs/benchmark.md)."""
from __future__ import annotations

import math

import jittor as jt

from . import onednn
from .arithmetic import convolved, like
from .bias import gradients
from .epilogue import After
from .source import linked, vector_bytes

_SGEMM = """
#include <algorithm>
#include <cstdint>
#include <vector>
#include <omp.h>
#define COLUMNS 256
extern "C" int dnnl_sgemm(char, char, int64_t, int64_t, int64_t, float, const float*, int64_t, const float*, int64_t,
                          float, float*, int64_t);
"""
# Images are products of the weights, [K, terms], with columns: what each output's window holds, in `columns`. A kernel of
# 1x1 finds these in the image itself. Else so many images at a time, or rows of one, as make some hundred columns.
_COLUMNS = """
    const int64_t images = in0_shape0, c = in0_shape1, k = in1_shape0, kh = in1_shape2, kw = in1_shape3;
    const int64_t step_h = data["step_h"], step_w = data["step_w"], pad_h = data["pad_h"], pad_w = data["pad_w"];
    const bool plain = kh * kw * step_h * step_w == 1 && pad_h + pad_w == 0;  // then an image is one row
    const int64_t height = plain ? 1 : in0_shape2, width = plain ? in0_shape2 * in0_shape3 : in0_shape3;
    const int64_t down = (height + 2 * pad_h - kh) / step_h + 1, across = (width + 2 * pad_w - kw) / step_w + 1;
    const int64_t size = height * width, pixels = down * across, terms = c * kh * kw;
    const int64_t wanted = kh * kw == 1 && pixels >= data["enough"] ? 16 : COLUMNS, threads = omp_get_max_threads();
    const int64_t most = (wanted + pixels - 1) / pixels;
    const int64_t units = std::max<int64_t>(1, (images + most * threads - 1) / (most * threads)) * threads;
    const int64_t group = std::max<int64_t>(1, (images + units - 1) / units);  // as many groups for each thread
    const int64_t groups = (images + group - 1) / group;
    const bool itself = plain && group == 1;
    const int64_t rows = itself || group > 1 ? down : (COLUMNS + across - 1) / across;

    // Calls `run` with the outputs of a row of a window, their places in a row of the image, and how many meet it.
    auto each = [=](int64_t first, int64_t count, int64_t start, int64_t stop, auto&& run) {
        int64_t to = 0;
        for (int64_t channel = 0; channel < c; channel++)
            for (int64_t i = 0; i < kh; i++)
                for (int64_t j = -pad_w; j < kw - pad_w; j++) {
                    const int64_t begin = j < 0 ? (step_w - 1 - j) / step_w : 0;
                    const int64_t end = std::max(begin, std::min(across, (width - j + step_w - 1) / step_w));
                    for (int64_t n = first; n < first + count; n++) {
                        const int64_t plane = (n * c + channel) * size + j;
                        for (int64_t y = start * step_h + i - pad_h; y < stop * step_h + i - pad_h; y += step_h) {
                            const bool within = y >= 0 && y < height;
                            run(to, plane + y * width, within ? begin : across, within ? end : across);
                            to += across;
                        }
                    }
                }
    };
    auto gather = [=](int64_t first, int64_t count, int64_t start, int64_t stop, std::vector<float>& columns) {
        columns.resize(terms * count * (stop - start) * across);
        each(first, count, start, stop, [&](int64_t to, int64_t from, int64_t begin, int64_t end) {
            for (int64_t q = 0; q < begin; q++) columns[to + q] = 0;
            if (step_w == 1) for (int64_t q = begin; q < end; q++) columns[to + q] = in0_p[from + q];
            else for (int64_t q = begin; q < end; q++) columns[to + q] = in0_p[from + q * step_w];
            for (int64_t q = end; q < across; q++) columns[to + q] = 0;
        });
    };
"""
_PRODUCT = _COLUMNS + """
    const auto after = AFTER;
    #pragma omp parallel if (groups > 1)
    {
        std::vector<float> columns, outputs;
        #pragma omp for schedule(static)
        for (int64_t unit = 0; unit < groups; unit++) {
            const int64_t first = unit * group, count = std::min(group, images - first);
            float* y = out0_p + first * k * pixels;
            for (int64_t start = 0; start < down; start += rows) {
                const int64_t many = std::min(rows, down - start) * across, all = count * many;
                const float* x = in0_p + first * c * size + start * across;
                if (!itself) {
                    gather(first, count, start, start + many / across, columns);
                    x = columns.data();
                }
                if (count > 1) outputs.resize(k * all);
                const int64_t pitch = count > 1 ? all : pixels;
                float* to = count > 1 ? outputs.data() : y + start * across;
                dnnl_sgemm('N', 'N', k, all, terms, 1, in1_p, terms, x, itself ? pixels : all, 0, to, pitch);
                for (int64_t i = 0; i < k; i++) after(i, to + i * pitch, all);
                if (count > 1)
                    for (int64_t n = 0; n < count; n++)
                        for (int64_t i = 0; i < k; i++)
                            std::copy_n(&outputs[i * all + n * many], many, y + (n * k + i) * pixels);
            }
        }
    }
"""
_PRODUCT_BACKWARD = _COLUMNS + """
    std::vector<std::vector<float>> sums(omp_get_max_threads());
    #pragma omp parallel if (groups > 1)
    {
        auto& sum = sums[omp_get_thread_num()];
        std::vector<float> columns, parts, gradients;
        #pragma omp for schedule(static)
        for (int64_t unit = 0; unit < groups; unit++) {
            const int64_t first = unit * group, count = std::min(group, images - first);
            float* d = out0_p + first * c * size;
            if (!itself) std::fill_n(d, count * c * size, 0);
            for (int64_t start = 0; start < down; start += rows) {
                const int64_t many = std::min(rows, down - start) * across, all = count * many;
                const float *x = in0_p + first * c * size + start * across, *g = in2_p + first * k * pixels + start * across;
                if (!itself) {
                    gather(first, count, start, start + many / across, columns);
                    x = columns.data();
                    parts.resize(columns.size());
                }
                if (count > 1) {
                    gradients.resize(k * all);
                    for (int64_t n = 0; n < count; n++)
                        for (int64_t i = 0; i < k; i++)
                            std::copy_n(g + (n * k + i) * pixels, many, &gradients[i * all + n * many]);
                    g = gradients.data();
                }
                const int64_t pitch = itself ? pixels : all, step = count > 1 ? all : pixels;
                const float added = !sum.empty();
                sum.resize(k * terms);
                dnnl_sgemm('N', 'T', k, terms, all, 1, g, step, x, pitch, added, sum.data(), terms);
                dnnl_sgemm('T', 'N', terms, all, k, 1, in1_p, terms, g, step, 0,
                           itself ? d + start * across : parts.data(), pitch);
                if (!itself)
                    each(first, count, start, start + many / across,
                         [&](int64_t from, int64_t to, int64_t begin, int64_t end) {
                        for (int64_t q = begin; q < end; q++) out0_p[to + q * step_w] += parts[from + q];
                    });
            }
        }
    }
    #pragma omp parallel for if (parallel: k * terms > 32768)
    for (int64_t i = 0; i < k * terms; i++) {
        float total = 0;
        for (auto& sum : sums)
            if (!sum.empty()) total += sum[i];
        out1_p[i] = total;
    }
"""
# The weight as the left factor, whose product is then transposed.
_LINEAR = """
    const int64_t n = in0_shape0, c = in0_shape1, k = in1_shape0;
    std::vector<float> product(k * n);
    dnnl_sgemm('N', 'T', k, n, c, 1, in1_p, c, in0_p, c, 0, product.data(), n);
    #pragma omp parallel for
    for (int64_t row = 0; row < n; row++)
        for (int64_t i = 0; i < k; i++) out0_p[row * k + i] = product[i * n + row];
"""
_OF_ROWS = """
    dnnl_sgemm('N', 'N', in0_shape0, in1_shape1, in0_shape1, 1, in0_p, in0_shape1, in1_p, in1_shape1, 0, out0_p, in1_shape1);
"""
_OF_WEIGHT = """
    dnnl_sgemm('T', 'N', in0_shape1, in1_shape1, in0_shape0, 1, in0_p, in0_shape1, in1_p, in1_shape1, 0, out0_p, in1_shape1);
"""


def linear_pays(x: jt.Var, weight: jt.Var) -> bool:
    """Whether `Linear` takes less time than the oneDNN 2.2 of Jittor's own for x by the transposed weight."""
    return (x.ndim == 2 and 16 <= x.shape[0] <= 256 and min(weight.shape) >= 512 and vector_bytes() == 64
            and _by_onednn(x, weight))


def pays(x: jt.Var, weight: jt.Var, stride: tuple[int, int], padding: tuple[int, int]) -> bool:
    """Whether `Product` takes less time than oneDNN 2.2 and, for 3x3, `winograd` (docs/benchmark.md)."""
    if not _by_onednn(x, weight):
        return False
    kernel, sides = weight.shape[2:], x.shape[2:]
    outputs = math.prod(convolved(sides, kernel, stride, padding))
    short = vector_bytes() == 32  # with longer vectors larger products gain more, and so does oneDNN
    if tuple(kernel) == (1, 1):
        few = outputs < _enough()  # then products are of several images, whose gradients want many columns
        own = not few or outputs > 1 and (jt.flags.no_grad or not short and x.shape[0] * outputs >= 1024)
        return own and padding == (0, 0)
    if stride != (1, 1):
        return outputs <= (64 if short else 4)
    # An image smaller than the kernel's reach: its outermost taps meet padding only.
    met = math.prod(min(k, 2 * (p + side) - k) for k, p, side in zip(kernel, padding, sides))
    return outputs < 16 and (2 * met <= math.prod(kernel) or short and tuple(kernel) != (3, 3))


def _enough() -> int:
    """As many pixels as an image has at least whose product by a 1x1 kernel goes alone."""
    return 16 if vector_bytes() == 32 else 25


def _by_onednn(x: jt.Var, weight: jt.Var) -> bool:
    return x.dtype == weight.dtype == "float32" and jt.flags.enable_tuner and bool(onednn.linker_options())


def _code(source, shapes, *inputs, **data):
    with linked(onednn.linker_options()):
        return jt.code(shapes, ["float32"] * len(shapes), list(inputs), cpu_header=_SGEMM, cpu_src=source, data=data)


class Linear(jt.Function):
    """x [N, C] by the transposed weight, [K, C]: float32, on a CPU."""

    def execute(self, x, weight):
        self.inputs = x, weight
        return _code(_LINEAR, [[x.shape[0], weight.shape[0]]], x, weight)[0]

    def grad(self, g):
        x, weight = self.inputs
        g = like(x, g)
        return _code(_OF_ROWS, [x.shape], g, weight)[0], _code(_OF_WEIGHT, [weight.shape], g, x)[0]


class Product(jt.Function):
    """Convolution of x [N, C, H, W] with weight [K, C, KH, KW] and bias [K] or None, without groups or dilation: float32, on
    a CPU. Products of matrices, for each image or some at a time, by the oneDNN that Jittor has."""
    forward, backward = _PRODUCT, _PRODUCT_BACKWARD

    def __init__(self, stride: tuple[int, int], padding: tuple[int, int]):
        self.stride, self.padding = stride, padding
        values = *stride, *padding, _enough()
        self._data = dict(zip(("step_h", "step_w", "pad_h", "pad_w", "enough"), map(float, values)))

    def execute(self, x, weight, bias=None):
        self.inputs, self.bias = (x, weight), bias
        return self.applied(x, weight, After(shift=bias))

    def grad(self, g):
        g = like(self.inputs[0], g)
        return *_code(self.backward, [v.shape for v in self.inputs], *self.inputs, g, **self._data), \
            *gradients(self.bias, g)

    def applied(self, x, weight, after):
        """The convolution with what is `after` it, without gradients."""
        sides = convolved(x.shape[2:], weight.shape[2:], self.stride, self.padding)
        with linked(onednn.linker_options()):
            return after.code([x.shape[0], weight.shape[0], *sides], self.forward, _SGEMM, [x, weight], self._data)
