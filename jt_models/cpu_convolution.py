"""Convolutions on a CPU for which Jittor's oneDNN 2.2 takes longer than what is here."""
from __future__ import annotations

import jittor as jt

from . import onednn
from .arithmetic import like
from .source import BYTES, linked, sizes

# A plane is copied into rows with their padding, one after the other, so that what a tap of the kernel meets
# is one run of memory, a vector at a time; the outputs that a stride leaves out are computed and dropped.
# Forward and backward, Jittor's oneDNN takes two to eight times as long, and half for 4x4 with stride 2.
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
        defined = sizes(weight.shape[2:], self.stride, self.padding)
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
    const int64_t images = in0_shape0, c = in0_shape1, height = in0_shape2, width = in0_shape3, k = in1_shape0;
    const int64_t step_h = data["stride0"], step_w = data["stride1"];
    const int64_t size = height * width, down = (height - 1) / step_h + 1, across = (width - 1) / step_w + 1;
    const int64_t pixels = down * across;
    const bool all = step_h == 1 && step_w == 1;
    // What a stride takes of an image, in `taken`.
    auto take = [=](const float* x, std::vector<float>& taken) {
        if (all) return x;
        taken.resize(c * pixels);
        float* to = taken.data();
        for (int64_t i = 0; i < c; i++)
            for (int64_t r = 0; r < down; r++)
                for (int64_t j = 0; j < across; j++) *to++ = x[i * size + r * step_h * width + j * step_w];
        return (const float*)taken.data();
    };
"""
_PRODUCT = _POINTWISE + """
    #pragma omp parallel if (images > 1)
    {
        std::vector<float> taken;
        #pragma omp for
        for (int64_t n = 0; n < images; n++)
            dnnl_sgemm('N', 'N', k, pixels, c, 1, in1_p, c, take(in0_p + n * c * size, taken), pixels, 0,
                       out0_p + n * k * pixels, pixels);
    }
"""
_PRODUCT_BACKWARD = _POINTWISE + """
    std::vector<std::vector<float>> sums(omp_get_max_threads());
    #pragma omp parallel if (images > 1)
    {
        auto& sum = sums[omp_get_thread_num()];
        std::vector<float> taken, parts;
        #pragma omp for schedule(static)
        for (int64_t n = 0; n < images; n++) {
            const float *x = take(in0_p + n * c * size, taken), *g = in2_p + n * k * pixels;
            const float added = !sum.empty();
            sum.resize(k * c);
            dnnl_sgemm('N', 'T', k, c, pixels, 1, g, pixels, x, pixels, added, sum.data(), c);
            float* d = out0_p + n * c * size;
            if (!all) parts.resize(c * pixels);
            float* part = all ? d : parts.data();
            dnnl_sgemm('T', 'N', c, pixels, k, 1, in1_p, c, g, pixels, 0, part, pixels);
            if (all) continue;
            std::fill(d, d + c * size, 0);
            for (int64_t i = 0; i < c; i++)
                for (int64_t r = 0; r < down; r++)
                    for (int64_t j = 0; j < across; j++) d[i * size + r * step_h * width + j * step_w] = *part++;
        }
    }
    std::fill(out1_p, out1_p + k * c, 0);
    for (auto& sum : sums)
        for (size_t i = 0; i < sum.size(); i++) out1_p[i] += sum[i];
"""


class Pointwise(jt.Function):
    """Convolution of x [N, C, H, W] with weight [K, C, 1, 1], float32, on a CPU: a product of matrices for each image,
    by the oneDNN that Jittor has."""

    def __init__(self, stride: tuple[int, int]):
        self.stride = stride

    def execute(self, x, weight):
        self.inputs = x, weight
        sides = [-(-side // step) for side, step in zip(x.shape[2:], self.stride)]
        return self._code(_PRODUCT, [[x.shape[0], weight.shape[0], *sides]])[0]

    def grad(self, g):
        return self._code(_PRODUCT_BACKWARD, [v.shape for v in self.inputs], like(self.inputs[0], g))

    def _code(self, source, shapes, *others):
        with linked(onednn.linker_options()):
            return jt.code(shapes, ["float32"] * len(shapes), [*self.inputs, *others], cpu_header=_SGEMM, cpu_src=source,
                           data={f"stride{i}": float(step) for i, step in enumerate(self.stride)})
