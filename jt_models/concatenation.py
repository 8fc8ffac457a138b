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
_CUDA = """
    const int64_t rows = ROWS, whole = rows ? ALL->num / rows * sizeof(in0_type) : 0;
    char* place = (char*)ALL_p;
    auto copy = [&](void* part, int64_t size) {
        if (!rows) return;
        size = size / rows * sizeof(in0_type);
        checkCudaErrors(cudaMemcpy2DAsync(JOINS ? place : part, JOINS ? whole : size, JOINS ? part : place,
                                          JOINS ? size : whole, size, rows, cudaMemcpyDeviceToDevice, 0));
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
            "cuda_header": '#include "helper_cuda.h"', "cuda_src": filled(_CUDA, **words)}


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
