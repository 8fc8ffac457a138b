"""Files of `jt.save` and Jittor's `Module.save` (`.pkl`), read without running what is in them.

Such a file is a pickle, its SHA-1 and a mark (`jittor/__init__.py`, safepickle). A pickle is a program that
may call anything that Python can import; here it finds stand-ins for arrays and nothing else.
"""
from __future__ import annotations

import hashlib
import io
import pickle

import numpy as np

MARK = b"HCAJSLHD"
_SHA1 = 20


class _Dtype:
    """For numpy.dtype, whose own `__setstate__` may be given flags that make bytes pointers."""

    def __init__(self, code, *_):
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in "fiub":
            raise pickle.UnpicklingError(f"it holds an array of {self.dtype}")

    def __setstate__(self, state):
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """For numpy.ndarray; `array` is the real one."""

    def __setstate__(self, state):
        _, shape, dtype, columns_first, data = state
        array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if columns_first else "C")
        self.array = array.astype(array.dtype.newbyteorder("="), copy=False)


def _array(*_) -> _Array:
    return _Array()


_KNOWN = {("numpy", "dtype"): _Dtype, ("numpy", "ndarray"): _Array,
          ("numpy.core.multiarray", "_reconstruct"): _array,
          ("numpy._core.multiarray", "_reconstruct"): _array,
          ("jittor", "jittor_core.Var"): lambda array: array}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, not tensors only")
        return _KNOWN[module, name]


def read(content: bytes):
    """What was saved, with arrays for Vars.

    Args:
        content: of the file, which ends in MARK.

    Raises:
        pickle.UnpicklingError: it is damaged, or holds more than arrays, dictionaries, lists, numbers and
            texts; other exceptions are possible where the pickle is not one that Jittor writes.
    """
    saved, found = content[:-_SHA1 - len(MARK)], content[-_SHA1 - len(MARK):-len(MARK)]
    if hashlib.sha1(saved).digest() != found:
        raise pickle.UnpicklingError("its content is not what was saved")
    return _plain(_Unpickler(io.BytesIO(saved)).load())


def _plain(value):
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return value
