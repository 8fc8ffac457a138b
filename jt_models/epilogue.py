"""What follows a convolution of ours on a CPU, as part of it: its bias, and in evaluation BatchNorm and ReLU.

Jittor computes what is asked for. So a BatchNorm or ReLU behind a convolution may make this anew with what it does
itself at its end: the former result is never computed, unless it is used otherwise.
"""
from __future__ import annotations

from typing import NamedTuple

import jittor as jt

# `after(channel, y, count)` changes so many outputs of a channel, while they are in a core's cache.
HEADER = """
#include <cstdint>
template <class T> struct After {
    const T *scale, *shift;
    bool rectified;
    T most;
    void operator()(int64_t channel, T* y, int64_t count) const {
        if (!scale && !shift && !rectified) return;
        const T times = scale ? scale[channel] : 1, added = shift ? shift[channel] : 0;
        #pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            const T value = y[i] * times + added, low = value > 0 ? value : 0;
            y[i] = !rectified ? value : low < most ? low : most;
        }
    }
};
"""


class After(NamedTuple):
    """y * scale + shift, by channel, then no less than 0 and no more than `most`. None leaves its part out."""
    scale: jt.Var | None = None
    shift: jt.Var | None = None
    most: float | None = None

    def code(self, shape, source: str, header: str, inputs, data):
        """A Var by jt.code of an operation that has these `inputs`, at the end of whose source `AFTER` is an `After`."""
        own = [v for v in (self.scale, self.shift) if v is not None]
        places = iter(f"in{len(inputs) + i}_p" for i in range(len(own)))
        pointers = ["nullptr" if v is None else next(places) for v in (self.scale, self.shift)]
        after = f'After<in0_type>{{{", ".join(pointers)}, data["rectified"] != 0, (in0_type)data["most"]}}'
        return jt.code(shape, inputs[0].dtype, [*inputs, *own], cpu_header=HEADER + header,
                       cpu_src=source.replace("AFTER", after),
                       data={**data, "rectified": float(self.most is not None), "most": float(self.most or 0)})


class _Made(NamedTuple):
    """A convolution that has just been applied; `numbers` are those of its inputs."""
    number: int
    operation: jt.Function
    inputs: tuple[jt.Var, jt.Var]
    numbers: list[int]
    after: After


_last: _Made | None = None


def convolved(operation, x, weight, bias):
    """`operation` without gradients, of which a BatchNorm or ReLU may become part until the next one."""
    return _applied(operation, (x, weight), After(shift=bias))


def _applied(operation, inputs, after):
    global _last
    y = operation.applied(*inputs, after)
    _last = _Made(y.id, operation, inputs, [v.id for v in inputs], after)
    return y


def _taken(y) -> _Made | None:
    """What made y, if that was the last convolution and its inputs have not changed."""
    global _last
    if _last is None or _last.number != y.id or _last.numbers != [v.id for v in _last.inputs]:
        return None
    made, _last = _last, None
    return made


def normalised(y, scale, shift):
    """y * scale + shift, [C] each, by the convolution that made y; None where another operation did."""
    made = _taken(y)
    if made is None:
        return None
    first = made.after
    shift = shift if first.shift is None else first.shift * scale + shift
    scale = scale if first.scale is None else first.scale * scale
    return _applied(made.operation, made.inputs, After(scale, shift))


def rectified(y, most: float):
    """y between 0 and `most`, as `normalised`."""
    made = _taken(y)
    return made and made.operation.applied(*made.inputs, made.after._replace(most=most))
