"""The verdict rules of other tools, each called through its own code with its own defaults.

    python judges.py TOOL FOLDER     prints one line of JSON

One process per tool, so that each may live in an environment of its own: this file needs numpy and
the tool. FOLDER holds one .npz per case, whose arrays are named "kind|tensor|side"; side is "ref"
(the reference, float32), "port", or "ref64" (the reference in float64). The JSON says which version
answered and, per case, which tensors it rejected.
"""
from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import io
import json
import logging
import os
import sys
import tempfile
from pathlib import Path

import numpy as np


def auto_diff():
    """Jittor's recorder: jittor_utils.auto_diff.Hook, first in its "save", then in its "check" mode."""
    import jt_models  # noqa: F401  (makes `import jittor` work)
    import jittor as jt
    from jittor_utils import auto_diff as tool

    names = iter(range(10 ** 9))

    def judge(ref, port, _):
        base = f"comparison-{os.getpid()}-{next(names)}"
        for array in (ref, port):  # a Hook checks where a folder of that name exists, else saves
            hook = tool.Hook(base)
            before = tool.has_error
            hook.record("tensor", array)
        for file in Path(hook.base_path).iterdir():
            file.unlink()
        Path(hook.base_path).rmdir()
        return tool.has_error == before
    return jt.__version__, judge


def padiff():
    """PaDiff's comparison of two tensors, with the options that `auto_diff` fills in."""
    from padiff.utils import assert_tensor_equal, init_options
    options = {}
    init_options(options)
    return _version("padiff"), _asserting(lambda ref, port, _: assert_tensor_equal(port, ref, options))


def padiff_strict():
    """The same with the options of the README's example: strict, atol 1e-4, rtol 0."""
    from padiff.utils import assert_tensor_equal, init_options
    options = {"atol": 1e-4, "rtol": 0, "compare_mode": "strict"}
    init_options(options)
    return _version("padiff"), _asserting(lambda ref, port, _: assert_tensor_equal(port, ref, options))


def reprod_log():
    """ReprodDiffHelper.report, whose verdict is a line of its log."""
    from reprod_log import ReprodDiffHelper, ReprodLogger

    def judge(ref, port, _):
        sides = []
        for array in (ref, port):
            log = ReprodLogger()
            log.add("tensor", array)
            sides.append(log.data)
        helper = ReprodDiffHelper()
        helper.compare_info(*sides)
        with tempfile.TemporaryDirectory() as folder:
            helper.report(path=f"{folder}/diff.txt")
            root = logging.getLogger("root")
            for handler in list(root.handlers):  # each report adds two
                handler.close()
                root.removeHandler(handler)
            return "diff check passed" in Path(folder, "diff.txt").read_text()
    return _version("reprod_log"), judge


def troubleshooter():
    """MindSpore TroubleShooter's rule, with the tolerances of `migrator.compare_npy_dir`."""
    from troubleshooter.migrator import diff_handler
    defaults = inspect.signature(diff_handler.compare_npy_dir).parameters
    tolerances = [defaults[name].default for name in ("rtol", "atol", "equal_nan")]

    def judge(ref, port, _):
        equal = diff_handler.cal_algorithm(ref, port, *tolerances)[0]
        return not isinstance(equal, str) and bool(equal)  # a sentence, where the shapes differ
    return _version("troubleshooter"), judge


def msprobe():
    """msprobe's table: the metrics of `compare`, and the checkers that fill its column Result. A
    module is given an input that agrees, since most checkers ask where an error first appears."""
    from msprobe.core.common.const import CompareConst as Names
    from msprobe.core.compare.indicator_analysis.calculator import ApiIndicatorCalculator
    from msprobe.core.compare.indicator_analysis.utils import CompareMode
    from msprobe.core.compare.npy_compare import compare_ops_apply
    header = list(Names.COMPARE_RESULT_HEADER)

    def row(name, ref, port):
        metrics, _ = compare_ops_apply(port.copy(), ref.copy(), False, "")
        values = dict(zip(Names.BUILTIN_COMPARE_COLUMNS, metrics))
        for prefix, array in (("NPU", port), ("Bench", ref)):
            values.update({f"{prefix} Name": name, f"{prefix} Dtype": str(array.dtype),
                           f"{prefix} Tensor Shape": str(list(array.shape)),
                           f"{prefix} max": float(array.max()), f"{prefix} min": float(array.min())})
        return [values.get(column, "") for column in header]

    def judge(ref, port, _):
        same = np.ones_like(ref)
        rows = [row("Module.m.forward.0.input.0", same, same.copy()),
                row("Module.m.forward.0.output.0", ref, port)]
        return ApiIndicatorCalculator(CompareMode.TENSOR.value, "").calculate(rows) == Names.PASS
    return _version("mindstudio-probe"), judge


def msprobe_accuracy():
    """msprobe's other rule, "Accuracy Reached or Not": cosine and largest absolute error."""
    from msprobe.core.compare.multiprocessing_compute import check_accuracy
    from msprobe.core.compare.npy_compare import compare_ops_apply

    def judge(ref, port, _):
        cosine, _, largest, *_ = compare_ops_apply(port.copy(), ref.copy(), False, "")[0]
        return check_accuracy(cosine, largest) == "Yes"
    return _version("mindstudio-probe"), judge


def polygraphy():
    """Polygraphy's Comparator.compare_accuracy with its default comparison function."""
    from polygraphy.comparator import Comparator, RunResults
    from polygraphy.logger import G_LOGGER
    G_LOGGER.module_severity = G_LOGGER.CRITICAL

    def judge(ref, port, _):
        runs = RunResults()
        runs.add([{"tensor": ref}], runner_name="reference")
        runs.add([{"tensor": port}], runner_name="port")
        return bool(Comparator.compare_accuracy(runs))
    return _version("polygraphy"), judge


def dynamo_same():
    """torch._dynamo.utils.same with the float64 reference and otherwise its defaults."""
    import torch
    from torch._dynamo.utils import same
    return torch.__version__, lambda *arrays: same(*map(torch.from_numpy, arrays))


def assert_close():
    """torch.testing.assert_close, the usual hand-written test, with its float32 defaults."""
    import torch
    return torch.__version__, _asserting(
        lambda ref, port, _: torch.testing.assert_close(*map(torch.from_numpy, (port, ref))))


def jittor_models_test():
    """The rule of Jittor's own test_models.py, which is no function that could be called: 1 is added
    to both sides, and the mean of |x - y| / |y| must stay below 1e-2."""
    return _version("jittor"), lambda ref, port, _: bool(
        (abs(ref - port) / abs(port + 1)).mean() < 1e-2)


TOOLS = {function.__name__: function for function in (
    auto_diff, padiff, padiff_strict, reprod_log, troubleshooter, msprobe, msprobe_accuracy,
    polygraphy, dynamo_same, assert_close, jittor_models_test)}


def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _asserting(compare):
    def judge(*arrays):
        try:
            compare(*arrays)
        except AssertionError:
            return False
        return True
    return judge


def judge_folder(judge, folder: Path) -> dict:
    """Per case: per kind the names of the tensors that `judge` rejected."""
    verdicts = {}
    for path in sorted(folder.glob("*.npz")):
        rejected: dict[str, list[str]] = {}
        with np.load(path) as arrays:
            keys = list(dict.fromkeys(key.rpartition("|")[0] for key in arrays))
            for key in keys:
                kind, name = key.split("|")
                names = rejected.setdefault(kind, [])
                if not judge(*(arrays[f"{key}|{side}"] for side in ("ref", "port", "ref64"))):
                    names.append(name)
        verdicts[path.stem] = rejected
    return verdicts


def main(tool: str, folder: str) -> None:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            version, judge = TOOLS[tool]()
    except Exception as error:  # whatever a foreign import raises is the answer
        found = {"missing": f"{type(error).__name__}: {error}"}
    else:
        with contextlib.redirect_stdout(io.StringIO()):
            found = {"version": version, "verdicts": judge_folder(judge, Path(folder))}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
