"""Convolutions of images so small that each output of a line meets all of its pixels, as products of matrices, on a CPU.

Along such a line a convolution is a fully connected layer. A column of the kernel's 7 rows over images of 3 rows needs
9 products of numbers then; with a column of its window's pixels for each output it is 15, of which 6 are with padding.
"""
from __future__ import annotations

import jittor as jt

from .arithmetic import convolved
from .product import Product

# Of a plane, `inner` pixels are terms of a product: those of the axes along which the kernel reaches. The `rest` of its
# pixels, and the images, are its columns.
_FOLDED = """
    const int64_t images = in0_shape0, c = in0_shape1, k = in1_shape0, kh = in1_shape2, kw = in1_shape3, taps = kh * kw;
    const int64_t step_h = data["step_h"], step_w = data["step_w"], pad_h = data["pad_h"], pad_w = data["pad_w"];
    const int64_t height = in0_shape2, width = in0_shape3;
    const int64_t down = (height + 2 * pad_h - kh) / step_h + 1, across = (width + 2 * pad_w - kw) / step_w + 1;
    const int64_t tall = kh > 1 ? height : 1, wide = kw > 1 ? width : 1, high = kh > 1 ? down : 1, broad = kw > 1 ? across : 1;
    const int64_t inner = tall * wide, outer = high * broad, rest = height * width / inner;
    const int64_t terms = c * inner, rows = k * outer, columns = images * rest;

    // The tap of the kernel by which an output of a line meets a pixel.
    std::vector<int64_t> tap(outer * inner);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++)
            tap[o * inner + i] = (i / wide - o / broad * step_h + (kh > 1 ? pad_h : 0)) * kw
                               + i % wide - o % broad * step_w + (kw > 1 ? pad_w : 0);
    std::vector<float> weights(rows * terms), pixels(terms * columns);
    #pragma omp parallel for
    for (int64_t row = 0; row < rows; row++) {
        const float* w = in1_p + row / outer * c * taps;
        float* to = &weights[row * terms];
        for (int64_t channel = 0; channel < c; channel++)
            for (int64_t i = 0; i < inner; i++) *to++ = w[channel * taps + tap[row % outer * inner + i]];
    }
    // Calls `run` with the places of each number in images and in a matrix.
    auto each = [=](int64_t channels, int64_t folded, auto&& run) {
        const int64_t step = kw > 1 ? 1 : rest, next = kw > 1 ? folded : 1;
        #pragma omp parallel for
        for (int64_t row = 0; row < channels * folded; row++)
            for (int64_t n = 0; n < images; n++)
                for (int64_t j = 0; j < rest; j++)
                    run((n * channels + row / folded) * folded * rest + row % folded * step + j * next,
                        row * columns + n * rest + j);
    };
    each(c, inner, [&](int64_t from, int64_t to) { pixels[to] = in0_p[from]; });
"""
_FORWARD = _FOLDED + """
    const auto after = AFTER;
    std::vector<float> outputs(rows * columns);
    dnnl_sgemm('N', 'N', rows, columns, terms, 1, weights.data(), terms, pixels.data(), columns, 0, outputs.data(), columns);
    #pragma omp parallel for
    for (int64_t i = 0; i < k; i++) after(i, &outputs[i * outer * columns], outer * columns);
    each(k, outer, [&](int64_t to, int64_t from) { out0_p[to] = outputs[from]; });
"""
_BACKWARD = _FOLDED + """
    std::vector<float> gradients(rows * columns), sums(rows * terms);
    each(k, outer, [&](int64_t from, int64_t to) { gradients[to] = in2_p[from]; });
    dnnl_sgemm('N', 'T', rows, terms, columns, 1, gradients.data(), columns, pixels.data(), columns, 0, sums.data(), terms);
    dnnl_sgemm('T', 'N', terms, columns, rows, 1, weights.data(), terms, gradients.data(), columns, 0, pixels.data(), columns);
    each(c, inner, [&](int64_t to, int64_t from) { out0_p[to] = pixels[from]; });
    #pragma omp parallel for
    for (int64_t i = 0; i < k; i++) {
        float* w = out1_p + i * c * taps;
        std::fill_n(w, c * taps, 0);
        for (int64_t o = 0; o < outer; o++)
            for (int64_t channel = 0; channel < c; channel++)
                for (int64_t j = 0; j < inner; j++)
                    w[channel * taps + tap[o * inner + j]] += sums[(i * outer + o) * terms + channel * inner + j];
    }
"""


def fits(x: jt.Var, weight: jt.Var, stride: tuple[int, int], padding: tuple[int, int]) -> bool:
    """Whether each output meets all pixels of its line, along each axis that the kernel reaches along."""
    sides, kernel = x.shape[2:], weight.shape[2:]
    outputs = convolved(sides, kernel, stride, padding)
    axes = [axis for axis in zip(sides, outputs, kernel, stride, padding) if axis[2:] != (1, 1, 0)]
    return all(k > 1 and side + p <= k and (out - 1) * step <= p for side, out, k, step, p in axes) and bool(axes)


class Folded(Product):
    """`Product` where `fits`: a fully connected layer along the axes that the kernel reaches along."""
    forward, backward = _FORWARD, _BACKWARD
