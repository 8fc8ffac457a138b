// Hooks that Jittor sets for cuTT's own allocations. The transpose beside this file makes none.
#pragma once
#include <cstddef>
#include <cuda_runtime.h>
extern void (*custom_cuda_malloc)(void** pointer, size_t bytes, size_t& allocation);
extern void (*custom_cuda_free)(void* pointer, size_t bytes, size_t& allocation);
