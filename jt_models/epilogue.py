"""What follows a convolution of ours on a CPU, as part of it: its bias, and in evaluation BatchNorm and ReLU.

Jittor computes what is asked for. So a BatchNorm or ReLU behind a convolution may make this anew with what it does
itself at its end: the former result is never computed, unless it is used otherwise.
"""
from __future__ import annotations

from typing import NamedTuple

import jittor as jt

from .source import filled

# A ReLU compares the bits of numbers as whole ones, by which NaN stays NaN: kernels are compiled as if there were none.
RECTIFIER = """
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
// The whole number that has the bits of a T.
template <class T> using Whole = typename std::conditional<sizeof(T) == 4, int32_t, int64_t>::type;
// y, but 0 below 0 and `most` beyond that: a number, or a vector of them, with the bits of Bits.
template <class Bits, class T, class Number> inline T rectified(T y, Number most) {
    const Number limit = std::numeric_limits<Number>::infinity();
    Bits bits;
    Whole<Number> highest, infinity;
    std::memcpy(&bits, &y, sizeof y);
    std::memcpy(&highest, &most, sizeof most);
    std::memcpy(&infinity, &limit, sizeof limit);
    const T low = bits <= (infinity | std::numeric_limits<Whole<Number>>::min()) ? T{} : y;
    return (bits > highest) & (bits <= infinity) ? T{} + most : low;
}
template <class T> inline T rectified(T y, T most) { return rectified<Whole<T>, T, T>(y, most); }
"""
# `after(channel, y, count)` changes so many outputs of a channel, while they are in a core's cache.
HEADER = RECTIFIER + """
template <class T> struct After {
    const T *scale, *shift;
    bool cut;
    T most;
    void operator()(int64_t channel, T* y, int64_t count) const {
        if (!scale && !shift && !cut) return;
        const T times = scale ? scale[channel] : 1, added = shift ? shift[channel] : 0;
        #pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            const T value = y[i] * times + added;
            y[i] = cut ? rectified(value, most) : value;
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
        """A Var by jt.code of an operation with these `inputs`, in whose source `AFTER` stands for this, in C++."""
        own = [v for v in (self.scale, self.shift) if v is not None]
        places = iter(f"in{len(inputs) + i}_p" for i in range(len(own)))
        pointers = ["nullptr" if v is None else next(places) for v in (self.scale, self.shift)]
        after = f'After<in0_type>{{{", ".join(pointers)}, data["cut"] != 0, (in0_type)data["most"]}}'
        return jt.code(shape, inputs[0].dtype, [*inputs, *own], cpu_header=HEADER + header,
                       cpu_src=filled(source, AFTER=after),
                       data={**data, "cut": float(self.most is not None), "most": float(self.most or 0)})


class _Made(NamedTuple):
    """A convolution that has just been applied; `numbers` are those of what it was made from."""
    number: int
    operation: jt.Function
    inputs: tuple[jt.Var, jt.Var]
    after: After
    numbers: list[int]


_last: _Made | None = None


def convolved(operation, x, weight, bias):
    """`operation` without gradients, of which a BatchNorm or ReLU may become part until the next convolution. So long x,
    weight and bias are kept."""
    return _applied(operation, (x, weight), After(shift=bias))


def _applied(operation, inputs, after):
    global _last
    y = operation.applied(*inputs, after)
    _last = _Made(y.id, operation, inputs, after, _numbers(inputs, after))
    return y


def _numbers(inputs, after: After) -> list[int]:
    return [v.id for v in (*inputs, after.scale, after.shift) if v is not None]


def forget() -> None:
    """Let go of the last convolution."""
    global _last
    _last = None


def _taken(y) -> _Made | None:
    """What made y, if that was the last convolution and nothing that it was made from has changed."""
    made = _last
    if made is None or made.number != y.id or made.numbers != _numbers(made.inputs, made.after):
        return None
    forget()
    return made


def normalised(y, scale, shift):
    """y * scale + shift, [C] each, by the convolution that made y; None where another operation did."""
    made = _taken(y) if y.dtype == scale.dtype == shift.dtype else None
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
