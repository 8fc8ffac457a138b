"""Float64 in Jittor: the flags that allow it, and constants that keep it."""
from __future__ import annotations

import contextlib
import math

import numpy as np

OPERATORS = [f"__{side}{name}__" for name in ("add", "sub", "mul", "truediv", "pow")
             for side in ("", "r", "i")]
FUNCTIONS = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "pow")


@contextlib.contextmanager
def float64():
    """Context in which a Jittor net computes in float64: Python floats beside + - * / ** (of whole
    numbers too, such as positions) and in FUNCTIONS, means, and the gradient of erf included.

    By default `jt.array` makes float64 into float32, the tuner replaces convolutions and products
    by oneDNN's, which know float32 only (and abort on some gradients), and a Python float beside a
    float64 Var is a float32 constant: `x * 0.17` is off by 1e-8, in a right port too. So is the
    gradient of a mean, which Jittor multiplies by float32(1 / n), and that of erf (and gelu), with its
    2 / sqrt(pi).
    """
    import jittor as jt
    names = [*OPERATORS, *FUNCTIONS, "mean", "reduce", "erf"]
    usual = {name: getattr(jt.Var, name) for name in names if hasattr(jt.Var, name)}
    functions = {name: getattr(jt, name) for name in (*FUNCTIONS, "mean", "reduce", "erf")}

    def exact(method):
        def operator(x, y):
            if isinstance(y, float) and isinstance(x, jt.Var) and (
                    x.dtype == "float64" or x.dtype.is_int()):
                x = x.float64()
                y = jt.array64(np.array([y], "float64"))
            return method(x, y)
        return operator

    def mean(x, *args, **options):
        if x.dtype != "float64":
            return functions["mean"](x, *args, **options)
        total = x.sum(*args, **options)
        return total / (x.numel() // total.numel())

    def reduce(x, op="", *args, **options):
        if op == "mean" and x.dtype == "float64":
            total = functions["reduce"](x, "add", *args, **options)
            return total / (x.numel() // total.numel())
        return functions["reduce"](x, op, *args, **options)

    class Erf(jt.Function):
        def execute(self, x):
            self.x = x
            return functions["erf"](x)

        def grad(self, g):
            return g * (-self.x * self.x).exp() * (2 / math.pi ** 0.5)

    def erf(x):
        return Erf.apply(x) if x.dtype == "float64" else functions["erf"](x)

    for name in (*OPERATORS, *FUNCTIONS):
        if name in usual:
            setattr(jt.Var, name, exact(usual[name]))
    for name in FUNCTIONS:
        setattr(jt, name, exact(functions[name]))
    for name, function in (("mean", mean), ("reduce", reduce), ("erf", erf)):
        setattr(jt.Var, name, function)
        setattr(jt, name, function)
    try:
        with jt.flag_scope(auto_convert_64_to_32=0, enable_tuner=0):
            yield
    finally:
        for name, method in usual.items():
            setattr(jt.Var, name, method)
        for name, function in functions.items():
            setattr(jt, name, function)
