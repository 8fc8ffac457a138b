"""The training loop of both trainers. Everything that is not the framework stands here.

An engine is a trainer's framework half; it provides
    step(batch, lr) -> (loss, correct)   one optimizer step; two values still on the device
    fetch(values) -> list[float]         their values on the host, summed over the ranks
    total(array) -> array                float64, summed over the ranks
    align()                              all ranks get the first one's weights and buffers
    outputs(split, batches) -> iterator of (logits [B, C], labels [B]), arrays, in evaluation mode
    seed(value)                          of all random numbers that follow (dropout's)
    arrays() -> name -> array            weights and buffers
    averaged()                           context in which the net has the average weights of --ema, if any
    average_arrays() -> name -> array    that average, empty without one; load_average(arrays)
    optimizer_arrays() -> name -> array  the optimizer's state; load_optimizer(arrays) puts it back
    state_shapes() -> {"optimizer", "average"} -> name -> shape   of these, once there was a step
    peak_memory() -> float               of the process or GPU, MB
    energy() -> float | None             that the one GPU has used so far, J, if its driver counts it
"""
from __future__ import annotations

import itertools
import math
import time

import numpy as np
from tqdm import tqdm

from parity import weights

from . import checkpoint, plots
from .checkpoint import Progress
from .data import BatchPlan, Data, evaluation_batches
from .errors import UserError
from .evaluation import Scores, score
from .run import Run
from .schedule import Schedule

# Losses are brought to the host this often: each fetch waits for the device, and in Jittor ends a fused
# kernel, so that another rhythm would train with other rounding. The first of an epoch is fetched at once: Jittor
# orders the operations of the step after it in another way, for which it would else compile in the second epoch.
FETCH = 20


def plan_and_schedule(args, data: Data) -> tuple[BatchPlan, Schedule]:
    """The batches and learning rates of a run. Raises UserError if they are not possible."""
    plan = BatchPlan(len(data.train), args.batch_size, data.image_size, data.padding, data.flip,
                     args.seed, args.cutout, args.mixup)
    steps = min(len(plan), args.limit_batches or len(plan))
    schedule = Schedule(args.schedule, args.lr, args.epochs * steps, steps,
                        round(args.warmup_epochs * steps), tuple(args.milestones), args.gamma)
    return plan, schedule


def train(engine, data: Data, args, run: Run | None, plan: BatchPlan, schedule: Schedule,
          progress: Progress) -> dict:
    """Train for `args.epochs`, write the run folder, evaluate the last epoch on the test images.

    Args:
        run: None on all ranks but the first, which alone writes.
        progress: what the run has behind it.

    Returns:
        The content of result.json.

    Raises:
        UserError: the loss is no longer finite; the last complete checkpoint is kept.
    """
    start = time.perf_counter() - progress.seconds
    for epoch in range(progress.epoch + 1, args.epochs + 1):
        engine.seed(_epoch_seed(args.seed, epoch))
        row = _train_epoch(engine, plan, schedule, epoch, args, run)
        engine.align()
        row["val_loss"] = row["val_acc"] = None
        with engine.averaged():
            if len(data.val):
                scores = evaluate(engine, data, "val", args)
                row["val_loss"], row["val_acc"] = scores.loss, scores.accuracy
            arrays = engine.arrays()
        _refuse_divergence(epoch, arrays, row["val_loss"])
        if run is None:
            continue
        note = {"net": args.net, "epoch": str(epoch), "command": run.command}
        weights.save(run.path("last.safetensors"), arrays, note)
        if row["val_acc"] is not None and row["val_acc"] > progress.best:
            progress.best = row["val_acc"]
            weights.save(run.path("best.safetensors"), arrays, note)
        row["peak_memory_mb"] = engine.peak_memory()
        run.log_epoch(row)
        progress.seconds = time.perf_counter() - start
        checkpoint.save(run.path(checkpoint.FILE), engine, progress, note)
        print(_line(row, args.epochs), flush=True)
    with engine.averaged():
        scores = evaluate(engine, data, "test", args)
    _refuse_divergence(args.epochs, {}, scores.loss)
    result = {"epochs": args.epochs, "test_loss": scores.loss, "test_acc": scores.accuracy,
              "test_top5": scores.top5, "test_class_acc": scores.by_class(data.classes),
              "test_images": scores.images, "seconds": time.perf_counter() - start}
    if run is None:
        return result
    run.write_text("confusion.csv", scores.table(data.classes))
    plots.curves(run.path("log.csv"), run.path("curves.png"), f"{args.net} on {data.name}")
    run.write_json("result.json", result)  # last: a run that has it is complete
    print(f"test: {shown(scores)}, last epoch")
    print(f"{run.folder}: log.csv, curves.png, last.safetensors")
    return result


def _epoch_seed(seed: int, epoch: int) -> int:
    """A seed for each epoch, so that a run resumes without stored random state."""
    return int(np.random.SeedSequence((seed, epoch, 1)).generate_state(1)[0]) % 2**31


def _refuse_divergence(epoch: int, arrays: dict, *losses: float | None) -> None:
    """A UserError if a weight or an evaluation loss is not finite (Jittor's ReLU turns NaN into 0,
    so that the training loss alone does not tell)."""
    bad = [name for name, a in arrays.items() if not np.isfinite(a).all()]
    if bad or not all(loss is None or math.isfinite(loss) for loss in losses):
        what = bad[0] if bad else "the evaluation loss"
        raise UserError(f"{what} is no longer finite (after epoch {epoch}): try a smaller --lr")


def evaluate(engine, data: Data, split: str, args) -> Scores:
    """The scores on "val" or "test" (with --limit-batches, on its first batches)."""
    batches = evaluation_batches(len(data.splits[split]), args.batch_size, data.image_size)
    own = itertools.islice(batches, engine.ranks.rank, args.limit_batches, engine.ranks.size)
    return score(engine.outputs(split, own), data.num_classes, engine.total)


def shown(scores: Scores) -> str:
    """In one line."""
    return (f"loss {scores.loss:.4f}, accuracy {scores.accuracy:.2%}, top-5 {scores.top5:.2%} "
            f"({scores.images} images)")


def _train_epoch(engine, plan, schedule, epoch, args, run) -> dict:
    steps = schedule.steps_per_epoch
    first = (epoch - 1) * steps
    pending, losses, correct, images, shown_at = [], [], 0.0, 0, 0
    start, energy = time.perf_counter(), engine.energy()
    batches = itertools.islice(plan.epoch(epoch - 1), steps)
    # None: no bar where stderr is not a terminal.
    hidden = None if run else True
    with tqdm(batches, f"epoch {epoch}/{args.epochs}", steps, leave=False, disable=hidden) as bar:
        for index, batch in enumerate(bar, 1):
            pending.append(engine.step(batch, schedule(first + index - 1)))
            images += len(batch.indices)
            if index % FETCH == 0 or index in (1, steps):
                values = engine.fetch([v for pair in pending for v in pair])
                new, hits = values[::2], values[1::2]
                done = first + len(losses)
                losses += new
                correct += sum(hits)
                pending = []
                if run:
                    run.log_steps([(epoch, done + i + 1, schedule(done + i), loss)
                                   for i, loss in enumerate(new)])
                bar.set_postfix(loss=f"{new[-1]:.3f}")
                if args.print_every and index - shown_at >= args.print_every:
                    shown_at = index
                    bar.write(f"epoch {epoch}/{args.epochs}  step {index}/{steps}  loss {new[-1]:.4f}  "
                              f"{images / (time.perf_counter() - start):.0f} images/s")
                if not all(map(math.isfinite, new)):
                    raise UserError(f"the loss is no longer finite (epoch {epoch}, before step "
                                    f"{done + len(new)}): try a smaller --lr")
    seconds = time.perf_counter() - start
    meter = energy, engine.energy()
    return {"epoch": epoch, "lr": schedule(first), "train_loss": sum(losses) / len(losses),
            "train_acc": correct / images, "seconds": seconds, "images_per_second": images / seconds,
            "energy_j": None if None in meter else meter[1] - meter[0]}


def _line(row: dict, epochs: int) -> str:
    parts = [f"epoch {row['epoch']}/{epochs}", f"lr {row['lr']:.4g}",
             f"train loss {row['train_loss']:.4f} acc {row['train_acc']:.2%}"]
    if row["val_acc"] is not None:
        parts.append(f"val loss {row['val_loss']:.4f} acc {row['val_acc']:.2%}")
    parts.append(f"{row['seconds']:.1f} s ({row['images_per_second']:.0f} images/s)")
    return "  ".join(parts)
