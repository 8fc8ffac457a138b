"""Forms of data that a JSON file may hold.

A form is a function of a value and of the place where it was found; it gives what the value stands for, or
raises UserError with the place, the value and what is allowed.
"""
from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable

from .errors import UserError

Form = Callable[[object, str], object]


def text(value, place: str) -> str:
    return value if isinstance(value, str) else _refuse(value, place, "a text")


def flag(value, place: str) -> bool:
    return value if isinstance(value, bool) else _refuse(value, place, "true or false")


def count(value, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        _refuse(value, place, "a whole number of at least 0")
    return value


def size(value, place: str) -> float:
    """A number of at least 0; null, for JSON has no such number, is infinity."""
    if value is None or value == math.inf:
        return math.inf
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= sys.float_info.max:
        _refuse(value, place, "a number of at least 0, or null for infinity")
    return float(value)


def between(low: float, high: float, whole: bool = False) -> Form:
    """A number from `low` to `high`; true and false are none."""
    def form(value, place: str):
        if type(value) not in ((int,) if whole else (int, float)) or not low <= value <= high:
            _refuse(value, place, f"a {'whole ' * whole}number from {low:g} to {high:g}")
        return value
    return form


def or_null(inner: Form) -> Form:
    return lambda value, place: None if value is None else inner(value, place)


def note(value, place: str):
    """A text, a number, null, or a list or dictionary of these."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    if any(isinstance(part, (dict, list)) for part in parts):
        _refuse(value, place, "of texts and numbers")
    return value


def one_of(names: Iterable[str], called: str = "") -> Form:
    """One of these texts, which the error lists, or calls so."""
    def form(value, place: str) -> str:
        if not isinstance(value, str) or value not in names:
            _refuse(value, place, called or f"one of {', '.join(names)}")
        return value
    return form


def list_of(inner: Form) -> Form:
    def form(value, place: str) -> list:
        if not isinstance(value, list):
            _refuse(value, place, "a list")
        return [inner(item, f"{place}[{i}]") for i, item in enumerate(value)]
    return form


def dict_of(inner: Form) -> Form:
    """A dictionary with any names."""
    def form(value, place: str) -> dict:
        if not isinstance(value, dict):
            _refuse(value, place, "a dictionary")
        return {text(name, place): inner(item, f"{place}.{name}") for name, item in value.items()}
    return form


def holding(**fields: Form) -> Form:
    """A dictionary with at least these names; gives their values."""
    def form(value, place: str) -> dict:
        if not isinstance(value, dict):
            _refuse(value, place, "a dictionary")
        if wrong := [name for name in fields if name not in value]:
            raise UserError(f"{place} has no {wrong[0]!r}")
        return {name: inner(value[name], f"{place}.{name}") for name, inner in fields.items()}
    return form


def record(make: Callable, **fields: Form) -> Form:
    """A dictionary with exactly these names; gives `make(**values)`."""
    held = holding(**fields)

    def form(value, place: str):
        found = held(value, place)
        if wrong := [name for name in value if name not in fields]:
            raise UserError(f"{place} has {wrong[0]!r}; allowed are {', '.join(fields)}")
        return make(**found)
    return form


def _refuse(value, place: str, allowed: str):
    shown = {list: "a list", dict: "a dictionary", type(None): "null"}.get(type(value), f"{value!r:.60}")
    raise UserError(f"{place} must be {allowed}, not {shown}")
