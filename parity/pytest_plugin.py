"""pytest plugin: a marker, a fixture and a report for tests that a port is right.

    pytest_plugins = ["parity.pytest_plugin"]   # in your conftest.py

    import pytest
    from parity import assert_parity

    @pytest.mark.parity("my_jittor.py:Net", "my_torch.py:Net", "2x3x32x32")
    def test_port(parity_pair):
        assert_parity(*parity_pair)

`parity_pair` is (Jittor model, PyTorch model, inputs). A failing `assert_parity` shows the whole report
in a section of its own.
"""
from __future__ import annotations

import pytest


def pytest_configure(config):
    config.addinivalue_line("markers", "parity(jittor, torch, *inputs, seed=0, **arguments): the models "
                            "of parity_pair, the sizes of their inputs, and what both are built with")


@pytest.fixture
def parity_pair(request):
    """(Jittor model, PyTorch model, inputs) of the test's marker `parity`."""
    marker = request.node.get_closest_marker("parity")
    if marker is None or len(marker.args) < 3:
        pytest.fail("parity_pair needs @pytest.mark.parity(JITTOR_MODEL, PYTORCH_MODEL, SIZES, ...)",
                    pytrace=False)
    from .models import Source, random_inputs
    jittor, torch, *sizes = marker.args
    arguments = dict(marker.kwargs)
    seed = arguments.pop("seed", 0)
    return (*Source(jittor, torch, arguments).build(seed), random_inputs(sizes, seed))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = getattr(call.excinfo and call.excinfo.value, "report", None)
    if report is not None and type(call.excinfo.value).__name__ == "ParityError":
        import io
        from rich.console import Console
        from .render import table
        text = io.StringIO()
        Console(file=text, width=100).print(table([report]))
        outcome.get_result().sections.append(("parity report", text.getvalue()))
