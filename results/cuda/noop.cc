// Stands for one of CUDA's libraries on a machine without a GPU: memory is the host's, nothing is computed. What is
// not written here is generated as a function that returns success (see compile.py).
#include <cstdint>
#include <cstdlib>
#include <cstring>

#define CALL extern "C" __attribute__((visibility("default")))

[[maybe_unused]] static int object(void** handle) { return !(*handle = calloc(1, 256)); }

#if defined(NOOP_cudart)
#include <driver_types.h>
#include <vector_types.h>

static int give(void** p, size_t bytes) {  // zeros: what is left in memory may be NaN, which ends a training
    const size_t size = (bytes / 512 + 1) * 512;
    return !(*p = aligned_alloc(512, size)) || !memset(*p, 0, size);
}
static int copy(void* to, const void* from, size_t bytes) { memmove(to, from, bytes); return 0; }
static const size_t MEMORY = size_t(16) << 30;

CALL int cudaMalloc(void** p, size_t n) { return give(p, n); }
CALL int cudaMallocHost(void** p, size_t n) { return give(p, n); }
CALL int cudaMallocManaged(void** p, size_t n, unsigned) { return give(p, n); }
CALL int cudaMallocAsync(void** p, size_t n, void*) { return give(p, n); }
CALL int cudaHostAlloc(void** p, size_t n, unsigned) { return give(p, n); }
CALL int cudaFree(void* p) { free(p); return 0; }
CALL int cudaFreeHost(void* p) { free(p); return 0; }
CALL int cudaFreeAsync(void* p, void*) { free(p); return 0; }
CALL int cudaMemcpy(void* to, const void* from, size_t n, int) { return copy(to, from, n); }
CALL int cudaMemcpyAsync(void* to, const void* from, size_t n, int, void*) { return copy(to, from, n); }
CALL int cudaMemset(void* p, int value, size_t n) { memset(p, value, n); return 0; }
CALL int cudaMemsetAsync(void* p, int value, size_t n, void*) { memset(p, value, n); return 0; }
CALL int cudaMemGetInfo(size_t* unused, size_t* all) { *unused = *all = MEMORY; return 0; }

CALL int cudaGetDeviceCount(int* count) { *count = 1; return 0; }
CALL int cudaGetDevice(int* device) { *device = 0; return 0; }
CALL int cudaGetDeviceProperties(cudaDeviceProp* found, int) {
    memset(found, 0, sizeof *found);
    strcpy(found->name, "none");
    found->major = 9;
    found->multiProcessorCount = 132;
    found->warpSize = 32;
    found->maxThreadsPerBlock = 1024;
    found->totalGlobalMem = MEMORY;
    return 0;
}
CALL int cudaDeviceGetAttribute(int* value, int which, int) {
    *value = which == cudaDevAttrComputeCapabilityMajor ? 9 : which == cudaDevAttrComputeCapabilityMinor ? 0
           : which == cudaDevAttrMultiProcessorCount ? 132 : which == cudaDevAttrWarpSize ? 32 : 1024;
    return 0;
}
CALL int cudaRuntimeGetVersion(int* version) { *version = 13000; return 0; }
CALL int cudaDriverGetVersion(int* version) { *version = 13000; return 0; }
CALL const char* cudaGetErrorName(int) { return "none"; }
CALL const char* cudaGetErrorString(int) { return "none"; }
CALL int cudaStreamCreate(void** stream) { return object(stream); }
CALL int cudaStreamCreateWithFlags(void** stream, unsigned) { return object(stream); }
CALL int cudaEventCreate(void** event) { return object(event); }
CALL int cudaEventCreateWithFlags(void** event, unsigned) { return object(event); }
CALL int cudaEventElapsedTime(float* milliseconds, void*, void*) { *milliseconds = 1; return 0; }
CALL int cudaLaunchHostFunc(void*, void (*function)(void*), void* data) { function(data); return 0; }
CALL int cudaFuncGetAttributes(cudaFuncAttributes* found, const void*) {
    memset(found, 0, sizeof *found);
    found->maxThreadsPerBlock = 1024;
    found->numRegs = 32;
    found->ptxVersion = found->binaryVersion = 90;
    return 0;
}
CALL int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, size_t) {
    *blocks = 4;
    return 0;
}
CALL int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int, size_t, unsigned) {
    *blocks = 4;
    return 0;
}
CALL void** __cudaRegisterFatBinary(void*) { void* handle; object(&handle); return (void**)handle; }
CALL int __cudaGetKernel(void** kernel, const void* function) { *kernel = (void*)function; return 0; }
CALL unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, void*) { return 0; }
CALL int __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void** stream) {
    *grid = *block = dim3(1, 1, 1);
    *shared = 0;
    *stream = nullptr;
    return 0;
}

#elif defined(NOOP_cudnn)
struct Found {  // cudnnConvolution*AlgoPerf_t
    int algorithm, status;
    float time;
    size_t memory;
    int determinism, math, reserved[3];
};
static int find(int* count, Found* found) { *count = 1; *found = {1, 0, 1.f, 0, 1, 0, {0, 0, 0}}; return 0; }
#define CONVOLUTION(PASS)                                                                                         \
    CALL int cudnnFindConvolution##PASS##AlgorithmEx(void*, void*, const void*, void*, const void*, void*, void*, \
                                                     void*, int, int* count, Found* found, void*, size_t) {       \
        return find(count, found);                                                                                \
    }                                                                                                             \
    CALL int cudnnGetConvolution##PASS##Algorithm_v7(void*, void*, void*, void*, void*, int, int* count,          \
                                                     Found* found) {                                              \
        return find(count, found);                                                                                \
    }                                                                                                             \
    CALL int cudnnGetConvolution##PASS##WorkspaceSize(void*, void*, void*, void*, void*, int, size_t* bytes) {    \
        *bytes = 0;                                                                                               \
        return 0;                                                                                                 \
    }
CONVOLUTION(Forward)
CONVOLUTION(BackwardData)
CONVOLUTION(BackwardFilter)
CALL int cudnnBackendCreateDescriptor(int, void** descriptor) { return object(descriptor); }
CALL int cudnnBackendDestroyDescriptor(void* descriptor) { free(descriptor); return 0; }
CALL int cudnnBackendGetAttribute(void*, int, int type, int64_t, int64_t* count, void* values) {
    *count = type != 11;  // CUDNN_TYPE_NUMERICAL_NOTE: one engine, of which nothing is to be noted
    if (type == 3) memset(values, 0, sizeof(int64_t));  // CUDNN_TYPE_INT64
    return 0;
}
CALL int cudnnCreate(void** handle) { return object(handle); }
CALL size_t cudnnGetVersion() { return 91900; }
CALL const char* cudnnGetErrorString(int) { return "none"; }

#elif defined(NOOP_cublas)
CALL int cublasCreate_v2(void** handle) { return object(handle); }
#elif defined(NOOP_curand)
CALL int curandCreateGenerator(void** handle, int) { return object(handle); }
#elif defined(NOOP_cufft)
CALL int cufftCreate(int* handle) { *handle = 1; return 0; }
#elif defined(NOOP_cusparse)
CALL int cusparseCreate(void** handle) { return object(handle); }
#endif
