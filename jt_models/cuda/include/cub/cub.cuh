// What CUB 3 has no longer and Jittor's where, softmax and depthwise convolution name.
#pragma once
#include_next <cub/cub.cuh>
#if CUB_MAJOR_VERSION >= 3
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>
namespace cub {

template <class Value, class Offset = ptrdiff_t>
using CountingInputIterator = thrust::counting_iterator<Value>;

template <class Value, class Function, class Iterator, class Offset = ptrdiff_t>
class TransformInputIterator : public thrust::transform_iterator<Function, Iterator, Value> {
public:
    __host__ __device__ TransformInputIterator(Iterator values, Function function)
        : thrust::transform_iterator<Function, Iterator, Value>(values, function) {}
};

struct Max {
    template <class T>
    __host__ __device__ T operator()(const T& a, const T& b) const { return b < a ? a : b; }
};

__device__ inline unsigned LaneId() {
    unsigned lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

}  // namespace cub
#endif
