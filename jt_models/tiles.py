"""Tiles of pixels for `winograd`, in C++: their transforms, and products of matrices of what these make."""
from __future__ import annotations

from .source import BYTES

# Channels lie side by side in what is transformed, so that a vector is of as many of them, whatever the plane's size.
HEADER = BYTES + """
#include <algorithm>
#include <cstdint>
#include <vector>
#include <omp.h>
namespace winograd {
typedef float Vector __attribute__((vector_size(BYTES), aligned(4), may_alias));
const int64_t lanes = BYTES / 4, tall = 6, wide = 2 * lanes;  // tall x wide sums fill AVX2's registers
const int64_t block = 96;  // tiles whose transforms stay in a core's cache
const int64_t line = 16;   // numbers of a line of the cache, in which only one thread may write

inline Vector& at(float* place) { return *(Vector*)place; }
inline int64_t up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Memory of this thread, which stays from call to call: new pages take as long as what is computed in them.
inline float* room(int which, int64_t size) {
    static thread_local std::vector<float> rooms[4];
    auto& it = rooms[which];
    if ((int64_t)it.size() < size + line) it.resize(size + line);
    return (float*)up((int64_t)it.data(), line * sizeof(float));
}

struct Planes {
    int64_t images, channels, height, width, padding, down, across;  // so many tiles
};

// B^T d B
inline void transform(const Vector d[4][4], Vector* v) {
    Vector t[4][4];
    for (int j = 0; j < 4; j++) {
        t[0][j] = d[0][j] - d[2][j];
        t[1][j] = d[1][j] + d[2][j];
        t[2][j] = d[2][j] - d[1][j];
        t[3][j] = d[1][j] - d[3][j];
    }
    for (int i = 0; i < 4; i++, v += 4) {
        v[0] = t[i][0] - t[i][2];
        v[1] = t[i][1] + t[i][2];
        v[2] = t[i][2] - t[i][1];
        v[3] = t[i][1] - t[i][3];
    }
}

// A g A^T
inline void transform(const Vector g[2][2], Vector* v) {
    Vector t[4][2];
    for (int j = 0; j < 2; j++) {
        t[0][j] = g[0][j];
        t[1][j] = g[0][j] + g[1][j];
        t[2][j] = g[0][j] - g[1][j];
        t[3][j] = -g[1][j];
    }
    for (int i = 0; i < 4; i++, v += 4) {
        v[0] = t[i][0];
        v[1] = t[i][0] + t[i][1];
        v[2] = t[i][0] - t[i][1];
        v[3] = -t[i][1];
    }
}

// Channels from `channel` on, `lanes` of them, of rows of tiles, SIDE x SIDE pixels each, to v [16, tiles, pitch].
template <int SIDE>
void scatter(const float* x, const Planes& p, int64_t channel, int64_t start, int64_t end, float* v, int64_t step,
             int64_t pitch) {
    const int64_t columns = 2 * p.across + SIDE - 2, size = p.height * p.width;
    const int64_t left = p.padding, right = std::min(p.width, columns - left);
    const int64_t count = std::min(lanes, p.channels - channel);
    float* pixels = room(0, (2 * (end - start) + SIDE) * columns * lanes);
    for (int64_t row = start; row < end;) {
        const int64_t n = row / p.down, first = row % p.down, rows = std::min(p.down - first, end - row);
        for (int64_t r = 0; r < 2 * rows + SIDE - 2; r++) {
            float* to = pixels + r * columns * lanes;
            const int64_t y = 2 * first + r - p.padding;
            std::fill(to, to + columns * lanes, 0);
            if (y < 0 || y >= p.height) continue;
            const float* from = x + (n * p.channels + channel) * size + y * p.width;
            for (int64_t i = 0; i < count; i++)
                for (int64_t c = 0; c < right; c++) to[(left + c) * lanes + i] = from[i * size + c];
        }
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < p.across; c++, v += pitch) {
                Vector d[SIDE][SIDE], t[16];
                for (int i = 0; i < SIDE; i++)
                    for (int j = 0; j < SIDE; j++) d[i][j] = at(pixels + ((2 * r + i) * columns + 2 * c + j) * lanes);
                transform(d, t);
                for (int q = 0; q < 16; q++) at(v + q * step) = t[q];
            }
        row += rows;
    }
}

// m [tall, wide] = or += a [tall, depth] b [depth, wide]
template <bool ADDED>
inline void multiply(int64_t depth, const float* a, int64_t down, int64_t along, float* b, int64_t next, float* m,
                     int64_t pitch) {
    Vector sums[tall][2] = {};
    for (int64_t d = 0; d < depth; d++, a += along, b += next) {
        const Vector left = at(b), right = at(b + lanes);
        #pragma GCC unroll 8
        for (int r = 0; r < tall; r++) {
            sums[r][0] += a[r * down] * left;
            sums[r][1] += a[r * down] * right;
        }
    }
    #pragma GCC unroll 8
    for (int r = 0; r < tall; r++)
        for (int s = 0; s < 2; s++) {
            Vector& to = at(m + r * pitch + s * lanes);
            to = ADDED ? to + sums[r][s] : sums[r][s];
        }
}
}
"""
