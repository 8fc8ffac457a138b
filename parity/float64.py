"""Float64 in Jittor: the flags that allow it, and Python floats that keep it."""
from __future__ import annotations

import contextlib

import numpy as np

OPERATORS = [f"__{side}{name}__" for name in ("add", "sub", "mul", "truediv", "pow")
             for side in ("", "r")]


@contextlib.contextmanager
def float64():
    """Context in which a Jittor net computes in float64, Python floats beside + - * / ** included
    (those given to a function, as in `jt.maximum(x, 0.1)`, remain float32 constants).

    By default `jt.array` makes float64 into float32, the tuner replaces convolutions and products
    by oneDNN's, which know float32 only (and abort on some gradients), and a Python float beside a
    float64 Var is a float32 constant: `x * 0.17` is off by 1e-8, in a right port too.
    """
    import jittor as jt
    usual = {name: getattr(jt.Var, name) for name in OPERATORS if hasattr(jt.Var, name)}

    def exact(method):
        def operator(x, y):
            if isinstance(y, float) and x.dtype == "float64":
                y = jt.array64(np.array([y], "float64"))
            return method(x, y)
        return operator

    for name, method in usual.items():
        setattr(jt.Var, name, exact(method))
    try:
        with jt.flag_scope(auto_convert_64_to_32=0, enable_tuner=0):
            yield
    finally:
        for name, method in usual.items():
            setattr(jt.Var, name, method)
