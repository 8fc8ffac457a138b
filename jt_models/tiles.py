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
const int64_t lanes = BYTES / 4, tall = BYTES == 64 ? 8 : 6;  // tall x 2 vectors of sums are no more than the registers
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

typedef int32_t Bits __attribute__((vector_size(BYTES)));

// Exchanges the two squares of SIDE x SIDE beside the diagonal of each square of twice that, then within them.
template <int SIDE> inline void turn(Vector* rows) {
    Bits first, second;
    for (int i = 0; i < lanes; i++) {
        first[i] = i & SIDE ? lanes + i - SIDE : i;
        second[i] = i & SIDE ? lanes + i : i + SIDE;
    }
    #pragma GCC unroll 16
    for (int i = 0; i < lanes; i++)
        if (!(i & SIDE)) {
            const Vector a = rows[i], b = rows[i + SIDE];
            rows[i] = __builtin_shuffle(a, b, first);
            rows[i + SIDE] = __builtin_shuffle(a, b, second);
        }
    turn<SIDE / 2>(rows);
}
template <> inline void turn<0>(Vector*) {}

// The transpose of lanes x lanes numbers.
inline void turn(const float* from, int64_t down, float* to, int64_t next) {
    Vector rows[lanes];
    #pragma GCC unroll 16
    for (int i = 0; i < lanes; i++) rows[i] = at((float*)from + i * down);
    turn<lanes / 2>(rows);
    #pragma GCC unroll 16
    for (int i = 0; i < lanes; i++) at(to + i * next) = rows[i];
}

// x [count, many], whose rows are `size` apart, to pixels [many, lanes]; x may be read up to `end`.
inline void to_pixels(const float* x, int64_t size, int64_t count, int64_t many, const float* end, float* pixels) {
    for (int64_t c = 0; c < many; c += lanes) {
        const float* from = x + c;
        float *to = pixels + c * lanes, part[lanes * lanes];
        const int64_t some = std::min(lanes, many - c);
        if (count < lanes || 4 * some < lanes || from + (lanes - 1) * size + lanes > end) {
            for (int64_t i = 0; i < count; i++)
                for (int64_t j = 0; j < some; j++) to[j * lanes + i] = from[i * size + j];
        } else if (some == lanes) {
            turn(from, size, to, lanes);
        } else {
            turn(from, size, part, lanes);
            std::copy_n(part, some * lanes, to);
        }
    }
}

// pixels [many, lanes] to y [count, many], whose rows are `size` apart; of pixels up to `lanes` more may be read.
inline void to_channels(const float* pixels, int64_t many, int64_t count, float* y, int64_t size) {
    for (int64_t c = 0; c < many; c += lanes) {
        const float* from = pixels + c * lanes;
        float *to = y + c, part[lanes * lanes];
        const int64_t some = std::min(lanes, many - c);
        if (count < lanes || 4 * some < lanes) {
            for (int64_t i = 0; i < count; i++)
                for (int64_t j = 0; j < some; j++) to[i * size + j] = from[j * lanes + i];
        } else if (some == lanes) {
            turn(from, lanes, to, size);
        } else {
            turn(from, lanes, part, lanes);
            for (int64_t i = 0; i < lanes; i++) std::copy_n(part + i * lanes, some, to + i * size);
        }
    }
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
            to_pixels(from, size, count, right, x + p.images * p.channels * size, to + left * lanes);
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

// m [tall, WIDE vectors] = or += a [tall, depth] b [depth, WIDE vectors]
template <bool ADDED, int WIDE>
inline void multiply(int64_t depth, const float* a, int64_t down, int64_t along, float* b, int64_t next, float* m,
                     int64_t pitch) {
    Vector sums[tall][WIDE] = {};
    for (int64_t d = 0; d < depth; d++, a += along, b += next) {
        Vector row[WIDE];
        for (int s = 0; s < WIDE; s++) row[s] = at(b + s * lanes);
        #pragma GCC unroll 8
        for (int r = 0; r < tall; r++)
            for (int s = 0; s < WIDE; s++) sums[r][s] += a[r * down] * row[s];
    }
    #pragma GCC unroll 8
    for (int r = 0; r < tall; r++)
        for (int s = 0; s < WIDE; s++) {
            Vector& to = at(m + r * pitch + s * lanes);
            to = ADDED ? to + sums[r][s] : sums[r][s];
        }
}

// Of as many channels as `unit` says at a time: two vectors, or one where there is an odd number of them.
template <bool ADDED, class... Arguments>
inline void multiply(int64_t unit, Arguments... arguments) {
    if (unit > lanes) multiply<ADDED, 2>(arguments...);
    else multiply<ADDED, 1>(arguments...);
}
inline int64_t panel(int64_t channels) { return up(channels, lanes) / lanes % 2 ? lanes : 2 * lanes; }
}
"""
