"""Two of the other tools, run whole on pairs of models, as their manuals say, not their rule alone.

    python docs/comparison/native.py auto_diff|padiff      prints one line of JSON

"auto_diff" records two training steps of the PyTorch net of `cases.py` and checks the Jittor net
against them; "padiff" needs Paddle, and compares a small net in Paddle and PyTorch, since it knows no
Jittor. The JSON maps each case to what was rejected, and for PaDiff also to how far the running
statistics, which it does not compare, are apart.
"""
from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import io
import json
import os
import shutil
import sys
import tempfile

import numpy as np

STEPS = 2


def auto_diff() -> dict:
    from cases import CASES, OPTIMIZERS, layers, losses, optim, pair
    import jittor as jt
    import torch
    from jittor_utils import auto_diff as tool

    class Hook(tool.Hook):
        """Remembers which arrays were rejected; `has_error` counts them and the optimizers' options,
        whose names differ between the frameworks for any port."""
        rejected: list[str] = []

        def check_array(self, name, a, b):
            before = tool.has_error
            super().check_array(name, a, b)
            if tool.has_error > before:
                self.rejected.append(name)

    found = {}
    for name, case in CASES.items():
        port, net, x, y = pair(case)
        base = f"comparison-{os.getpid()}-{name}"
        theirs, ours = OPTIMIZERS[case.optimizer]
        hook = Hook(base)
        net = copy.deepcopy(net).train()
        hook.hook_module(net)
        optimizer = theirs(list(net.parameters()))
        hook.hook_optimizer(optimizer)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y))
            loss.backward()
            optimizer.step()
        Hook.rejected, before = [], tool.has_error
        hook = Hook(base)  # the folder exists by now, so this one checks
        layers.set_training(port)
        hook.hook_module(port)
        optimizer = ours(list(optim.trainable(port).values()))
        hook.hook_optimizer(optimizer)
        for _ in range(STEPS):
            optimizer.step(losses.cross_entropy(port(jt.array(x)), jt.array(y.astype("int32"))))
        shutil.rmtree(hook.base_path)
        found[name] = {"arrays": Hook.rejected, "has_error": tool.has_error - before}
    return {"version": importlib.metadata.version("jittor"), "cases": found}


def padiff() -> dict:
    import paddle
    import torch
    from padiff import auto_diff as compare

    def build(nn, conv, norm, linear, relu, **options):
        class Net(nn):
            def __init__(self):
                super().__init__()
                self.conv = conv(3, 8, 3, padding=1)
                self.bn = norm(8, **options)
                self.fc = linear(8, 10)

            def forward(self, x):
                return self.fc(relu(self.bn(self.conv(x))).mean((2, 3)))
        return Net()

    strict = {"atol": 1e-4, "rtol": 0, "compare_mode": "strict"}  # of PaDiff's README
    found = {}
    for name, fault in (("right", {}), ("eps", {"epsilon": 1.1e-5}), ("momentum", {"momentum": 0.1})):
        for mode, options in (("default", {}), ("strict", dict(strict))):
            torch.manual_seed(0)
            t = build(torch.nn.Module, torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.Linear,
                      torch.relu)
            p = build(paddle.nn.Layer, paddle.nn.Conv2D, paddle.nn.BatchNorm2D, paddle.nn.Linear,
                      paddle.nn.functional.relu, **fault)
            x = np.random.default_rng(0).standard_normal((4, 3, 12, 12)).astype("float32")
            passed = compare(
                p, t, ({"x": paddle.to_tensor(x)}, {"x": torch.from_numpy(x)}), options=options,
                optimizer=(paddle.optimizer.SGD(0.01, parameters=p.parameters()),
                           torch.optim.SGD(t.parameters(), 0.01)), steps=STEPS)
            apart = [float(abs(a.numpy() - b.numpy()).max()) for a, b in (
                (p.bn._mean, t.bn.running_mean), (p.bn._variance, t.bn.running_var))]
            found[f"{name}, {mode}"] = {"passed": bool(passed), "running statistics apart": apart}
    return {"version": importlib.metadata.version("padiff"), "cases": found,
            "paddle": paddle.__version__}


def main(tool: str) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
        sys.path.insert(0, folder)  # PaDiff writes its log beside whatever comes first
        os.chdir(folder)
        try:
            found = {"auto_diff": auto_diff, "padiff": padiff}[tool]()
        except ImportError as error:
            found = {"missing": f"{type(error).__name__}: {error}"}
        finally:
            os.chdir("/")
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
