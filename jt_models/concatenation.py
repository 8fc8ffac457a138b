"""Concatenation as one operation each way."""
from __future__ import annotations

import functools

import jittor as jt

from .arithmetic import like
from .source import filled

# A row is all that lies behind one index of the dimensions before the one of the concatenation.
_CPU = """
    const int64_t rows = ROWS, whole = rows ? ALL->num / rows * sizeof(in0_type) : 0;
    #pragma omp parallel for if (parallel: rows * whole > 65536)
    for (int64_t row = 0; row < rows; row++) {
        char* place = (char*)ALL_p + row * whole;
        auto copy = [&](void* part, int64_t size) {
            size = size / rows * sizeof(in0_type);
            char* other = (char*)part + row * size;
            std::memcpy(JOINS ? place : other, JOINS ? other : place, size);
            place += size;
        };
        COPIES
    }
"""
# By cudaMemcpy2DAsync they took most of 4.6 of the 57 ms of a DenseNet-121's kernels (a step, H200, 128 images).
_CUDA_HEADER = """
#include "helper_cuda.h"
#include <algorithm>
#include <cstdint>
template <class Word> __global__ static void words(
        Word* to, const Word* from, int64_t to_pitch, int64_t from_pitch, int64_t width, int64_t rows) {
    for (int64_t row = blockIdx.y; row < rows; row += gridDim.y)
        for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < width; i += (int64_t)gridDim.x * blockDim.x)
            to[row * to_pitch + i] = from[row * from_pitch + i];
}
template <class Word> static void copy_words(
        char* to, const char* from, int64_t to_pitch, int64_t from_pitch, int64_t width, int64_t rows) {
    const int64_t size = sizeof(Word), threads = 256;
    const dim3 blocks(std::min<int64_t>((width / size + threads - 1) / threads, 1024), std::min<int64_t>(rows, 65535));
    words<Word><<<blocks, threads>>>((Word*)to, (const Word*)from, to_pitch / size, from_pitch / size, width / size,
                                     rows);
}
// `width` bytes of each row; the rows begin a pitch, also in bytes, after each other.
static void copy_rows(char* to, const char* from, int64_t to_pitch, int64_t from_pitch, int64_t width, int64_t rows) {
    if (!width || !rows) return;
    const uint64_t all = (uintptr_t)to | (uintptr_t)from | to_pitch | from_pitch | width;
    (all % 16 == 0 ? copy_words<uint4> : all % 4 == 0 ? copy_words<uint32_t> : copy_words<uint8_t>)(
        to, from, to_pitch, from_pitch, width, rows);
}
"""
_CUDA = """
    const int64_t rows = ROWS, whole = rows ? ALL->num / rows * sizeof(in0_type) : 0;
    char* place = (char*)ALL_p;
    auto copy = [&](void* part, int64_t size) {
        size = rows ? size / rows * sizeof(in0_type) : 0;
        char* other = (char*)part;
        if (JOINS) copy_rows(place, other, whole, size, size, rows);
        else copy_rows(other, place, size, whole, size, rows);
        place += size;
    };
    COPIES
"""


@functools.lru_cache
def _sources(joins: bool, dim: int, count: int) -> dict[str, str]:
    """Options of jt.code."""
    whole, part = ("out0", "in") if joins else ("in0", "out")
    words = {"ROWS": " * ".join(["1", *(f"{whole}_shape{i}" for i in range(dim))]), "ALL": whole,
             "JOINS": str(joins).lower(),
             "COPIES": " ".join(f"copy({part}{i}_p, {part}{i}->num);" for i in range(count))}
    return {"cpu_header": "#include <cstring>", "cpu_src": filled(_CPU, **words),
            "cuda_header": _CUDA_HEADER, "cuda_src": filled(_CUDA, **words)}


class Concat(jt.Function):
    """`layers.concat`: Jittor's own is one operation for every part, forward and backward."""

    def __init__(self, dim: int):
        self.dim = dim

    def execute(self, *parts):
        self.shapes, self.dtype = [part.shape for part in parts], parts[0].dtype
        shape = list(parts[0].shape)
        shape[self.dim] = sum(part[self.dim] for part in self.shapes)
        return self._copied(True, [shape], parts)[0]

    def grad(self, g):
        return self._copied(False, self.shapes, [like(self, g)])

    def _copied(self, joins, shapes, inputs):
        return jt.code(shapes, [self.dtype] * len(shapes), list(inputs),
                       **_sources(joins, self.dim, len(self.shapes)))
