#include "cutt.h"
#include "CudaUtils.h"
#include "permute.h"
#include <algorithm>
#include <cstdint>
#include <vector>

void (*custom_cuda_malloc)(void**, size_t, size_t&) = nullptr;
void (*custom_cuda_free)(void*, size_t, size_t&) = nullptr;

namespace {

struct Plan {
    Permutation axes;
    size_t item;
    cudaStream_t stream;
};

std::vector<Plan> plans;

template <class Item>
__global__ void permute(Permutation axes, const Item* input, Item* output) {
    for (int64_t to = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; to < axes.count;
         to += int64_t(gridDim.x) * blockDim.x)
        output[to] = input[axes.source(to)];
}

template <class Item>
void launch(const Plan& plan, const void* input, void* output) {
    const int threads = 256;
    int64_t blocks = std::min<int64_t>((plan.axes.count + threads - 1) / threads, 1 << 16);
    permute<<<blocks, threads, 0, plan.stream>>>(plan.axes, (const Item*)input, (Item*)output);
}

}  // namespace

cuttResult cuttPlan(cuttHandle* handle, int rank, int* sizes, int* permutation, size_t item,
                    cudaStream_t stream) {
    bool known = item == 1 || item == 2 || item == 4 || item == 8;
    if (rank < 1 || rank > Permutation::MOST || !known) return CUTT_INVALID_PARAMETER;
    plans.push_back({Permutation(rank, sizes, permutation), item, stream});
    *handle = plans.size() - 1;
    return CUTT_SUCCESS;
}

cuttResult cuttExecute(cuttHandle handle, void* input, void* output) {
    if (handle >= plans.size()) return CUTT_INVALID_PLAN;
    const Plan& plan = plans[handle];
    switch (plan.item) {
        case 1: launch<uint8_t>(plan, input, output); break;
        case 2: launch<uint16_t>(plan, input, output); break;
        case 4: launch<uint32_t>(plan, input, output); break;
        default: launch<uint64_t>(plan, input, output);
    }
    return cudaGetLastError() == cudaSuccess ? CUTT_SUCCESS : CUTT_INTERNAL_ERROR;
}
