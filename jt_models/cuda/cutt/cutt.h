// The part of cuTT's interface that Jittor calls (extern/cuda/cutt/ops/cutt_transpose_op.cc). cuTT itself would be
// a download; without it Jittor permutes axes on the CPU.
#pragma once
#include <cstddef>
#include <cuda_runtime.h>
typedef unsigned int cuttHandle;
enum cuttResult { CUTT_SUCCESS, CUTT_INVALID_PLAN, CUTT_INVALID_PARAMETER, CUTT_INTERNAL_ERROR };
cuttResult cuttPlan(cuttHandle* plan, int rank, int* sizes, int* permutation, size_t item, cudaStream_t stream);
cuttResult cuttExecute(cuttHandle plan, void* input, void* output);
