"""Loops over the channels of images [N, C, H, W], in C++, for operations on a CPU."""
from __future__ import annotations

# A block is so many places that are next to each other in every image: a part of a channel or, of small ones, several.
# Sums go over 16 images in the dtype of x, place by place, and these are added in float64.
HEADER = """
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <omp.h>
#define PLACES 1024
#define SMALL 256
struct Block { int64_t images, stride, count, each; };  // `each`: of a channel

// Adds to `sums`, for each channel, what `term` adds to each of so many parts for an element and its place in the block.
template <class T, int COUNT, class Term> static void tally(const Block& b, double (*sums)[COUNT], Term term) {
    for (int64_t first = 0; first < b.images; first += 16) {
        T parts[COUNT][PLACES];
        for (auto& part : parts) std::fill_n(part, b.count, 0);
        for (int64_t n = first; n < std::min(first + 16, b.images); n++) {
            #pragma omp simd
            for (int64_t j = 0; j < b.count; j++) term(n * b.stride + j, j, parts);
        }
        for (int i = 0; i < COUNT; i++)
            for (int64_t j = 0; j < b.count; j += b.each) {
                double sum = 0;
                for (int64_t k = j; k < j + b.each; k++) sum += parts[i][k];
                sums[j / b.each][i] += sum;
            }
    }
}
"""
# Of each turn, which takes `many` channels from `first` on, the end is left open. `blocks` calls what it is given with the
# first element and the block.
CHANNELS = """
    typedef in0_type T;
    const int64_t images = in0_shape0, channels = in0_shape1, size = in0_shape2 * in0_shape3;
    const int64_t stride = channels * size, threads = omp_get_max_threads();
    const int64_t group = std::max<int64_t>(1, std::min(SMALL / std::max<int64_t>(1, size), (channels + threads - 1) / threads));
    const double count = images * size;
    #pragma omp parallel for
    for (int64_t first = 0; first < channels; first += group) {
        const int64_t many = std::min(group, channels - first);
        auto blocks = [&](auto&& run) {
            for (int64_t begin = 0; begin < many * size; begin += PLACES) {
                const int64_t count = std::min<int64_t>(PLACES, many * size - begin);
                run(first * size + begin, Block{images, stride, count, std::min(size, count)});
            }
        };
"""
