"""Train nets in both frameworks on the same batches from the same weights, and put them side by side.

    python compare.py --nets cnn resnet18_lab --seeds 0 1 2 -- --epochs 5
    python compare.py RUN_FOLDER RUN_FOLDER ...     finished runs of both trainers
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training import cli, comparison, comparison_page, finished, launch, options
from training.errors import UserError
from training.files import check_writable
from training.run import command, default_folder


def main(argv: list[str] | None = None) -> int:
    return cli.main(lambda: _run(sys.argv[1:] if argv is None else argv))


def _parser() -> argparse.ArgumentParser:
    parser = options.Parser(
        prog="compare.py", formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__,
        epilog="What follows -- goes to both trainers (see train_torch.py --help). Runs alternate and "
               "never share the machine. A comparison with --output-dir that was interrupted goes on with "
               "the same command. Exit code: 0 done; 2 bad input; 130 interrupted; else that of the "
               "trainer that failed.")
    parser.add_argument("runs", metavar="RUN_FOLDER", nargs="*", type=Path, help="folders of finished runs")
    parser.add_argument("--nets", metavar="NAME", nargs="+", default=[], help="nets to train")
    parser.add_argument("--seeds", metavar="N", nargs="+", type=int, default=[0],
                        help="a pair of runs for each (default: 0)")
    parser.add_argument("--margin", type=float, default=0.02, metavar="F",
                        help="accuracies that differ by less count as equal (default: %(default)s)")
    parser.add_argument("--output-dir", type=Path, metavar="DIR",
                        help="for the report and, in its folder runs, the runs "
                             "(default: runs/comparison-TIME)")
    return parser


def _run(argv: list[str]) -> None:
    place = argv.index("--") if "--" in argv else len(argv)
    args, passed = _parser().parse_args(argv[:place]), argv[place + 1:]
    if bool(args.runs) == bool(args.nets) or args.runs and passed:
        raise UserError("give folders of finished runs, or --nets and options of the trainers after --")
    if not 0 < args.margin < 1:
        raise UserError(f"--margin {args.margin} is not allowed: above 0 and below 1")
    folder = args.output_dir or default_folder("comparison")
    check_writable(folder / "runs")
    folders = args.runs
    if args.nets:
        wanted = [(net, seed) for net in dict.fromkeys(args.nets) for seed in dict.fromkeys(args.seeds)]
        for net, seed in wanted:  # bad options are told before anything is trained
            for framework in finished.FRAMEWORKS:
                options.parse(framework, _options(net, seed, passed))
        folders = [made for net, seed in wanted for made in _pair(net, seed, passed, folder / "runs")]
    found = comparison.compare([finished.read(run) for run in folders], args.margin)
    comparison_page.write(found, folder, command("compare.py", argv))
    print((folder / "comparison.md").read_text())
    print(f"{folder}: comparison.html, .md, .csv, {', '.join(f'{one.net}.png' for one in found)}")


def _options(net: str, seed: int, passed: list[str]) -> list[str]:
    options.refuse(passed, ("--net", "--seed", "--init-from", *options.NO_RUN, *options.OUTPUTS),
                   "cannot be passed to the trainers by compare.py")
    return [*passed, "--net", net, "--seed", str(seed)]


def _pair(net: str, seed: int, passed: list[str], folder: Path) -> list[Path]:
    """Train a net in both frameworks, the second from the weights of the first; they take turns."""
    order = finished.FRAMEWORKS if seed % 2 == 0 else finished.FRAMEWORKS[::-1]
    init = folder / f"{net}-{seed}-init.safetensors"
    made = []
    for place, framework in enumerate(order):
        run = folder / f"{net}-{seed}-{framework}"
        made.append(run)
        print(f"{net}, seed {seed}, {framework}", flush=True)
        code = launch.train(framework, _options(net, seed, passed), run,
                            "--init-from" if place else "--save-init", str(init))
        if code:
            raise SystemExit(code)
    return made


if __name__ == "__main__":
    sys.exit(main())
