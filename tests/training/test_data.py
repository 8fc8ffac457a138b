"""The batch plan, its reference execution, and the data container."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from training.data import Batch, BatchPlan, Data, Split, apply, evaluation_batches
from training.errors import UserError


def split(n=4, channels=3, size=8, seed=0, classes=2):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (n, channels, size, size), np.uint8)
    return Split(images, (np.arange(n) % classes).astype(np.int32))


def data(**changes):
    fields = dict(
        name="toy", train=split(seed=1), val=split(2, seed=2), test=split(3, seed=3),
        classes=("a", "b"), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), padding=1, flip=True,
        source="toy data",
    )
    fields.update(changes)
    return Data(**fields)


def stack(batches):
    return [np.concatenate(parts) for parts in
            zip(*((b.indices, b.rows, b.columns) for b in batches))]


plans = st.builds(
    BatchPlan,
    n=st.integers(1, 60),
    batch_size=st.integers(1, 70),
    image_size=st.integers(2, 9),
    padding=st.integers(0, 2),
    flip=st.booleans(),
    seed=st.integers(0, 2**40),
)


@settings(deadline=None)
@given(plan=plans, k=st.integers(0, 1000))
def test_every_epoch_is_a_valid_plan(plan, k):
    batches = list(plan.epoch(k))
    assert len(batches) == len(plan)
    assert {len(b.indices) for b in batches} == {plan.batch_size}
    assert plan.n - len(plan) * plan.batch_size < plan.batch_size  # no full batch is dropped
    indices, rows, columns = stack(batches)
    assert indices.dtype == rows.dtype == columns.dtype == np.int32
    assert len(set(indices)) == len(indices)
    assert indices.min() >= 0 and indices.max() < plan.n

    line = np.arange(plan.image_size)
    down = rows - line
    assert (down == down[:, :1]).all() and (abs(down) <= plan.padding).all()
    mirrored = columns[:, 0] > columns[:, -1]
    assert plan.flip or not mirrored.any()
    right = np.where(mirrored[:, None], columns[:, ::-1], columns) - line
    assert (right == right[:, :1]).all() and (abs(right) <= plan.padding).all()


def test_golden_plan():
    """The plan is part of every published number: it must never change by itself."""
    digest = hashlib.sha256()
    for k in (0, 1, 77):
        for batch in BatchPlan(1000, 128, 32, 4, True, 42).epoch(k):
            for part in (batch.indices, batch.rows, batch.columns):
                digest.update(part.astype("<i4").tobytes())
    assert digest.hexdigest() == "51ec1b2f0c9df805c05d8152975283eaf42369ea10eebacc258024de5cd6d2e0"


def test_epochs_are_pure_and_differ():
    plan = BatchPlan(50, 10, 8, 1, True, seed=3)
    first = stack(plan.epoch(5))
    list(plan.epoch(0))
    for again in (plan.epoch(5), BatchPlan(50, 10, 8, 1, True, seed=3).epoch(5)):
        assert all(map(np.array_equal, first, stack(again)))
    assert not np.array_equal(first[0], stack(plan.epoch(6))[0])
    assert not np.array_equal(first[0], stack(BatchPlan(50, 10, 8, 1, True, seed=4).epoch(5))[0])


def test_order_does_not_depend_on_augmentation():
    plain, augmented = (BatchPlan(50, 10, 8, *how, seed=3) for how in ((0, False), (2, True)))
    assert np.array_equal(stack(plain.epoch(1))[0], stack(augmented.epoch(1))[0])


def test_augmentation_uses_all_shifts_and_both_directions_evenly():
    _, rows, columns = stack(BatchPlan(9000, 100, 8, 1, True, seed=0).epoch(0))
    mirrored = columns[:, 0] > columns[:, -1]
    assert 4300 < mirrored.sum() < 4700  # 4500 expected, deviation 47
    right = np.where(mirrored, columns[:, -1], columns[:, 0])
    places, counts = np.unique(np.stack([rows[:, 0], right]), axis=1, return_counts=True)
    assert places.shape == (2, 9)  # -1, 0, 1 in both directions
    assert counts.min() > 880 and counts.max() < 1120  # 1000 expected, deviation 30


def test_cutout_and_mixup_leave_the_rest_of_the_plan_as_it_is():
    plain = stack(BatchPlan(50, 10, 8, 1, True, seed=3).epoch(1))
    for extra in ({"cutout": 3}, {"mixup": 0.4}, {"cutout": 3, "mixup": 0.4}):
        assert all(map(np.array_equal, plain, stack(BatchPlan(50, 10, 8, 1, True, 3, **extra).epoch(1))))


def test_cutout_is_a_square_around_any_pixel_of_the_image():
    seen = set()
    for batch in BatchPlan(2000, 100, 8, 0, False, seed=0, cutout=3).epoch(0):
        lines = [[np.flatnonzero(line) for line in part] for part in batch.cut]
        for rows, columns in zip(*lines):
            for line in (rows, columns):  # three, fewer at a border
                assert (np.diff(line) == 1).all() and (len(line) == 3 or {0, 7} & {line[0], line[-1]})
            seen.add((*rows[[0, -1]], *columns[[0, -1]]))
    assert len(seen) == 64  # each of 8 x 8 centres


def test_cutout_blanks_after_normalisation():
    toy = data()
    plan, cut = (BatchPlan(len(toy.train), 3, 8, 1, True, 1, cutout=side) for side in (0, 4))
    for whole, batch in zip(plan.epoch(0), cut.epoch(0)):
        x, before = (apply(b, toy.train.images, toy.table()) for b in (batch, whole))
        hidden = np.einsum("bh,bw->bhw", *batch.cut)[:, None] & np.ones((1, 3, 1, 1), bool)
        assert (x[hidden] == 0).all() and np.array_equal(x[~hidden], before[~hidden])
        assert hidden.any(axis=(1, 2, 3)).all() and (before[hidden] != 0).any()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_the_weights_of_mixup_are_of_the_beta_distribution(alpha):
    drawn = [batch.mix for batch in BatchPlan(4000, 2, 4, 0, False, 0, mixup=alpha).epoch(0)]
    assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).pvalue > 0.01
    again = [batch.mix for batch in BatchPlan(4000, 2, 4, 0, False, 0, mixup=alpha).epoch(1)]
    assert drawn != again


def test_mixup_mixes_each_image_with_the_one_at_the_same_place_from_the_end():
    toy = data()
    plan, mixed = (BatchPlan(len(toy.train), 3, 8, 1, True, 1, mixup=alpha) for alpha in (0, 1))
    for one, two in zip(plan.epoch(0), mixed.epoch(0)):
        x = apply(one, toy.train.images, toy.table()).astype("float64")
        expected = two.mix * x + (1 - two.mix) * x[::-1]
        np.testing.assert_allclose(apply(two, toy.train.images, toy.table()), expected, rtol=0,
                                   atol=2 * np.spacing(np.float32(abs(x).max())))  # measured: 1.2


def test_every_image_is_seen_over_the_epochs():
    plan = BatchPlan(11, 5, 4, 0, False, seed=0)
    seen = {int(i) for k in range(20) for batch in plan.epoch(k) for i in batch.indices}
    assert len(plan) == 2 and seen == set(range(11))


def test_fewer_images_than_a_batch_make_one_batch():
    (batch,) = BatchPlan(3, 128, 4, 0, False, seed=0).epoch(0)
    assert sorted(batch.indices) == [0, 1, 2]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"n": 0}, "nothing to train on"),
        ({"batch_size": 0}, "batch size must be at least 1, not 0"),
        ({"padding": -1}, "padding must be 0 to 8"),
        ({"padding": 9}, "not 9"),
        ({"seed": -1}, "seed must not be negative: -1"),
        ({"cutout": 9}, "cutout must be 0 to 8 pixels"),
        ({"mixup": -0.5}, "mixup must not be negative: -0.5"),
    ],
)
def test_plan_refuses_bad_values(change, message):
    good = dict(n=5, batch_size=2, image_size=8, padding=1, flip=True, seed=0)
    with pytest.raises(UserError, match=message):
        BatchPlan(**{**good, **change})


def test_plan_refuses_a_negative_epoch():
    with pytest.raises(ValueError):
        next(BatchPlan(5, 2, 8, 1, True, 0).epoch(-1))


@given(n=st.integers(0, 50), batch_size=st.integers(1, 60))
def test_evaluation_covers_everything_in_order(n, batch_size):
    batches = list(evaluation_batches(n, batch_size, 8))
    assert [i for batch in batches for i in batch.indices] == list(range(n))
    assert all(len(batch.indices) == batch_size for batch in batches[:-1])
    assert all(0 < len(batch.indices) <= batch_size for batch in batches)


def test_evaluation_leaves_the_images_as_they_are():
    toy = data(test=split(5))
    seen = [apply(batch, toy.test.images, toy.table())
            for batch in evaluation_batches(5, 2, toy.image_size)]
    channel = np.arange(3)[:, None, None]
    assert np.array_equal(np.concatenate(seen), toy.table()[channel, toy.test.images])


def test_evaluation_refuses_an_empty_batch():
    with pytest.raises(UserError, match="at least 1, not 0"):
        list(evaluation_batches(5, 0, 8))


@pytest.mark.parametrize("channels", [1, 3])
def test_apply_is_pad_crop_flip_normalise_bit_for_bit(channels):
    toy = data(**{name: split(7, channels) for name in ("train", "val", "test")},
               mean=(0.5, 0.4, 0.3)[:channels], std=(0.2, 0.25, 0.3)[:channels])
    images, padding = toy.train.images, 3
    mean, std = (np.array(v)[:, None, None] for v in (toy.mean, toy.std))
    for batch in BatchPlan(7, 3, 8, padding, True, seed=1).epoch(0):
        result = apply(batch, images, toy.table())
        assert result.dtype == np.float32 and result.shape == (3, channels, 8, 8)
        for i, index in enumerate(batch.indices):
            mirrored = batch.columns[i, 0] > batch.columns[i, -1]
            top, left = batch.rows[i].min() + padding, batch.columns[i].min() + padding
            padded = np.pad(images[index], ((0, 0), (padding, padding), (padding, padding)))
            crop = padded[:, top:top + 8, left:left + 8]
            crop = crop[:, :, ::-1] if mirrored else crop
            expected = ((crop / 255 - mean) / std).astype(np.float32)
            assert np.array_equal(result[i], expected)


def test_far_outside_is_black_in_every_channel():
    toy = data()
    outside = np.array([[-8, -1, 8, 100]], np.int32)
    inside = np.zeros((1, 4), np.int32)
    for rows, columns in ((outside, inside), (inside, outside)):
        result = apply(Batch(np.array([0], np.int32), rows, columns), toy.train.images, toy.table())
        assert np.array_equal(result[0], np.broadcast_to(toy.table()[:, :1, None], (3, 4, 4)))


def test_table_is_rounded_once_from_float64():
    table = data().table()
    assert table.shape == (3, 256) and table.dtype == np.float32
    for channel, (mean, std) in enumerate(zip((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))):
        expected = [np.float32((value / 255 - mean) / std) for value in range(256)]
        assert table[channel].tolist() == expected


def test_properties():
    toy = data()
    assert (toy.in_channels, toy.image_size, toy.num_classes, len(toy.test)) == (3, 8, 2, 3)


def test_an_empty_validation_split_is_allowed():
    assert len(data(val=split(0)).val) == 0 and len(data(val=split(0)).sha256) == 64


def test_image_size_needs_squares():
    flat = {name: Split(np.zeros((1, 3, 4, 6), np.uint8), np.zeros(1, np.int32))
            for name in ("train", "val", "test")}
    with pytest.raises(UserError, match="toy: images must be square, not 4x6"):
        data(**flat).image_size


def test_sha256_sees_pixels_labels_shapes_and_order():
    toy = data()
    pixel, label = toy.test.images.copy(), toy.test.labels.copy()
    pixel[-1, -1, -1, -1] ^= 1
    label[0] ^= 1
    changed = [
        data(test=Split(pixel, toy.test.labels)),
        data(test=Split(toy.test.images, label)),
        data(train=toy.test, test=toy.train),
        data(train=toy.val, val=toy.train),
        data(**{name: Split(getattr(toy, name).images.reshape(-1, 3, 4, 16),
                            getattr(toy, name).labels) for name in ("train", "val", "test")}),
    ]
    assert data().sha256 == toy.sha256
    assert len({toy.sha256, *(other.sha256 for other in changed)}) == 6


@pytest.mark.parametrize("label", [-1, 2])
@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_labels_out_of_range_are_refused(name, label):
    bad = split()
    bad.labels[1] = label
    with pytest.raises(UserError, match=f"{name} split has the label {label}; allowed are 0 to 1"):
        data(**{name: bad})


@pytest.mark.parametrize(
    "images, labels, message",
    [
        (np.zeros((2, 3, 4, 4), np.float32), np.zeros(2, np.int32), "not float32"),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.int32), r"not uint8 \[2, 4, 4\]"),
        (np.zeros((2, 4, 4, 3), np.uint8).transpose(0, 3, 1, 2), np.zeros(2, np.int32),
         "C-contiguous"),
        (np.zeros((2, 3, 4, 4), np.uint8), np.zeros(2, np.float32), "labels must be int32"),
        (np.zeros((2, 3, 4, 4), np.uint8), np.zeros(3, np.int32), "2 images do not match 3"),
    ],
)
def test_split_refuses_other_arrays(images, labels, message):
    with pytest.raises(UserError, match=message):
        Split(images, labels)


def test_splits_must_have_one_shape():
    with pytest.raises(UserError, match=r"test images are \[3, 6, 6\]"):
        data(test=split(size=6))


def test_no_module_of_this_room_imports_a_framework():
    root = Path(__file__).resolve().parents[2]
    names = [f"training.{path.stem}" for path in (root / "training").glob("*.py")]
    assert "training.data" in names
    code = (f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\n"
            "print(sorted({'torch', 'torchvision', 'jittor'} & set(sys.modules)))")
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
