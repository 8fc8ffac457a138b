"""Convolution on a GPU by cuDNN's graph interface, with plans that are kept.

Jittor's own calls cuDNN's older interface, which plans each call anew: 0.1 to 0.25 ms of the host's time, more than
most layers of a CNN take on a GPU.
"""
from __future__ import annotations

import jittor as jt

from . import cudnn
from .arithmetic import convolved, like
from .source import filled, included

_HEADER = cudnn.HEADER + """
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>
#include "executor.h"
#include "mem/mem_info.h"

namespace jittor {
extern float max_workspace_ratio;

struct Descriptor {
    cudnnBackendDescriptor_t it;
    explicit Descriptor(cudnnBackendDescriptorType_t type) { done(cudnnBackendCreateDescriptor(type, &it)); }
    ~Descriptor() { cudnnBackendDestroyDescriptor(it); }
    Descriptor(const Descriptor&) = delete;

    void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count, const void* values) {
        done(cudnnBackendSetAttribute(it, name, type, count, values));
    }
    void set(cudnnBackendAttributeName_t name, const Descriptor& other) {
        set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &other.it);
    }
    void integers(cudnnBackendAttributeName_t name, const std::vector<int64_t>& values) {
        set(name, CUDNN_TYPE_INT64, values.size(), values.data());
    }
    int64_t get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t most, void* values) {
        int64_t count = 0;
        done(cudnnBackendGetAttribute(it, name, type, most, &count, values));
        return count;
    }
    bool finalized() { return cudnnBackendFinalize(it) == CUDNN_STATUS_SUCCESS; }
    void finalize() { done(cudnnBackendFinalize(it)); }
};

struct Plan {
    std::unique_ptr<Descriptor> plan;
    int64_t workspace;

    // The pointers are those of the weight, the images and the outputs.
    bool run(void* const* pointers) const {
        const int64_t ids[] = {0, 1, 2};
        size_t allocation = 0;
        void* space = workspace ? exe.temp_allocator->alloc(workspace, allocation) : nullptr;
        Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
        pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, ids);
        pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, pointers);
        pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &space);
        pack.finalize();
        const bool ran = cudnnBackendExecute(cudnn_handle, plan->it, pack.it) == CUDNN_STATUS_SUCCESS;
        if (space) exe.temp_allocator->free(space, workspace, allocation);
        return ran;
    }
};

// What an engine is said to do to digits, and may not: round float32 to less (but to TF32, which is the library's to
// forbid, and for that the user has NVIDIA_TF32_OVERRIDE), or transform large tiles (Winograd's with 13x13 were off by
// 231 u in a layer of ResNet-18).
static bool keeps_digits(Descriptor& config) {
    Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    config.get(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine.it);
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    const int64_t count = engine.get(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                     CUDNN_NUMERICAL_NOTE_TYPE_COUNT, notes);
    return std::none_of(notes, notes + count, [](cudnnBackendNumericalNote_t note) {
        return note == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS ||
#if CUDNN_VERSION >= 8300
               note == CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13 ||
#endif
               note == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION;
    });
}

static float milliseconds(const Plan& plan, void* const* pointers) {
    cudaEvent_t start, end;
    checkCudaErrors(cudaEventCreate(&start));
    checkCudaErrors(cudaEventCreate(&end));
    float least = INFINITY;
    try {
        if (plan.run(pointers)) least = 1e30;  // this run loads its kernels
    } catch (const std::exception&) {  // no room for its workspace
    }
    for (int i = 0; i < 3 && least < INFINITY; i++) {
        float time;
        checkCudaErrors(cudaEventRecord(start, 0));
        plan.run(pointers);
        checkCudaErrors(cudaEventRecord(end, 0));
        checkCudaErrors(cudaEventSynchronize(end));
        checkCudaErrors(cudaEventElapsedTime(&time, start, end));
        least = std::min(least, time);
    }
    checkCudaErrors(cudaEventDestroy(start));
    checkCudaErrors(cudaEventDestroy(end));
    return least;
}

// The fastest of the engines that cuDNN's heuristics name first, and of those that it falls back on (for the gradient of
// a 1x1 kernel often twice as fast), with no more workspace than Jittor allows; where there is none, with more.
static Plan fastest(Descriptor& graph, void* const* pointers) {
    const int64_t tried = 8;
    Plan best;
    float least = INFINITY;
    for (int64_t allowed : {int64_t(mem_info.total_cuda_ram * (double)max_workspace_ratio), INT64_MAX}) {
        if (least < INFINITY) break;
#if CUDNN_VERSION >= 8300
        for (auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
#else
        for (auto mode : {CUDNN_HEUR_MODE_INSTANT}) {
#endif
            Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
            heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
            heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
            if (!heuristics.finalized()) continue;
            std::vector<std::unique_ptr<Descriptor>> configs;
            std::vector<cudnnBackendDescriptor_t> places;
            const int64_t known = heuristics.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0,
                                                 nullptr);
            for (int64_t i = 0; i < known; i++) {
                configs.emplace_back(new Descriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
                places.push_back(configs[i]->it);
            }
            const int64_t count = heuristics.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, known,
                                                 places.data());
            int64_t timed = 0;
            for (int64_t i = 0; i < count && timed < tried; i++) {
                if (!keeps_digits(*configs[i])) continue;
                Plan plan{std::unique_ptr<Descriptor>(new Descriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)), 0};
                plan.plan->set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &cudnn_handle);
                plan.plan->set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, *configs[i]);
                if (!plan.plan->finalized()) continue;
                plan.plan->get(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &plan.workspace);
                if (plan.workspace > allowed) continue;
                timed++;
                const float time = milliseconds(plan, pointers);
                if (time < least) {
                    least = time;
                    best = std::move(plan);
                }
            }
        }
    }
    CHECK(least < INFINITY) << "cuDNN has no engine for this convolution";
    exe.temp_allocator->gc();  // the workspaces of the others
    return best;
}

// The attributes of the three passes have one order: alpha, beta, convolution, weight, images, outputs.
static void convolve(cudnnBackendDescriptorType_t pass, cudnnBackendAttributeName_t alpha, Var* weight, Var* images,
                     Var* outputs, const std::vector<int64_t>& steps, const std::vector<int64_t>& padding,
                     const std::vector<int64_t>& dilations) {
    static auto& plans = *new std::map<std::vector<int64_t>, Plan>;  // outlives cuDNN
    Var* vars[] = {weight, images, outputs};
    void* pointers[3];
    int64_t alignment = 16;
    std::vector<int64_t> key;
    for (int i = 0; i < 3; i++) {
        pointers[i] = vars[i]->mem_ptr;
        while ((uintptr_t)pointers[i] % alignment) alignment /= 2;
        for (int d = 0; d < 4; d++) key.push_back(vars[i]->shape[d]);
    }
    for (auto part : {&steps, &padding, &dilations}) key.insert(key.end(), part->begin(), part->end());
    key.push_back(alignment);
    auto found = plans.find(key);
    if (found == plans.end()) {
        Descriptor convolution(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR), operation(pass),
                   graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
        const auto type = CUDNN_DATA_FLOAT;
        const auto mode = CUDNN_CROSS_CORRELATION;
        convolution.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
        convolution.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
        convolution.integers(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, {2});
        convolution.integers(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, steps);
        convolution.integers(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, padding);
        convolution.integers(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, padding);
        convolution.integers(CUDNN_ATTR_CONVOLUTION_DILATIONS, dilations);
        convolution.finalize();
        const auto name = [=](int i) { return cudnnBackendAttributeName_t(alpha + i); };
        const float one = 1, zero = 0;
        operation.set(name(0), CUDNN_TYPE_FLOAT, 1, &one);
        operation.set(name(1), CUDNN_TYPE_FLOAT, 1, &zero);
        operation.set(name(2), convolution);
        std::vector<std::unique_ptr<Descriptor>> tensors;
        for (int64_t i = 0; i < 3; i++) {
            const auto& shape = vars[i]->shape;
            tensors.emplace_back(new Descriptor(CUDNN_BACKEND_TENSOR_DESCRIPTOR));
            auto& tensor = *tensors.back();
            tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
            tensor.integers(CUDNN_ATTR_TENSOR_DIMENSIONS, {shape[0], shape[1], shape[2], shape[3]});
            tensor.integers(CUDNN_ATTR_TENSOR_STRIDES, {shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3], 1});
            tensor.integers(CUDNN_ATTR_TENSOR_UNIQUE_ID, {i});
            tensor.integers(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, {alignment});
            tensor.finalize();
            operation.set(name(3 + i), tensor);
        }
        operation.finalize();
        graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &cudnn_handle);
        graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, operation);
        graph.finalize();
        found = plans.emplace(key, fastest(graph, pointers)).first;
    }
    CHECK(found->second.run(pointers)) << "cuDNN: a convolution failed";
}
}
"""
_SOURCE = """
    auto pair = [&](const char* name) {
        return std::vector<int64_t>{(int64_t)data[std::string(name) + "0"], (int64_t)data[std::string(name) + "1"]};
    };
    convolve(CUDNN_BACKEND_OPERATION_CONVOLUTION_PASS_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BASE_ALPHA,
             WEIGHT, IMAGES, OUTPUTS, pair("stride"), pair("padding"), pair("dilation"));
"""
_FORWARD = filled(_SOURCE, PASS="FORWARD", BASE="FORWARD", WEIGHT="in1", IMAGES="in0", OUTPUTS="out0")
_BACKWARD_IMAGES = filled(_SOURCE, PASS="BACKWARD_DATA", BASE="BWD_DATA", WEIGHT="in0", IMAGES="out0", OUTPUTS="in1")
_BACKWARD_WEIGHT = filled(_SOURCE, PASS="BACKWARD_FILTER", BASE="BWD_FILTER", WEIGHT="out0", IMAGES="in0", OUTPUTS="in1")


class Convolution(jt.Function):
    """Convolution of x [N, C, H, W] with weight [K, C / groups, KH, KW], both float32, as torch's; C and the weight
    tell the groups."""

    def __init__(self, stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]):
        self.stride, self.padding, self.dilation = stride, padding, dilation
        pairs = {"stride": stride, "padding": padding, "dilation": dilation}
        self.data = {f"{name}{i}": float(pair[i]) for name, pair in pairs.items() for i in (0, 1)}

    def execute(self, x, weight):
        self.inputs = x, weight
        sides = convolved(x.shape[2:], weight.shape[2:], self.stride, self.padding, self.dilation)
        return self._code(_FORWARD, [x.shape[0], weight.shape[0], *sides], x, weight)

    def grad(self, g):
        x, weight = self.inputs
        g = like(x, g)
        return self._code(_BACKWARD_IMAGES, x.shape, weight, g), self._code(_BACKWARD_WEIGHT, weight.shape, x, g)

    def _code(self, source, shape, *inputs):
        return cudnn.code(source, [shape], *inputs, header=included("convolution", _HEADER), data=self.data)[0]
