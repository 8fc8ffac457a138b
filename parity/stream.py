"""Level "data": do both frameworks see the same batches?"""
from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from training.data import BatchPlan, Data, Split, apply

from .report import Check, Report


def digest(x: np.ndarray, y: np.ndarray) -> str:
    """Hex SHA-256 of a batch: shape, dtype and bytes of the inputs, and the labels as int64."""
    found = hashlib.sha256(f"{x.dtype} {x.shape}".encode())
    found.update(np.ascontiguousarray(x))
    found.update(np.ascontiguousarray(y).astype("int64"))
    return found.hexdigest()


def compare_batches(ours: Iterable, theirs: Iterable, report: Report, name: str = "batches") -> None:
    """Two streams of batches must be equal bit by bit, in the same order.

    Args:
        ours, theirs: of Jittor and of the reference, each of (inputs [N, ...], labels [N]) as arrays.
    """
    first, second = list(ours), list(theirs)
    note = ""
    if len(first) != len(second):
        note = f"{len(first)} batches in Jittor, {len(second)} in the reference"
    else:
        hashes = [[digest(*batch) for batch in side] for side in (first, second)]
        wrong = [i for i, (a, b) in enumerate(zip(*hashes)) if a != b]
        if wrong:
            i = wrong[0]
            note = (f"{len(wrong)} of {len(first)} batches differ, first batch {i}: "
                    f"{_difference(first[i], second[i])}")
            if sorted(hashes[0]) == sorted(hashes[1]):
                note = f"the same batches in another order, from batch {i} on"
    distance = np.inf if note else 0.0
    report.checks.append(Check("structure", "data", name, distance, distance, 0.0, 0.0, note=note))


def _difference(ours, theirs) -> str:
    """What is wrong with a batch, in words."""
    (x, y), (right, labels) = ours, theirs
    if x.shape != right.shape or x.dtype != right.dtype:
        return f"{x.dtype} {list(x.shape)} instead of {right.dtype} {list(right.shape)}"
    if np.array_equal(x, right):
        return f"{int((y != labels).sum())} labels"
    found = {"channels in reverse order": x[:, ::-1], "mirrored": x[..., ::-1]} if x.ndim == 4 else {}
    for words, changed in found.items():
        if np.array_equal(changed, right):
            return words
    if sorted(a.tobytes() for a in x) == sorted(a.tobytes() for a in right):
        return "the same images in another order"
    images = int((x != right).reshape(len(x), -1).any(1).sum())
    return f"{images} images, by at most {np.abs(x.astype('float64') - right).max():.3g}"


def own_pipeline(report: Report, seed: int = 0) -> None:
    """The batches that both trainers make of a plan (two epochs of crops, flips and blanked squares, in
    colour and in grey), against the plan as numpy executes it."""
    from jt_models.batches import Batches as JittorBatches
    from torch_ref.batches import Batches as TorchBatches
    import jittor as jt
    rng = np.random.default_rng(seed)
    for channels, words in ((3, "colour"), (1, "grey")):
        images = rng.integers(0, 256, (50, channels, 12, 12), dtype="uint8")
        labels = rng.integers(0, 10, 50).astype("int32")
        split = Split(images, labels)
        data = Data("noise", split, split, split, tuple("0123456789"), (0.4,) * channels,
                    (0.25,) * channels, padding=2, flip=True, source="random pixels")
        plan = BatchPlan(50, 16, 12, padding=2, flip=True, seed=seed, cutout=4)
        batches = [batch for epoch in (0, 1) for batch in plan.epoch(epoch)]
        truth = [(apply(b, images, data.table()), labels[b.indices]) for b in batches]
        torch_side = TorchBatches(data, 12)
        compare_batches(([t.numpy() for t in torch_side("train", b)] for b in batches), truth, report,
                f"train_torch.py, {words}")
        with jt.flag_scope(use_cuda=0):
            jittor_side = JittorBatches(data, 12)
            compare_batches(([np.array(v.numpy()) for v in jittor_side("train", b)] for b in batches), truth,
                    report, f"train_jittor.py, {words}")
