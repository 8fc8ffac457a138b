"""Imports PyTorch and Jittor in the one order in which both work."""
import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # see parity.__main__.main; subprocesses take it over
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # on a GPU products keep their digits

import jt_models  # noqa: E402, F401
import pytest  # noqa: E402


@pytest.fixture
def noted(record_property):
    """A function that notes a row of results/faults.json (see results/faults.py)."""
    def note(fault: str, component: str, outcome: str) -> None:
        for name, value in (("fault", fault), ("component", component), ("outcome", outcome)):
            record_property(name, value)
    return note
