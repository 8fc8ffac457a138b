"""Ports with one known fault each, and what other tools and this project's judge say of them.

    python docs/comparison/cases.py [--python TOOL=INTERPRETER ...]

runs every tool of `judges.py` that can be imported, in a process of its own: by this interpreter, or
by the one named for it. Writes results/tool_comparison.json and the tables of docs/comparison.md
between its markers. `--table` only rewrites the tables, `--only-ours` only our own column.
"""
from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import jt_models  # noqa: E402  (first: it prepares Jittor's start)
import jittor as jt  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from jt_models import layers, losses, optim  # noqa: E402
from parity import weights  # noqa: E402
from parity.report import VERDICTS  # noqa: E402

HERE = Path(__file__).resolve().parent
RESULT = ROOT / "results" / "tool_comparison.json"
PAGE = ROOT / "docs" / "comparison.md"
KINDS = ("eval", "train", "layers", "gradients", "buffers", "steps")
SHAPE, CLASSES, STEPS = (4, 3, 12, 12), 10, 2

# Tool of judges.py -> heading, and the kinds of tensors that it collects by itself, by its source or
# manual (see the first table of docs/comparison.md). Its rule is shown every other kind as well.
TOOLS = {
    "auto_diff": ("Jittor auto_diff", ("eval", "train", "layers", "gradients", "steps")),
    "jittor_models_test": ("Jittor test_models", ("eval",)),
    # PaDiff looks into a net only where its output differs, so layers decide nothing.
    "padiff": ("PaDiff", ("eval", "train", "gradients", "steps")),
    "padiff_strict": ("PaDiff, strict", ("eval", "train", "gradients", "steps")),
    "reprod_log": ("reprod_log", ("eval", "gradients")),
    "troubleshooter": ("TroubleShooter", ("eval", "layers", "gradients")),
    "msprobe": ("msprobe, Result", ("eval", "train", "layers", "gradients")),
    "msprobe_accuracy": ("msprobe, Accuracy", ("eval", "train", "layers", "gradients")),
    "polygraphy": ("Polygraphy", ("eval", "layers")),
    "dynamo_same": ("dynamo same()", ("eval", "train", "gradients", "buffers", "steps")),
    "assert_close": ("assert_close", KINDS),
}


class HalfConv2d(layers.Conv2d):
    """A convolution whose input has passed through half precision."""

    def execute(self, x):
        return super().execute(x.float16().cast(x.dtype))


def build(nn, eps=1e-5, momentum=0.1, norm=None, alpha=1e-4, conv=None, clip=None, pads=False):
    """A small net, the same in both frameworks: conv, BatchNorm, ReLU6, response normalisation,
    conv, BatchNorm, ReLU, average pools, linear. The arguments are the ways to get it wrong."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
            self.bn1 = (norm or nn.BatchNorm2d)(8, eps=eps, momentum=momentum)
            self.relu1 = (clip or nn.ReLU6)()
            self.lrn = nn.LocalResponseNorm(5, alpha=alpha)
            self.conv2 = (conv or nn.Conv2d)(8, 16, 3, stride=2, padding=1, bias=False)
            self.bn2 = (norm or nn.BatchNorm2d)(16)
            self.relu2 = nn.ReLU()
            self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=pads)
            self.average = nn.AdaptiveAvgPool2d(1)
            self.flatten = nn.Flatten()
            self.fc = nn.Linear(16, CLASSES)

        def forward(self, x):
            x = self.lrn(self.relu1(self.bn1(self.conv1(x))))
            x = self.relu2(self.bn2(self.conv2(x)))
            return self.fc(self.flatten(self.average(self.pool(x))))

        execute = forward  # Jittor's name

    return Net()


SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
OPTIMIZERS = {  # name -> (PyTorch's, Jittor's), each of a list of parameters
    "sgd": (lambda p: torch.optim.SGD(p, **SGD), lambda p: optim.SGD(p, **SGD)),
    "dampened": (lambda p: torch.optim.SGD(p, dampening=0.5, **SGD),
                 lambda p: jt.optim.SGD(p, dampening=0.5, **SGD)),
    "adam": (lambda p: torch.optim.Adam(p, lr=1e-3), lambda p: jt.optim.Adam(p, lr=1e-3)),
}


@dataclass(frozen=True)
class Case:
    """One port.

    Attributes:
        what: what is wrong with it, or why a right one may be rejected.
        wrong: whether it is wrong.
        fault: arguments of `build` for the port.
        optimizer: name in OPTIMIZERS.
        rule: how the level "optimizer" of `parity.check` begins the names of this rule's tensors.
        flip: whether the input is one for which the two frameworks' float32 fall on different
            sides of one ReLU's zero.
    """
    what: str
    wrong: bool = True
    fault: dict | None = None
    optimizer: str = "sgd"
    rule: str = ""
    flip: bool = False


CASES = {
    "right": Case("nothing", wrong=False),
    "flip": Case("nothing; one ReLU unit is within rounding of zero", wrong=False, flip=True),
    "eps": Case("BatchNorm eps 1.1e-5 instead of 1e-5, in one layer", fault={"eps": 1.1e-5}),
    "momentum": Case("BatchNorm momentum 0.9 instead of 0.1 (the other convention), in one layer",
                     fault={"momentum": 0.9}),
    "biased": Case("Jittor's own BatchNorm: biased running variance",
                   fault={"norm": jt.nn.BatchNorm}),
    "dampening": Case("Jittor's own SGD with dampening 0.5: wrong first step", optimizer="dampened",
                      rule="SGD, dampening,"),
    "adam": Case("Jittor's own Adam: epsilon not bias-corrected", optimizer="adam", rule="Adam,"),
    "lrn": Case("response normalisation without the division of alpha by the size",
                fault={"alpha": 5e-4}),
    "half": Case("half precision in one convolution", fault={"conv": HalfConv2d}),
    "relu6": Case("ReLU instead of ReLU6, where this input never exceeds 6",
                  fault={"clip": layers.ReLU}),
    "pads": Case("average pool counts the padding (count_include_pad)", fault={"pads": True}),
}


def reference(seed: int = 0) -> torch.nn.Module:
    """The PyTorch net, with a state that hides nothing: random BatchNorm and biases."""
    torch.manual_seed(seed)
    net = build(torch.nn)
    with torch.no_grad():
        for module in (net.bn1, net.bn2):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.1)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    return net


def pair(case: Case):
    """(port, reference, input, labels) of a case."""
    net = reference()
    port = build(layers, **(case.fault or {}))
    weights.load(port, weights.tensors(net))
    rng = np.random.default_rng(0)
    x = rng.standard_normal(SHAPE).astype("float32")
    y = rng.integers(0, CLASSES, SHAPE[0])
    if case.flip:
        x = with_flip(port, net, x)
        weights.load(port, weights.tensors(net))  # the search moved the running statistics
    return port, net, x, y


def run_torch(net, x, y, make_optimizer, dtype) -> dict[str, np.ndarray]:
    """Every tensor that may be compared, as "kind|name"."""
    net = copy.deepcopy(net).to(dtype)
    x, y = torch.from_numpy(x).to(dtype), torch.from_numpy(y)
    found = {"eval|output": net.eval()(x)}
    handles = [module.register_forward_hook(
        lambda _, __, out, name=name: found.__setitem__(f"layers|{name}", out.detach().clone()))
        for name, module in net.named_children()]
    found["train|output"] = net.train()(x)
    for handle in handles:
        handle.remove()
    torch.nn.functional.cross_entropy(found["train|output"], y).backward()
    found.update((f"gradients|{name}", p.grad.clone()) for name, p in net.named_parameters())
    found.update((f"buffers|{name}", b.clone()) for name, b in net.named_buffers()
                 if b.dtype.is_floating_point)
    optimizer = make_optimizer(list(net.parameters()))
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    found.update((f"steps|{name}", p) for name, p in net.named_parameters())
    return {key: value.detach().numpy().copy() for key, value in found.items()}


def run_jittor(net, x, y, make_optimizer) -> dict[str, np.ndarray]:
    """As `run_torch`, in float32; the net is changed."""
    x, y = jt.array(x), jt.array(y.astype("int32"))
    found = {"eval|output": layers.set_training(net, False)(x).numpy()}
    layers.set_training(net)
    seen = {}
    for name, module in net._modules.items():
        module.register_forward_hook(
            lambda _, __, out, name=name: seen.__setitem__(f"layers|{name}", out))
    seen["train|output"] = output = net(x)
    named = optim.trainable(net)
    grads = jt.grad(losses.cross_entropy(output, y), list(named.values()))
    seen.update((f"gradients|{name}", g) for name, g in zip(named, grads))
    jt.sync_all(True)
    found.update((key, np.array(var.numpy())) for key, var in seen.items())
    for module in net._modules.values():
        module.remove_forward_hook()
    found.update((f"buffers|{name}", a) for name, a in weights.tensors(net).items()
                 if name.rpartition(".")[2] in ("running_mean", "running_var"))
    optimizer = make_optimizer(list(named.values()))
    for _ in range(STEPS):
        optimizer.step(losses.cross_entropy(net(x), y))
        jt.sync_all(True)
    found.update((f"steps|{name}", np.array(p.numpy())) for name, p in named.items())
    return found


def with_flip(port, net, x: np.ndarray, tries: int = 2000) -> np.ndarray:
    """An input near `x` for which, in training mode, Jittor's float32 puts exactly one unit of the
    last ReLU on the other side of zero than PyTorch's float32 and float64 do.

    Raises:
        RuntimeError: none was found.
    """
    nets = [copy.deepcopy(net).to(dtype).train() for dtype in (torch.float32, torch.float64)]
    seen = {}
    for number, model in enumerate(nets):
        model.relu2.register_forward_hook(lambda _, i, __, n=number: seen.__setitem__(n, i[0]))

    def ahead(x):
        for number, model in enumerate(nets):
            leaf = torch.from_numpy(x).to(next(model.parameters()).dtype).requires_grad_()
            model(leaf)
        return leaf, seen[1]

    layers.set_training(port)

    def jittor_input(x):
        before = port.lrn(port.relu1(port.bn1(port.conv1(jt.array(x)))))
        return port.bn2(port.conv2(before)).numpy()

    rng = np.random.default_rng(0)
    _, z = ahead(x)
    unit = np.unravel_index(int(z.detach().abs().argmin()), z.shape)
    for attempt in range(tries):
        leaf, z = ahead(x)
        if attempt % 100 == 0:  # towards the zero of the unit, by the pixel that moves it most
            slope = torch.autograd.grad(z[unit], leaf)[0].numpy()
            pixel = np.unravel_index(int(np.abs(slope).argmax()), x.shape)
            x = x.copy()
            for _ in range(4):
                x[pixel] -= ahead(x)[1][unit].item() / slope[pixel]
            leaf, z = ahead(x)
        theirs, truth, ours = ((a > 0) for a in (seen[0].detach().numpy(), z.detach().numpy(),
                                                 jittor_input(x)))
        if (theirs == truth).all() and (ours != truth).sum() == 1:
            return x
        pixel = tuple(rng.integers(0, size) for size in x.shape)
        x = x.copy()
        x[pixel] = np.nextafter(x[pixel], np.float32(rng.choice([-9, 9])))
    raise RuntimeError("no input was found for which a ReLU flips")


def our_verdict(case: Case) -> dict:
    """What `parity.check` says: {"passed", "failures"}, or {"missing": why}."""
    try:
        from parity import check
    except ImportError as error:
        return {"missing": str(error)}
    port, net, x, y = pair(case)
    options = {}
    if case.rule:  # update rules are judged apart from the model: Jittor's own, one by one
        options = {"levels": "optimizer", "optim": "jittor.optim"}
    report = check(port, net, (x,), labels=y, **options)
    failures = [c for c in report.failures if c.tensor.startswith(case.rule)]
    return {"passed": bool(report.checks) and not failures,
            "failures": sorted({f"{c.verdict} {c.level}" for c in failures}),
            "places": [str(place) for place in report.places],
            "flips": sum(flip["units"] for flip in report.flips)}


def dump(folder: Path) -> None:
    """Write the tensors of every case for judges.py."""
    for name, case in CASES.items():
        port, net, x, y = pair(case)
        theirs, ours = OPTIMIZERS[case.optimizer]
        sides = {"ref": run_torch(net, x, y, theirs, torch.float32),
                 "ref64": run_torch(net, x, y, theirs, torch.float64),
                 "port": run_jittor(port, x, y, ours)}
        missing = set(sides["ref"]) ^ set(sides["port"])
        if missing:
            raise RuntimeError(f"case {name}: only one side has {sorted(missing)}")
        np.savez(folder / f"{name}.npz", **{f"{key}|{side}": a for key in sides["ref"]
                                            for side, a in ((s, t[key]) for s, t in sides.items())})


def ask(script: str, tool: str, interpreter: str, folder: Path) -> dict:
    """The answer of judges.py or native.py for one tool: its version and verdicts, or {"missing":
    why}."""
    done = subprocess.run([interpreter, str(HERE / script), tool, str(folder)],
                          capture_output=True, text=True, cwd=folder,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise RuntimeError(f"{tool} gave no answer:\n{done.stderr[-2000:]}") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", action="append", default=[], metavar="TOOL=INTERPRETER")
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    interpreters = dict(pair.split("=", 1) for pair in args.python)
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if not args.table:
        if not args.only_ours:
            with tempfile.TemporaryDirectory() as folder:
                dump(Path(folder))
                for key, script, tools in (("tools", "judges.py", TOOLS),
                                           ("native", "native.py", ("auto_diff", "padiff"))):
                    result[key] = {tool: ask(script, tool, interpreters.get(tool, sys.executable),
                                             Path(folder)) for tool in tools}
            result["versions"] = {"python": platform.python_version(), "torch": torch.__version__,
                                  "jittor": jt.__version__, "machine": platform.machine()}
        result["ours"] = {name: our_verdict(case) for name, case in CASES.items()}
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    text = table(result)
    print(text)
    if PAGE.exists():
        begin, end = "<!-- cases: made by docs/comparison/cases.py -->\n", "<!-- end -->"
        head, _, rest = PAGE.read_text().partition(begin)
        PAGE.write_text(head + begin + text + "\n" + end + rest.partition(end)[2])


def cell(tool: str, answer: dict, name: str) -> str:
    """What one tool says of one case, in words."""
    if "missing" in answer:
        return "not installed"
    own = TOOLS[tool][1]
    rejected = [kind for kind, names in answer["verdicts"][name].items() if names]
    mine = [kind for kind in rejected if kind in own]
    if not CASES[name].wrong:
        if mine:
            return f"**false alarm** ({', '.join(mine)})"
        return f"passes (its rule would reject {', '.join(rejected)})" if rejected else "passes"
    if mine and any(answer["verdicts"]["right"][kind] for kind in own):
        return "rejected, as the right port is"
    if mine:
        return f"caught ({', '.join(mine)})"
    if rejected:
        return f"**missed** (its rule would see {', '.join(rejected)})"
    return "**missed**"


def our_cell(answer: dict, case: Case) -> str:
    if "missing" in answer:
        return "not run"
    if not case.wrong:
        flips = f" ({answer['flips']} flip)" if answer["flips"] else ""
        return "passes" + flips if answer["passed"] else "**false alarm**"
    verdicts = sorted({VERDICTS[name.split()[0]] for name in answer["failures"]}, reverse=True)
    return "**missed**" if answer["passed"] else f"caught ({', '.join(verdicts)})"


def rows(*lines) -> list[str]:
    head, *body = [f"| {' | '.join(line)} |" for line in lines]
    return [head, "| --- " * len(lines[0]) + "|", *body, ""]


def table(result: dict) -> str:
    """The cases, what every tool's rule says of them, and what two tools say when run whole."""
    lines = rows(["case", "what is wrong with the port", "this project"],
                 *([f"`{name}`", case.what, our_cell(result["ours"][name], case)]
                   for name, case in CASES.items()))
    for tools in (list(TOOLS)[:6], list(TOOLS)[6:]):
        lines += rows(["case", *(TOOLS[tool][0] for tool in tools)],
                      *([f"`{name}`", *(cell(tool, result["tools"][tool], name) for tool in tools)]
                        for name in CASES))
    native = result["native"]["auto_diff"]
    if "cases" in native:
        lines += rows(["Jittor auto_diff, run whole on", *(f"`{name}`" for name in native["cases"])],
                      ["tensors rejected", *(str(len(c["arrays"])) for c in native["cases"].values())],
                      ["`has_error`", *(str(c["has_error"]) for c in native["cases"].values())])
    native = result["native"]["padiff"]
    if "cases" in native:
        lines += rows(
            ["PaDiff, run whole on a Paddle net", *native["cases"]],
            ["verdict", *("SUCCESS" if c["passed"] else "FAILED" for c in native["cases"].values())],
            ["running variance apart", *(f"{c['running statistics apart'][1]:.1g}"
                                         for c in native["cases"].values())])
    versions = {f"{TOOLS[tool][0].split(',')[0]} {answer.get('version', 'not installed')}"
                for tool, answer in result["tools"].items()}
    lines.append(f"Versions: {', '.join(sorted(versions))}. Python {result['versions']['python']}.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
