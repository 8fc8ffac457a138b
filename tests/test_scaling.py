"""The arithmetic of docs/scaling.md."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "results"))

from scaling import Machine, hidden_up_to, measured_steps, ring, step  # noqa: E402


def test_a_ring_sends_the_gradient_almost_twice():
    machine = Machine(4e9, 1e9, 0.0)
    assert ring(1e9, 1, machine) == 0
    assert ring(1e9, 2, machine) == pytest.approx(0.25)
    assert ring(1e9, 8, machine) == pytest.approx(2 * 7 / 8 / 4)
    assert ring(1e9, 1000, machine) == pytest.approx(2 * 0.999)
    assert ring(0, 9, Machine(1, 1, 1e-3)) == pytest.approx(16e-3)


def test_a_step_waits_for_what_the_backward_pass_does_not_hide():
    machine = Machine(1e9, 1e9, 0.0)
    # Forward 2 s, backward 4 s; a gradient of a billion bytes travels for nearly 2 s, one of four for 7.9 s.
    assert step(6.0, 250_000_000, 64, machine) == (6.0, 0.0)
    seconds, waits = step(6.0, 10**9, 64, machine)
    assert waits == pytest.approx(2 * 63 / 64 * 4 - 4) and seconds == pytest.approx(6 + waits)
    assert step(6.0, 10**12, 1, machine) == (6.0, 0.0)


def test_latency_ends_the_hiding():
    # Backward 4 s; 2 (n - 1) hops of 0.1 s.
    assert hidden_up_to(6.0, 0, Machine(1, 1, 0.1)) == 16


def test_steps_are_those_that_were_measured():
    """Of PyTorch's two layouts the faster one."""
    steps, made = measured_steps()
    rounds = {row["column"]: row["seconds"]["train"] for row in made["rows"] if row["net"] == "googlenet"}
    assert steps["googlenet", "torch"] == sorted(rounds["torch-channels-last"])[2] < sorted(rounds["torch"])[2]
    assert steps["googlenet", "jittor"] == sorted(rounds["jittor"])[2]
