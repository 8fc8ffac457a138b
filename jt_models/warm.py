"""Compiles ahead what Jittor compiles when nets are trained, so that their first steps start at once.

    python -m jt_models.warm densenet resnet18

The kernels stay in Jittor's cache folder and serve every batch size.
"""
from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import jittor as jt

from training import cli, options
from training.bench_worker import Work, image_size


def kernels() -> int:
    """How many there are in Jittor's cache."""
    return sum(1 for _ in Path(jt.flags.cache_path, "jit").glob("*.so"))


def main(argv: list[str] | None = None) -> int:
    return cli.main(lambda: _run(argv))


def _run(argv: list[str] | None) -> None:
    parser = options.Parser("python -m jt_models.warm", description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter,
                            epilog="Exit code: 0 done; 2 bad input; 130 interrupted.")
    parser.add_argument("nets", metavar="NET", nargs="+", type=options.net, help="nets of the zoo")
    for net in dict.fromkeys(parser.parse_args(argv).nets):
        before, start = kernels(), time.perf_counter()
        work = Work("jittor", net, image_size(net), 4)
        work.train(2)
        work.evaluate(1)
        print(f"{net}: {kernels() - before} kernels compiled, {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
