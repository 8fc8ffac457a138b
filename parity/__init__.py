"""The judge: weight conversion, and the checks that a Jittor net and its PyTorch reference agree.

    from parity import check
    print(check(jittor_model, torch_model, inputs))

What is imported from here is loaded when it is used: the trainers need the weights only.
"""
import importlib

_PLACES = {"check": "api", "assert_parity": "api", "Report": "report", "Check": "report",
           "compare_batches": "stream", "convert": "weights"}
__all__ = [*_PLACES]


def __getattr__(name: str):
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
