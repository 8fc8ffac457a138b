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

BATCH_SIZE = 4


def compiled(net: str, column: str = "jittor") -> tuple[int, float]:
    """Number of kernels that two training steps and an evaluation of a net add to the cache, and seconds.

    Args:
        column: of `training.bench_worker.COLUMNS`.
    """
    before, start = _kernels(), time.perf_counter()
    work = Work(column, net, image_size(net), BATCH_SIZE)
    work.train(2)
    work.evaluate(1)
    return _kernels() - before, time.perf_counter() - start


def _kernels() -> int:
    return sum(1 for _ in Path(jt.flags.cache_path, "jit").glob("*.so"))


def main(argv: list[str] | None = None) -> int:
    return cli.main(lambda: _run(argv))


def _run(argv: list[str] | None) -> None:
    parser = options.Parser("python -m jt_models.warm", description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter,
                            epilog="Exit code: 0 done; 2 bad input; 130 interrupted.")
    parser.add_argument("nets", metavar="NET", nargs="+", type=options.net, help="nets of the zoo")
    for net in dict.fromkeys(parser.parse_args(argv).nets):
        found, seconds = compiled(net)
        print(f"{net}: {found} kernels compiled, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
