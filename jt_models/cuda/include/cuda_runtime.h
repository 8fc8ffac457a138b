// CUDA 13 took two members from cudaDeviceProp that Jittor's helper_cuda.h prints (lines 263 to 391).
#pragma once
#include "toolkit/cuda_runtime.h"
#if defined(__cplusplus) && CUDART_VERSION >= 13000
struct DevicePropOfCuda12 : cudaDeviceProp {
    int computeMode = cudaComputeModeDefault;
    int clockRate = 0;
};
#define cudaDeviceProp DevicePropOfCuda12
#endif
