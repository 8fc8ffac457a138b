"""Depthwise convolution on a CPU: Jittor's oneDNN 2.2 takes two to eight times as long forward and backward, and half
as long for 4x4 with stride 2."""
from __future__ import annotations

import jittor as jt

from .arithmetic import convolved, like
from .bias import gradients
from .epilogue import After
from .source import BYTES, sizes

# A plane is copied into rows with their padding, one after the other, so that what a tap of the kernel meets
# is one run of memory, a vector at a time; the outputs that a stride leaves out are computed and dropped.
_PLANES = BYTES + """
    const int64_t images = in0_shape0, channels = in0_shape1, height = in0_shape2, width = in0_shape3;
    const int64_t padded = height + 2 * PAD_H, pitch = width + 2 * PAD_W, size = height * width;
    const int64_t down = (padded - KH) / STEP_H + 1, across = (pitch - KW) / STEP_W + 1;
    const int64_t inputs = padded * pitch, outputs = (padded - KH) * pitch + pitch - KW + 1;
    const int64_t last = (KH - 1) * pitch + KW - 1;  // the kernel's last tap
    typedef in0_type Vector __attribute__((vector_size(BYTES), aligned(sizeof(in0_type)), may_alias));
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
    const auto after = AFTER;
    #pragma omp parallel
    {
        std::vector<in0_type> rows(inputs + lanes), found(outputs + lanes);
        #pragma omp for
        for (int64_t plane = 0; plane < images * channels; plane++) {
            const in0_type* w = in1_p + plane % channels * KH * KW;
            out0_type *start = out0_p + plane * down * across, *y = start;
            pad(rows.data(), in0_p + plane * size);
            for (int64_t k = 0; k < outputs; k += lanes) {
                Vector sum = {};
                for (int64_t tap = 0; tap < KH * KW; tap++) sum += w[tap] * at(&rows[k + taps[tap]]);
                at(&found[k]) = sum;
            }
            for (int64_t r = 0; r < down; r++)
                for (int64_t c = 0; c < across; c++) *y++ = found[r * STEP_H * pitch + c * STEP_W];
            after(plane % channels, start, down * across);
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
            Vector parts[KH * KW] = {};
            int64_t summed = 0;
            for (int64_t plane = channel; plane < images * channels; plane += channels) {
                const in0_type* g = in2_p + plane * down * across;
                out0_type* d = out0_p + plane * size;
                pad(rows.data(), in0_p + plane * size);
                for (int64_t r = 0; r < down; r++)
                    for (int64_t c = 0; c < across; c++)
                        spread[last + r * STEP_H * pitch + c * STEP_W] = *g++;
                for (int64_t k = 0; k < outputs; k += lanes) {
                    const Vector v = at(&spread[last + k]);
                    for (int64_t tap = 0; tap < KH * KW; tap++) parts[tap] += v * at(&rows[k + taps[tap]]);
                }
                summed += outputs;
                if (summed > 1024 || plane + channels >= images * channels) {
                    for (int64_t tap = 0; tap < KH * KW; tap++) {
                        in0_type part = 0;
                        for (int64_t lane = 0; lane < lanes; lane++) part += parts[tap][lane];
                        sums[tap] += part;
                        parts[tap] = Vector{};
                    }
                    summed = 0;
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
    """Convolution of each channel of x [N, C, H, W] with its own kernel, of weight [C, 1, KH, KW], and bias [C] or None, as
    torch's with groups=C and dilation 1: float32 or float64, on a CPU."""

    def __init__(self, stride: tuple[int, int], padding: tuple[int, int]):
        self.stride, self.padding = stride, padding

    def execute(self, x, weight, bias=None):
        self.inputs, self.bias = (x, weight), bias
        return self.applied(x, weight, After(shift=bias))

    def grad(self, g):
        x, weight = self.inputs
        g = like(x, g)
        return *jt.code([x.shape, weight.shape], [x.dtype] * 2, [x, weight, g], cpu_header=self._header(weight),
                        cpu_src=_DEPTHWISE_BACKWARD), *gradients(self.bias, g)

    def applied(self, x, weight, after):
        """The convolution with what is `after` it, without gradients."""
        n, c, *sides = x.shape
        return after.code([n, c, *convolved(sides, weight.shape[2:], self.stride, self.padding)], _DEPTHWISE,
                          self._header(weight), [x, weight], {})

    def _header(self, weight):
        return f"#include <algorithm>\n#include <vector>\n{sizes(weight.shape[2:], self.stride, self.padding)}"
