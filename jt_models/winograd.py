"""3x3 convolution on a CPU by minimal filtering: F(2x2, 3x3) of Lavin and Gray 2015 (arXiv:1509.09308, section 4.1).

2x2 outputs take 16 products for each pair of channels, in place of 36: of a transformed tile of 4x4 pixels with a
transformed kernel. Summed over the channels these are 16 products of matrices, and so is the gradient of the weight,
summed over the tiles.
"""
from __future__ import annotations

import jittor as jt

from .arithmetic import like
from .bias import gradients
from .epilogue import After
from .source import filled
from .tiles import HEADER

_FORWARD = HEADER + """
namespace winograd {
// G g G^T of weight [K, C, 3, 3] to u [16, K / wide, C, wide]; `turned`: of [C, K, 3, 3], turned by half a turn.
inline void weights(const float* weight, int64_t k, int64_t c, bool turned, int64_t wide, float* u, int64_t step) {
    #pragma omp parallel for collapse(2)
    for (int64_t first = 0; first < k; first += wide)
        for (int64_t i = 0; i < c; i++) {
            float g[9][2 * lanes] = {}, t[4][3][2 * lanes];
            for (int64_t o = 0; o < std::min(wide, k - first); o++) {
                const int64_t out = first + o;
                const float* from = weight + (turned ? i * k + out : out * c + i) * 9;
                for (int q = 0; q < 9; q++) g[q][o] = from[turned ? 8 - q : q];
            }
            for (int j = 0; j < 3; j++)
                for (int64_t o = 0; o < wide; o++) {
                    const float ends = g[j][o] + g[6 + j][o];
                    t[0][j][o] = g[j][o];
                    t[1][j][o] = (ends + g[3 + j][o]) / 2;
                    t[2][j][o] = (ends - g[3 + j][o]) / 2;
                    t[3][j][o] = g[6 + j][o];
                }
            float* to = u + first * c + i * wide;
            for (int j = 0; j < 4; j++, to += 4 * step)
                for (int64_t o = 0; o < wide; o++) {
                    const float ends = t[j][0][o] + t[j][2][o];
                    to[o] = t[j][0][o];
                    to[step + o] = (ends + t[j][1][o]) / 2;
                    to[2 * step + o] = (ends - t[j][1][o]) / 2;
                    to[3 * step + o] = t[j][2][o];
                }
        }
}

// A^T m A of m [16, tiles, pitch] to channels from `channel` on, `lanes` of them.
inline void gather(float* m, int64_t step, int64_t pitch, float* y, const Planes& p, int64_t channel, int64_t start,
                   int64_t end, const After<float>& after) {
    const int64_t columns = 2 * p.across * lanes, count = std::min(lanes, p.channels - channel), size = p.height * p.width;
    float* pixels = room(0, 2 * columns + lanes * lanes);
    float times[lanes], added[lanes] = {};
    std::fill_n(times, lanes, 1);
    if (after.scale) std::copy_n(after.scale + channel, count, times);
    if (after.shift) std::copy_n(after.shift + channel, count, added);
    const Vector scale = at(times), shift = at(added);
    auto put = [&](float* to, Vector sum) {
        sum = sum * scale + shift;
        at(to) = after.cut ? rectified<Bits>(sum, after.most) : sum;
    };
    for (int64_t row = start; row < end; row++) {
        const int64_t n = row / p.down, top = row % p.down * 2;
        for (int64_t c = 0; c < p.across; c++, m += pitch) {
            Vector t[2][4];
            for (int j = 0; j < 4; j++) {
                const Vector d[] = {at(m + j * step), at(m + (4 + j) * step), at(m + (8 + j) * step),
                                    at(m + (12 + j) * step)};
                t[0][j] = d[0] + d[1] + d[2];
                t[1][j] = d[1] - d[2] - d[3];
            }
            for (int i = 0; i < 2; i++) {
                put(pixels + i * columns + 2 * c * lanes, t[i][0] + t[i][1] + t[i][2]);
                put(pixels + i * columns + (2 * c + 1) * lanes, t[i][1] - t[i][2] - t[i][3]);
            }
        }
        for (int64_t r = 0; r < std::min<int64_t>(2, p.height - top); r++)
            to_channels(pixels + r * columns, p.width, count,
                        y + (n * p.channels + channel) * size + (top + r) * p.width, size);
    }
}
}
"""
_SHAPES = """
    using namespace winograd;
    const int64_t images = in0_shape0, c = in0_shape1, k = RESULT_shape1, padding = data["padding"];
    const int64_t height = RESULT_shape2, width = RESULT_shape3, down = (height + 1) / 2, across = (width + 1) / 2;
    const Planes source = {images, c, in0_shape2, in0_shape3, padding, down, across};
    const Planes result = {images, k, height, width, 0, down, across};
    const int64_t rows = images * down, threads = omp_get_max_threads();
"""
_CONVOLVE = filled(_SHAPES, RESULT="out0") + """
    const int64_t most = std::max<int64_t>(1, block / across);
    const int64_t turns = up((rows + most - 1) / most, threads), each = (rows + turns - 1) / turns;
    const int64_t wide = panel(k), inner = up(c, lanes), outer = up(k, wide), tiles = up(each * across, tall);
    const int64_t of_u = outer * c + line, of_v = tiles * inner + line, of_m = tiles * outer + line;
    const auto after = AFTER;
    float* u = room(1, 16 * of_u);
    weights(in1_p, k, c, data["turned"], wide, u, of_u);
    #pragma omp parallel
    {
        float *v = room(2, 16 * of_v), *m = room(3, 16 * of_m);
        #pragma omp for schedule(static)  // a thread finds images in its cache that it has written
        for (int64_t start = 0; start < rows; start += each) {
            const int64_t end = std::min(rows, start + each);
            for (int64_t i = 0; i < c; i += lanes) scatter<4>(in0_p, source, i, start, end, v + i, of_v, inner);
            for (int64_t q = 0; q < 16; q++)
                for (int64_t o = 0; o < outer; o += wide)
                    for (int64_t t = 0; t < (end - start) * across; t += tall)
                        multiply<false>(wide, c, v + q * of_v + t * inner, inner, 1, u + q * of_u + o * c, wide,
                                        m + q * of_m + t * outer + o, outer);
            for (int64_t o = 0; o < k; o += lanes) gather(m + o, of_m, outer, out0_p, result, o, start, end, after);
        }
    }
"""
_BACKWARD = HEADER + """
namespace winograd {
// What thread `me` of so many has to do: `each` of its share of `count` items.
template <class Each>
inline void divide(int64_t count, int64_t me, int64_t threads, Each each) {
    for (int64_t item = count * me / threads; item < count * (me + 1) / threads; item++) each(item);
}

// All channels by `scatter`, of rows of tiles, `some` and a line of channels an item.
template <int SIDE>
void share(const float* x, const Planes& p, int64_t start, int64_t end, int64_t some, int64_t me, int64_t threads, float* v,
           int64_t step, int64_t pitch) {
    const int64_t lines = up(p.channels, line) / line;
    divide(up(end - start, some) / some * lines, me, threads, [&](int64_t item) {
        const int64_t row = start + item / lines * some, i = item % lines * line;
        for (int64_t j = i; j < std::min(p.channels, i + line); j += lanes)
            scatter<SIDE>(x, p, j, row, std::min(end, row + some), v + (row - start) * p.across * pitch + j, step, pitch);
    });
}
}
"""
_GRADIENT = filled(_SHAPES, RESULT="in1") + """
    const int64_t wide = panel(c), inner = up(c, wide), outer = up(k, tall), pitch = up(outer, line);
    const int64_t of_u = outer * inner + line;
    // The sums are as large as 16 kernels of all pairs of channels. Where these are few each thread has sums of its own, and
    // the images that it had in a forward pass; else they would not fit its cache, and the threads share blocks and sums.
    const bool apart = of_u <= 16384 + line;
    const int64_t sharing = apart ? 1 : threads, each = up(std::max<int64_t>(1, (apart ? 1 : 2) * block / across), sharing);
    const int64_t some = each / sharing, tiles = each * across, of_v = tiles * inner + line, of_m = tiles * pitch + line;
    auto zeros = [](int which, int64_t size) {  // so are the channels that are none
        float* it = room(which, size);
        std::fill(it, it + size, 0);
        return it;
    };
    std::vector<float*> sums(threads);
    float *v = zeros(2, 16 * of_v), *m = zeros(3, 16 * of_m), *u = sums[0] = zeros(1, 16 * of_u);
    #pragma omp parallel firstprivate(u, v, m)
    {
        const int64_t thread = omp_get_thread_num(), all = omp_get_num_threads();
        if (apart && thread) v = zeros(2, 16 * of_v), m = zeros(3, 16 * of_m), u = sums[thread] = zeros(1, 16 * of_u);
        const int64_t me = apart ? 0 : thread, team = apart ? 1 : all;
        const int64_t first = apart ? rows * thread / all : 0, last = apart ? rows * (thread + 1) / all : rows;
        for (int64_t start = first; start < last; start += each) {
            const int64_t end = std::min(last, start + each);
            share<4>(in0_p, source, start, end, some, me, team, v, of_v, inner);
            share<2>(in1_p, result, start, end, some, me, team, m, of_m, pitch);
            if (!apart) {
                #pragma omp barrier
            }
            const int64_t panels = inner / wide, products = outer / tall;
            divide(16 * panels * products, me, team, [&](int64_t item) {
                const int64_t q = item / (panels * products);
                const int64_t i = item / products % panels * wide, o = item % products * tall;
                multiply<true>(wide, (end - start) * across, m + q * of_m + o, 1, pitch, v + q * of_v + i, inner,
                               u + q * of_u + o * inner + i, inner);
            });
            if (!apart) {
                #pragma omp barrier
            }
        }
    }
    if (apart) {
        #pragma omp parallel for
        for (int64_t i = 0; i < 16 * of_u; i++)
            for (int64_t thread = 1; thread < threads && sums[thread]; thread++) u[i] += sums[thread][i];
    }
    // G^T u G
    #pragma omp parallel for
    for (int64_t o = 0; o < k; o++)
        for (int64_t i = 0; i < c; i++) {
            float t[3][4], *to = out0_p + (o * c + i) * 9;
            for (int j = 0; j < 4; j++) {
                const float* from = u + j * of_u + o * inner + i;
                const float middle = (from[4 * of_u] + from[8 * of_u]) / 2;
                t[0][j] = from[0] + middle;
                t[1][j] = (from[4 * of_u] - from[8 * of_u]) / 2;
                t[2][j] = middle + from[12 * of_u];
            }
            for (int j = 0; j < 3; j++, to += 3) {
                const float middle = (t[j][1] + t[j][2]) / 2;
                to[0] = t[j][0] + middle;
                to[1] = (t[j][1] - t[j][2]) / 2;
                to[2] = middle + t[j][3];
            }
        }
"""


def pays(x: jt.Var, weight: jt.Var, padding: tuple[int, int]) -> bool:
    """Whether this convolution of x [N, C, H, W] with weight [K, C, 3, 3], stride 1, is one for `Winograd`, and this
    faster than oneDNN 2.2: the transforms want channels, and the weight's wants tiles."""
    down, across = ((side + 2 * p - 1) // 2 for side, p in zip(x.shape[2:], padding))
    return (x.dtype == weight.dtype == "float32" and padding[0] == padding[1] <= 2
            and min(weight.shape[:2]) >= 12 and x.shape[0] * down * across >= 32)


class Winograd(jt.Function):
    """Convolution of x [N, C, H, W] with weight [K, C, 3, 3] and bias [K] or None, float32, stride 1, the same padding of at
    most 2 at all sides: on a CPU. A pixel reaches the outputs of its own windows only, of which an infinite one may make
    NaN; but of the weight's gradient all nine taps, so that beside a huge pixel they lose the digits that are smaller."""

    def __init__(self, padding: int):
        self.padding = padding

    def execute(self, x, weight, bias=None):
        self.inputs = x, weight, bias
        return self.applied(x, weight, After(shift=bias))

    def grad(self, g):
        x, weight, bias = self.inputs
        g = like(x, g)
        return (self._convolved(g, weight, weight.shape[1], 2 - self.padding, After(), turned=True),
                jt.code(weight.shape, "float32", [x, g], cpu_header=_BACKWARD, cpu_src=_GRADIENT,
                        data={"padding": float(self.padding)}), *gradients(bias, g))

    def applied(self, x, weight, after):
        """The convolution with what is `after` it, without gradients."""
        return self._convolved(x, weight, weight.shape[0], self.padding, after)

    @staticmethod
    def _convolved(x, weight, channels, padding, after, turned=False):
        n, _, h, w = x.shape
        return after.code([n, channels, h + 2 * padding - 2, w + 2 * padding - 2], _CONVOLVE, _FORWARD, [x, weight],
                          {"padding": float(padding), "turned": float(turned)})
