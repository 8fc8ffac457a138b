// Where an element of a permuted array comes from; also compiled for the CPU, by its test.
#pragma once
#include <stdint.h>
#ifdef __CUDACC__
#define ZOO_BOTH __host__ __device__
#else
#define ZOO_BOTH
#endif

struct Permutation {
    static const int MOST = 16;
    int rank;
    int64_t count;
    int64_t size[MOST];    // of each axis of the output, the fastest first
    int64_t stride[MOST];  // of the same axis in the input, in elements

    // As cuTT: sizes of the input, the fastest axis first; axis k of the output is axis order[k] of the input.
    Permutation(int rank, const int* sizes, const int* order) : rank(rank), count(1) {
        int64_t strides[MOST];
        for (int k = 0; k < rank; count *= sizes[k++]) strides[k] = count;
        for (int k = 0; k < rank; ++k) {
            size[k] = sizes[order[k]];
            stride[k] = strides[order[k]];
        }
    }

    ZOO_BOTH int64_t source(int64_t to) const {
        int64_t from = 0;
        for (int k = 0; k < rank; to /= size[k++]) from += to % size[k] * stride[k];
        return from;
    }
};
