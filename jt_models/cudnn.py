"""Layers by cuDNN, as PyTorch computes them on a GPU, where Jittor has kernels of its own."""
from __future__ import annotations

import jittor as jt

from .arithmetic import like, spread, total
from .source import filled, linked

HEADER = """
#include <cudnn.h>
#include "helper_cuda.h"
namespace jittor { extern cudnnHandle_t cudnn_handle; }
static void done(cudnnStatus_t status) {
    CHECK(status == CUDNN_STATUS_SUCCESS) << "cuDNN: " << cudnnGetErrorString(status);
}
"""
_DESCRIBED = """
    const auto mode = CUDNN_BATCHNORM_SPATIAL;
    const float one = 1, zero = 0;
    cudnnTensorDescriptor_t images, channels;
    done(cudnnCreateTensorDescriptor(&images));
    done(cudnnCreateTensorDescriptor(&channels));
    done(cudnnSetTensor4dDescriptor(images, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT,
                                     in0_shape0, in0_shape1, in0_shape2, in0_shape3));
    done(cudnnDeriveBNTensorDescriptor(channels, images, mode));
"""
_RELEASED = """
    done(cudnnDestroyTensorDescriptor(images));
    done(cudnnDestroyTensorDescriptor(channels));
"""
_FORWARD_CUDNN = _DESCRIBED + """
    // cuDNN moves the running statistics where they are, and those in the graph must stay as they were.
    checkCudaErrors(cudaMemcpyAsync(out1_p, in3_p, in3->size, cudaMemcpyDeviceToDevice, 0));
    checkCudaErrors(cudaMemcpyAsync(out2_p, in4_p, in4->size, cudaMemcpyDeviceToDevice, 0));
    done(cudnnBatchNormalizationForwardTraining(cudnn_handle, mode, &one, &zero, images, in0_p, images, out0_p,
        channels, in1_p, in2_p, MOMENTUM, out1_p, out2_p, EPS, out3_p, out4_p));
""" + _RELEASED
_BACKWARD_CUDNN = _DESCRIBED + """
    done(cudnnBatchNormalizationBackward(cudnn_handle, mode, &one, &zero, &one, &zero, images, in0_p,
        images, in1_p, images, out0_p, channels, in4_p, out1_p, out2_p, EPS, in2_p, in3_p));
""" + _RELEASED
_INFERENCE = _DESCRIBED + """
    done(cudnnBatchNormalizationForwardInference(cudnn_handle, mode, &one, &zero, images, in0_p, images, out0_p,
        channels, in1_p, in2_p, in3_p, in4_p, EPS));
""" + _RELEASED


def takes(*values) -> bool:
    """Whether the operations here and in `convolution` take these Vars, which they read as float32."""
    return all(v.dtype == "float32" for v in values)


def code(source, shapes, *inputs, header=HEADER, **options):
    """jt.code of `source`, which calls cuDNN: a float32 Var for each of `shapes`."""
    # Linked, for in the process cuDNN 9's parts may be found before the whole, whose handle Jittor has.
    with linked(f'-L"{jt.compiler.cuda_lib}" -lcudnn'):
        return jt.code(shapes, ["float32"] * len(shapes), list(inputs), cuda_header=header, cuda_src=source,
                       **options)


class BatchNorm(jt.Function):
    """As batchnorm.BatchNorm, of float32.

    Attributes:
        running: ([C], [C]), the running mean and the (unbiased) running variance after this batch.
    """

    def __init__(self, eps: float, momentum: float):
        self.values = {"EPS": float(eps), "MOMENTUM": float(momentum)}

    def execute(self, x, weight, bias, mean, variance):
        shapes = [x.shape] + [weight.shape] * 4
        y, *self.running, self.mean, self.inverse = code(
            filled(_FORWARD_CUDNN, **self.values), shapes, x, weight, bias, mean, variance)
        self.inputs = x, weight
        return y

    def grad(self, g):
        x, weight = self.inputs
        shapes = [x.shape, weight.shape, weight.shape]
        source = filled(_BACKWARD_CUDNN, **self.values)
        return (*code(source, shapes, x, like(x, g), self.mean, self.inverse, weight), None, None)


class FixedBatchNorm(jt.Function):
    """Normalisation of x [N, C, H, W], float32, with given statistics, as in evaluation: one operation for ten."""

    def __init__(self, eps: float):
        self.eps = eps

    def execute(self, x, weight, bias, mean, variance):
        self.inputs = x, weight, mean, variance
        return code(filled(_INFERENCE, EPS=float(self.eps)), [x.shape], *self.inputs[:2], bias, mean, variance)[0]

    def grad(self, g):
        x, weight, mean, variance = self.inputs
        g = like(x, g)
        inverse = 1 / jt.sqrt(variance + self.eps)
        normal = (x - spread(mean, x)) * spread(inverse, x)
        axes = [0, 2, 3]
        return g * spread(weight * inverse, x), total(g * normal, axes), total(g, axes), None, None
