"""python -m parity: is my Jittor port right?

    python -m parity check --net resnet18 densenet --level all
    python -m parity check my_jittor.py:Net my_torch.py:Net --input 2x3x32x32
    python -m parity report results/parity --html report.html
    python -m parity convert in.pth out.safetensors
    python -m parity inject --net resnet18
    python -m parity probe

Exit code: 0 if everything that was judged passed, 1 if something failed, 2 for bad input.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from training import cli
from training.errors import UserError
from training.files import atomic_write, check_writable, write_json

from . import models, report as reports
from .report import LEVELS, VERDICTS, Report

LAST_SEED = 2**31 - 1


def main(argv: list[str] | None = None) -> int:
    # Read when OpenMP is loaded, with PyTorch or Jittor. By default a thread that waits keeps its core busy: with
    # one of two cores taken by another process, a check of a small MobileNet takes 428 s, this way 9 s.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    options = _parser().parse_args(argv)
    status = []
    return cli.main(lambda: status.append(options.run(options))) or status[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m parity", description=__doc__.partition("\n\n")[0],
                                     epilog=__doc__.partition("\n\n")[2],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, text):
        found = commands.add_parser(name, help=text, description=text)
        found.set_defaults(run=run)
        return found

    check = command("check", _check, "compare a Jittor model with its PyTorch reference")
    check.add_argument("models", nargs="*", metavar="MODEL", help="the Jittor model, then the PyTorch "
                       "model: FILE.py:NAME or PACKAGE.MODULE:NAME of a class or function")
    check.add_argument("--net", nargs="+", metavar="NAME", help="nets of this zoo, or all")
    check.add_argument("--input", action="append", metavar="SIZES", help="sizes of an argument of your "
                       "models, such as 2x3x32x32; 2x16:100 for whole numbers below 100; repeat it "
                       "for several arguments")
    check.add_argument("--args", default="{}", metavar="JSON", help="keywords that both models are "
                       "built with, such as '{\"num_classes\": 10}'")
    check.add_argument("--map", metavar="FILE", help="JSON file of names in Jittor -> names in PyTorch "
                       "(tensors or modules), where they cannot be inferred")
    check.add_argument("--level", nargs="+", metavar="LEVEL", help=f"all, or some of "
                       f"{', '.join(LEVELS)}; default: all that judge the model itself")
    check.add_argument("--verdict", nargs="+", choices=VERDICTS, default=list(VERDICTS),
                       help="structure: both sides in float64; numerics: float32 (default: both)")
    check.add_argument("--steps", type=int, default=20, metavar="N",
                       help="length of the training run in float64 (default: 20)")
    check.add_argument("--seed", type=int, default=0, metavar="N",
                       help="of inputs, random weights and labels (default: 0)")
    check.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where float32 runs; "
                       "float64 and the truth are the CPU's (default: cpu)")
    check.add_argument("--optim", default="jt_models.optim", metavar="MODULE", help="Jittor update rules "
                       "that the level optimizer judges (default: jt_models.optim)")
    check.add_argument("--repro", metavar="DIR", help="write a script and the arrays that "
                       "reproduce each first divergence")
    _outputs(check)

    show = command("report", _report, "show saved reports")
    show.add_argument("folder", type=Path, metavar="DIR", help="folder of JSON files that check wrote")
    _outputs(show)

    convert = command("convert", _convert, "copy weights from .pth, .pt, .safetensors or Jittor's .pkl "
                      "to .safetensors")
    convert.add_argument("source", type=Path, metavar="IN")
    convert.add_argument("target", metavar="OUT.safetensors")

    inject = command("inject", _inject, "put port bugs into our nets and see whether they are caught")
    inject.add_argument("--net", nargs="+", metavar="NAME", help="default: one net of each family")
    inject.add_argument("--fault", nargs="+", metavar="NAME", help="default: every fault that applies")
    inject.add_argument("--seeds", type=int, default=0, metavar="N",
                        help="also check the right pair with this many seeds (default: 0)")
    inject.add_argument("--list", action="store_true", help="list the faults and exit")
    inject.add_argument("--json", metavar="FILE", help="write the results")

    probe = command("probe", _probe, "measure Jittor's own operators against float64")
    probe.add_argument("--ops", nargs="+", metavar="OP", help="default: all")
    probe.add_argument("--json", metavar="FILE", help="write the rows")
    return parser


def _outputs(parser) -> None:
    parser.add_argument("--json", metavar="FILE", help="write the report (of several nets: FILE is a folder)")
    parser.add_argument("--html", metavar="FILE", help="write one self-contained page")


def _prepare(options, several: bool = False) -> None:
    """Make Paths of the places to write to.

    Args:
        several: whether --json names a folder.

    Raises:
        UserError: nothing can be written there; so a check does not run for hours in vain.
    """
    for name in ("json", "html", "repro", "target"):
        text = getattr(options, name, None)
        if text is None:
            continue
        path, folder = Path(text), name == "repro" or name == "json" and several
        if not text:
            raise UserError(f"--{name} '' cannot be written: it is no name")
        check_writable(path / "*" if folder else path, file=not folder)
        setattr(options, name, path)


def _check(options) -> int:
    if bool(options.net) == bool(options.models):
        raise UserError("give two models (Jittor first), or --net")
    if options.device == "cuda":  # read by CUDA's libraries as they start
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    if options.steps < 0 or not 0 <= options.seed <= LAST_SEED:
        raise UserError(f"--steps must not be negative and --seed must be 0 to {LAST_SEED}, not "
                        f"{options.steps} and {options.seed}")
    names = models.nets(options.net or [])
    several = len(names) > 1
    _prepare(options, several)
    return _show(_one_by_one(names, options) if several else {"": _single(options)}, options)


def _single(options) -> Report:
    from .api import MODEL_LEVELS, check
    from . import keymap
    if options.net:
        source, inputs = models.zoo(options.net[0], options.seed)
        title = options.net[0]
    else:
        if len(options.models) != 2:
            raise UserError(f"give two models, Jittor first, not {len(options.models)}")
        if not options.input:
            raise UserError("--input is needed: the sizes of what your models take, such as "
                            "--input 2x3x32x32")
        try:
            arguments = json.loads(options.args)
        except (ValueError, RecursionError) as error:
            raise UserError(f"--args {options.args!r:.99} is no JSON: {error}") from error
        if not isinstance(arguments, dict):
            raise UserError(f"--args must be a JSON object, not {options.args!r}")
        source = models.Source(*options.models, arguments)
        inputs = models.random_inputs(options.input, options.seed)
        title = " against ".join(options.models)
    key_map = keymap.read(options.map) if options.map else None
    jittor_model, torch_model = source.build(options.seed)
    return check(jittor_model, torch_model, inputs, key_map=key_map,
                 levels=options.level or MODEL_LEVELS, verdicts=options.verdict, steps=options.steps,
                 seed=options.seed, title=title, optim=options.optim, source=source,
                 reproduction=options.repro, device=options.device)


def _one_by_one(names: list[str], options) -> dict[str, Report]:
    """Each net in a process of its own: Jittor keeps the memory that a net has used."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = Path(folder) / f"{name}.json"
            command = [sys.executable, "-m", "parity", "check", "--net", name, "--json", str(path),
                       "--steps", str(options.steps), "--seed", str(options.seed), "--optim",
                       options.optim, "--device", options.device, "--verdict", *options.verdict]
            command += ["--level", *options.level] if options.level else []
            command += ["--repro", str(options.repro)] if options.repro else []
            done = subprocess.run(command, stdout=subprocess.DEVNULL)
            if done.returncode not in (0, 1) or not path.is_file():
                raise UserError(f"checking {name} ended with exit code {done.returncode}")
            found[path.name] = reports.load(path)
            print(f"{name}: {'passed' if found[path.name].passed else 'FAILED'}", flush=True)
    return found


def _show(found: dict[str, Report], options) -> int:
    """Print and write reports.

    Args:
        found: file in the folder of several reports -> report. (A title is any text, and may come twice.)
    """
    from . import render
    Console().print(render.table([*found.values()]))
    if options.json:
        for name, report in found.items():
            report.save(options.json / name if len(found) > 1 else options.json)
    if options.html:
        with atomic_write(options.html) as file:
            file.write(render.page([*found.values()]).encode())
    return int(not all(report.passed for report in found.values()))


def _report(options) -> int:
    if not options.folder.is_dir():
        raise UserError(f"no such folder: {options.folder}")
    files = sorted(options.folder.glob("*.json"))
    if not files:
        raise UserError(f"{options.folder} holds no reports (*.json)")
    _prepare(options, len(files) > 1)
    return _show({path.name: reports.load(path) for path in files}, options)


def _convert(options) -> int:
    from . import weights
    _prepare(options)
    if options.target.suffix != ".safetensors":
        raise UserError(f"{options.target}: the target must end in .safetensors")
    arrays = weights.read(options.source)
    weights.save(options.target, arrays)
    print(f"{options.target}: {len(arrays)} tensors")
    return 0


def _inject(options) -> int:
    from . import inject
    _prepare(options)
    return inject.run(options)


def _probe(options) -> int:
    from . import probe
    _prepare(options)
    rows = probe.probe(options.ops)
    Console().print(probe.render(rows))
    if options.json:
        write_json(options.json, [row.to_json() for row in rows])
    return 0


if __name__ == "__main__":
    cli.leave(main)
