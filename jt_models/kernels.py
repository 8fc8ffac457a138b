"""Compiled operations of our own for a CPU, where those that Jittor generates lose time and digits."""
from __future__ import annotations

import jittor as jt

from .arithmetic import like
from .source import filled, sizes

_GRADIENT = """
    const int64_t count = in0->num;
    #pragma omp parallel for simd if (parallel: count > 32768)
    for (int64_t i = 0; i < count; i++) {
        const in0_type y = in0_p[i];
        out0_p[i] = LINEAR ? in1_p[i] : 0;
    }
"""


class Rectified(jt.Function):
    """`function` of a Var, ReLU or ReLU6; its gradient is 0 but where `linear` holds for the output y. What Jittor
    generates for that reads a condition of one byte an element, which does not vectorise."""

    def __init__(self, function, linear: str):
        self.function, self.linear = function, linear

    def execute(self, x):
        self.y = self.function(x)
        return self.y

    def grad(self, g):
        return jt.code(self.y.shape, self.y.dtype, [self.y, like(self.y, g)],
                       cpu_src=filled(_GRADIENT, LINEAR=self.linear))


# A plane is copied into as many pixels as the windows cover, so that all of these are whole.
_WINDOWS = """
    const int64_t planes = in0_shape0 * in0_shape1, height = in0_shape2, width = in0_shape3;
    const int64_t down = RESULT_shape2, across = RESULT_shape3;
    const int64_t tall = (down - 1) * STEP_H + KH, wide = (across - 1) * STEP_W + KW;
"""
_COPIED = """
            for (int64_t r = 0; r < std::min(height, tall - PAD_H); r++) {
                const in0_type* row = in0_p + (plane * height + r) * width;
                std::copy(row, row + std::min(width, wide - PAD_W), &pixels[(r + PAD_H) * wide + PAD_W]);
            }
"""
# The place of a window's maximum, its first one, is kept for a gradient as the number of that pixel in the window.
_LARGEST = filled(_WINDOWS, RESULT="out0") + """
    const in0_type least = std::numeric_limits<in0_type>::lowest();
    auto* const places = KEPT;
    #pragma omp parallel
    {
        std::vector<in0_type> pixels(tall * wide, least);
        std::vector<int> found(across);
        #pragma omp for
        for (int64_t plane = 0; plane < planes; plane++) {
""" + _COPIED + """
            for (int64_t r = 0; r < down; r++) {
                in0_type* y = out0_p + (plane * down + r) * across;
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
                        if (places) found[c] = larger ? tap : found[c];
                    }
                }
                if (places) std::copy(found.begin(), found.end(), places + (plane * down + r) * across);
            }
        }
    }
"""
_LARGEST_BACKWARD = filled(_WINDOWS, RESULT="in1") + """
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
# Sums begin at every pixel, since then a vector of them is one run of memory; those that a stride leaves out are dropped.
_SUMS = filled(_WINDOWS, RESULT="out0") + """
    const int64_t places = (tall - KH) * wide + wide - KW + 1;
    #pragma omp parallel
    {
        std::vector<in0_type> pixels(tall * wide), sums(places);
        #pragma omp for
        for (int64_t plane = 0; plane < planes; plane++) {
""" + _COPIED + """
            #pragma omp simd
            for (int64_t k = 0; k < places; k++) {
                in0_type sum = 0;
                for (int i = 0; i < KH; i++)
                    for (int j = 0; j < KW; j++) sum += pixels[k + i * wide + j];
                sums[k] = sum;
            }
            in0_type* y = out0_p + plane * down * across;
            for (int64_t r = 0; r < down; r++)
                for (int64_t c = 0; c < across; c++) *y++ = sums[r * STEP_H * wide + c * STEP_W];
        }
    }
"""
_SUMS_BACKWARD = filled(_WINDOWS, RESULT="in1") + """
    const int64_t last = (KH - 1) * wide + KW - 1;
    #pragma omp parallel
    {
        // The gradients, where their windows begin, follow as many zeros as a window reaches back.
        std::vector<in0_type> sums(tall * wide), spread(last + tall * wide);
        #pragma omp for
        for (int64_t plane = 0; plane < planes; plane++) {
            const in0_type* g = in1_p + plane * down * across;
            for (int64_t r = 0; r < down; r++)
                for (int64_t c = 0; c < across; c++) spread[last + r * STEP_H * wide + c * STEP_W] = *g++;
            #pragma omp simd
            for (int64_t k = 0; k < tall * wide; k++) {
                in0_type sum = 0;
                for (int i = 0; i < KH; i++)
                    for (int j = 0; j < KW; j++) sum += spread[last + k - i * wide - j];
                sums[k] = sum;
            }
            for (int64_t r = 0; r < height; r++) {
                in0_type* row = out0_p + (plane * height + r) * width;
                const int64_t covered = r + PAD_H < tall ? std::min(width, wide - PAD_W) : 0;
                if (covered) std::copy_n(&sums[(r + PAD_H) * wide + PAD_W], covered, row);
                std::fill(row + covered, row + width, 0);
            }
        }
    }
"""


class _Windows(jt.Function):
    """Of x [N, C, H, W] over windows, `size` of them down and across, which may reach over the edges: on a CPU."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int],
                 size: tuple[int, int]):
        self.defined = sizes(kernel, stride, padding)
        self.size = size

    def _code(self, source, shapes, dtypes, *inputs):
        return jt.code(shapes, dtypes, list(inputs), cpu_src=source,
                       cpu_header=f"#include <algorithm>\n#include <limits>\n#include <vector>\n{self.defined}")


class MaxPool(_Windows):
    """Maxima over windows, as torch's."""

    def __init__(self, kernel, *others):
        super().__init__(kernel, *others)
        self.place = "uint8" if kernel[0] * kernel[1] <= 256 else "int32"

    def execute(self, x):
        self.x, shape = x, [*x.shape[:2], *self.size]
        if jt.flags.no_grad:
            return self._code(filled(_LARGEST, KEPT="(int*)nullptr"), [shape], [x.dtype], x)[0]
        y, self.found = self._code(filled(_LARGEST, KEPT="out1_p"), [shape, shape], [x.dtype, self.place], x)
        return y

    def grad(self, g):
        return self._code(_LARGEST_BACKWARD, [self.x.shape], [self.x.dtype], self.x, like(self.x, g), self.found)[0]


class SumPool(_Windows):
    """Sums over windows, which cost as many additions for each pixel as they have pixels, whatever the stride."""

    def execute(self, x):
        self.x = x
        return self._code(_SUMS, [[*x.shape[:2], *self.size]], [x.dtype], x)[0]

    def grad(self, g):
        return self._code(_SUMS_BACKWARD, [self.x.shape], [self.x.dtype], self.x, like(self.x, g))[0]
