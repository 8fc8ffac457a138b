"""From the command line to a finished run: the part of both trainers that comes before the loop."""
from __future__ import annotations

import importlib
import math
import os
import sys
import time

from parity import weights
from zoo.catalog import input_size
from zoo.summary import layer_table, net_table

from . import checkpoint, cli, datasets, loop, options, repeat
from .errors import UserError
from .files import check_writable
from .ranks import Ranks, find
from .run import Run, command, default_folder, environment, read_record


def main(framework: str, engine_class, trace, argv: list[str] | None = None) -> int:
    """The main function of a trainer: `run` on this process's rank; returns the exit code."""
    def body():
        ranks = find(framework)
        if ranks.rank:
            sys.stdout = open(os.devnull, "w")
        try:
            run(framework, engine_class, trace, argv, ranks)
        except UserError as error:
            if ranks.rank == 0:
                raise
            time.sleep(5)  # what all ranks have to say the first one says
            raise UserError(f"rank {ranks.rank}: {error}") from error

    return cli.main(body)


def run(framework: str, engine_class, trace, argv: list[str] | None = None, ranks: Ranks = Ranks()) -> None:
    """Do what the command line asks for.

    Args:
        framework: "jittor" or "torch".
        engine_class: the trainer's framework half (see training.loop).
        trace: (net, image size or None) -> rows of zoo.summary.
        ranks: this process among those of the training.

    Raises:
        UserError: bad input; nothing was trained and no run folder is left.
    """
    args = options.parse(framework, argv)
    folder = args.output_dir or default_folder(f"{args.net}-{framework}")
    if args.seeds and not args.list and not args.summary:
        if ranks.size > 1:
            raise UserError("--seeds starts one training after another: call it without a launcher")
        return repeat.run(framework, sys.argv[1:] if argv is None else argv, args.seeds, folder)
    with cli.stop_promptly(folder / "last.safetensors"):
        if args.list:
            print(net_table(trace))
        elif args.summary:
            print(layer_table(_checked(trace, args.net, args.image_size)))
        else:
            shown = command(f"train_{framework}.py", argv)
            _train(framework, engine_class, args, folder, shown, ranks)


def _train(framework, engine_class, args, folder, shown_command, ranks) -> None:
    if args.save_init and not args.resume:
        check_writable(args.save_init, file=True)
    data = datasets.load(args.dataset, args.data_dir, args.val_fraction, args.seed,
                         args.image_size, args.augment)
    plan, schedule = loop.plan_and_schedule(args, data)
    record = read_record(folder) if args.resume else {}
    if record and record.get("data_sha256") != data.sha256:
        raise UserError(f"the images are no longer those of the run in {folder}")
    state = folder / checkpoint.FILE
    if record and os.path.lexists(state) and not state.is_file():
        raise UserError(f"{state} is no regular file, so that {folder} cannot be resumed")
    resumed = bool(record) and state.is_file()
    start = weights.read(args.init_from) if args.init_from and not resumed else None
    size = input_size(args.net, data.image_size)
    ranks.check(plan.batch_size)
    engine = _checked(engine_class, args, data, ranks)
    zoo = importlib.import_module(options.ZOOS[framework])
    if plan.batch_size == 1:
        traced = importlib.import_module(f"{zoo.__name__}.trace")
        _refuse_one_value_per_channel(traced.trace(engine.net, data.in_channels, size), args.net)
    if start is not None:
        weights.load(engine.net, {zoo.own_key(args.net, key): a for key, a in start.items()})
    if args.evaluate:
        scores = loop.evaluate(engine, data, "test", args)
        if not math.isfinite(scores.loss):
            raise UserError(f"the loss of {args.init_from} on the test images is not finite")
        print(f"test: {loop.shown(scores)}")
        return
    arrays = engine.arrays()
    if record and not resumed and weights.sha256(arrays) != record.get("start_sha256"):
        raise UserError(f"the initial weights are no longer those of the run in {folder}")
    here = {**engine.environment(), **environment(("numpy", framework, "torchvision"))}
    record = record or {"command": shown_command, "options": vars(args), "data": data.source,
                        "data_sha256": data.sha256, "net_image_size": size,
                        "start_sha256": weights.sha256(arrays), **here}
    # Weights and at most two values each of the optimizer, last and best; old files beside the new.
    space = 8 * sum(a.nbytes for a in arrays.values()) + 10_000_000

    def progress():
        if not resumed:
            return checkpoint.Progress()
        return checkpoint.load(state, engine, args.net, record["command"])

    if ranks.rank:
        loop.train(engine, data, args, None, plan, schedule, progress())
        return
    with Run(folder, record, space, bool(args.resume), args.tensorboard) as opened:
        # Until now another process may have trained here.
        if args.resume and ((folder / "result.json").exists() or state.is_file() != resumed):
            raise UserError(f"another process has trained in {folder} meanwhile: try again")
        done = progress()
        if args.resume:
            opened.keep_epochs(done.epoch, schedule.steps_per_epoch)
            print(f"resuming {folder} after epoch {done.epoch}")
        if args.save_init and not resumed:
            weights.save(args.save_init, arrays, {"net": args.net, "seed": str(args.seed)})
        print(f"{args.net} ({framework} on {here['device']}) on {data.source}")
        if size != data.image_size:
            print(f"{args.net} needs {size}x{size} pixels at least: the {data.image_size}x"
                  f"{data.image_size} images are resized on the device (bilinear)")
        loop.train(engine, data, args, opened, plan, schedule, done)


def _refuse_one_value_per_channel(rows, net: str) -> None:
    # An auxiliary head, which has no output here, is taken to end in a 1x1 map.
    if any(row.kind.startswith("BatchNorm") and (row.output or ())[1:] in ((), (1, 1))
           for row in rows):
        raise UserError(f"a batch of one image leaves BatchNorm one value per channel in {net} at "
                        "this image size: use a larger --batch-size")


def _checked(build, *args):
    """Call something that builds a net; its ValueError (an image too small, ...) is bad input."""
    try:
        return build(*args)
    except ValueError as error:
        raise UserError(str(error)) from error
