"""Loading: arguments, digits, image folders and their cache, auto, validation split."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from training import datasets, folder
from training.datasets import channel_statistics, load
from training.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "jittor-cnn-zoo"


def picture(path, size=(8, 8), mode="RGB", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], len(mode)), np.uint8)
    Image.fromarray(pixels.squeeze(2) if mode == "L" else pixels, mode=mode).save(path)
    return pixels


@pytest.fixture
def root(tmp_path):
    """Six training and four test images of two classes, and files that must be ignored."""
    root = tmp_path / "pictures"
    for seed, name in enumerate(
        ["train/cat/0.png", "train/cat/1.PNG", "train/cat/2.bmp",
         "train/dog/0.png", "train/dog/1.Ppm", "train/dog/2.png",
         "test/cat/0.png", "test/cat/1.png", "test/dog/0.png", "test/dog/1.png"]
    ):
        picture(root / name, seed=seed)
    (root / "train/cat/notes.txt").write_text("not an image")
    (root / "train/cat/.hidden.png").write_text("not an image")
    (root / "train/.thumbnails").mkdir()
    return root


def load_folder(root, val_fraction=0.0, seed=0, **options):
    messages = []
    data = load("folder", root, val_fraction, seed, warn=messages.append, **options)
    return data, messages


@pytest.mark.parametrize(
    "change, message",
    [
        ({"dataset": "cifar100"}, "unknown data set 'cifar100': use auto, cifar10"),
        ({"val_fraction": 1.0}, r"must be in \[0, 1\), not 1.0"),
        ({"val_fraction": -0.1}, r"must be in \[0, 1\), not -0.1"),
        ({"val_fraction": float("nan")}, "not nan"),
        ({"val_fraction": 0.9999}, "leaves no training image of 1437"),
        ({"seed": -1}, "seed must not be negative: -1"),
        ({"image_size": 0}, "image size must be at least 1, not 0"),
    ],
)
def test_bad_arguments(change, message, tmp_path):
    good = dict(dataset="digits", data_dir=tmp_path, val_fraction=0.1, seed=0)
    with pytest.raises(UserError, match=message):
        load(**{**good, **change})


def test_digits(tmp_path):
    data = load("digits", tmp_path, 0.1, 0)
    assert (data.name, data.in_channels, data.image_size, data.num_classes) == ("digits", 1, 32, 10)
    assert [len(s) for s in (data.train, data.val, data.test)] == [1293, 144, 360]
    assert (data.padding, data.flip) == (0, False)
    assert data.train.images.min() == 0 and data.train.images.max() == 255
    assert "1293 train, 144 validation, 360 test images 1x32x32, 10 classes" in data.source
    assert set(data.test.labels) == set(range(10))


def test_digits_are_the_enlarged_originals_in_order(tmp_path):
    from sklearn.datasets import load_digits

    digits = load_digits()
    data = load("digits", tmp_path, 0, 0)
    assert np.array_equal(data.train.labels, digits.target[:1437])
    assert np.array_equal(data.test.labels, digits.target[1437:])
    for image, levels in ((data.train.images[0], digits.images[0]),
                          (data.test.images[-1], digits.images[-1])):
        grey = np.array([[round(v * 255 / 16) for v in row] for row in levels], np.uint8)
        expected = Image.fromarray(grey).resize((32, 32), Image.BICUBIC)
        assert abs(image[0].astype(int) - np.asarray(expected)).max() <= 1  # v = 8 is a tie


def test_validation_split_is_seeded_and_loses_nothing(tmp_path):
    whole = load("digits", tmp_path, 0, 0)
    parts, again, other = (load("digits", tmp_path, 0.25, seed) for seed in (1, 1, 2))
    assert len(whole.val) == 0 and len(parts.val) == 359
    assert parts.sha256 == again.sha256 != other.sha256
    both = np.concatenate([parts.train.images, parts.val.images]).reshape(1437, -1)
    assert np.array_equal(np.unique(both, axis=0),
                          np.unique(whole.train.images.reshape(1437, -1), axis=0))
    assert np.array_equal(np.bincount(np.append(parts.train.labels, parts.val.labels)),
                          np.bincount(whole.train.labels))
    assert parts.mean != whole.mean  # statistics never see validation images
    assert np.array_equal(parts.test.images, whole.test.images)


def test_golden_validation_split(tmp_path):
    """The split is part of every published number: it must never change by itself."""
    labels = load("digits", tmp_path, 0.1, 42).val.labels[:20]
    assert "".join(map(str, labels)) == "35995629156574033340"


def test_without_validation_the_seed_does_not_matter(tmp_path):
    assert load("digits", tmp_path, 0, 1).sha256 == load("digits", tmp_path, 0, 2).sha256


def test_image_size_applies_to_digits(tmp_path):
    data, original = (load("digits", tmp_path, 0, 0, image_size=size) for size in (20, None))
    assert data.image_size == 20
    expected = Image.fromarray(original.test.images[7, 0]).resize((20, 20), Image.BILINEAR)
    assert np.array_equal(data.test.images[7, 0], np.asarray(expected))


def test_statistics_match_numpy():
    images = np.random.default_rng(0).integers(0, 256, (5000, 2, 3, 3), np.uint8)
    mean, std = channel_statistics(images)
    scaled = images / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std((0, 2, 3)), rtol=1e-12)


def test_statistics_of_constant_images_do_not_divide_by_zero():
    mean, std = channel_statistics(np.full((3, 1, 4, 4), 51, np.uint8))
    assert mean == (0.2,) and std == (1 / 255,)


def test_folder(root):
    data, messages = load_folder(root)
    assert messages == []
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert (data.padding, data.flip) == (1, True)
    for split, seeds in ((data.train, range(6)), (data.test, range(6, 10))):
        for image, seed in zip(split.images, seeds):
            pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
            assert np.array_equal(image.transpose(1, 2, 0), pixels)
    assert f"image folder: 6 train, 0 validation, 4 test images 3x8x8, 2 classes, from {root}" \
        == data.source


def test_augment_off(root):
    data, _ = load_folder(root, augment=False)
    assert (data.padding, data.flip) == (0, False)


def test_folder_is_grey_only_if_all_images_are(root):
    for path in sorted(root.rglob("*/*/*.*")):
        if path.suffix.lower() in folder.SUFFIXES and not path.name.startswith("."):
            path.unlink()
            picture(path.with_suffix(".png"), mode="L", seed=len(str(path)))
    assert load_folder(root)[0].in_channels == 1
    colour = picture(root / "train/dog/1.png", seed=5)
    data, _ = load_folder(root)
    assert data.in_channels == 3
    assert np.array_equal(data.train.images[4].transpose(1, 2, 0), colour)
    grey = data.train.images[0]
    assert np.array_equal(grey[0], grey[1]) and np.array_equal(grey[0], grey[2])


def test_transparency_is_dropped(root):
    pixels = picture(root / "train/cat/0.png", mode="RGBA", seed=1)
    data, _ = load_folder(root)
    assert np.array_equal(data.train.images[0].transpose(1, 2, 0), pixels[:, :, :3])


def test_sizes_that_differ_are_named(root):
    picture(root / "train/dog/1.Ppm", size=(9, 7))
    with pytest.raises(UserError) as error:
        load_folder(root)
    assert str(error.value) == (
        f"image sizes differ: {root / 'train/cat/0.png'} is 8x8, {root / 'train/dog/1.Ppm'} is "
        "9x7; pass --image-size to resize all images"
    )
    data, _ = load_folder(root, image_size=6)
    with Image.open(root / "train/dog/1.Ppm") as image:
        expected = np.asarray(image.resize((6, 6), Image.BILINEAR))
    assert np.array_equal(data.train.images[4].transpose(1, 2, 0), expected)


def test_images_must_be_square(root):
    for path in (root / "train/cat").glob("?.*"):
        picture(path, size=(9, 7))
    with pytest.raises(UserError, match=r"0\.png is not square \(9x7\); pass --image-size"):
        load_folder(root)


def test_no_image_starts_a_program(root, tmp_path, monkeypatch):
    """PIL would read this file with Ghostscript."""
    trace, program = tmp_path / "trace", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {trace}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    (root / "test/dog/0.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    with pytest.raises(UserError, match="0.png cannot be read as an image"):
        load_folder(root)
    assert not trace.exists()


def truncated(path):
    path.write_bytes(path.read_bytes()[:-40])


def sixteen_bit(path):
    Image.fromarray(np.full((8, 8), 60000, np.uint16)).save(path)


@pytest.mark.parametrize(
    "damage, message",
    [
        (truncated, "cannot be read as an image"),
        (lambda path: path.write_bytes(b""), "cannot be read as an image"),
        (lambda path: path.write_text("<html>404</html>"), "cannot be read as an image"),
        (sixteen_bit, "more than 8 bits"),
        (lambda path: (path.unlink(), path.symlink_to("nowhere.png")), "cannot be read"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "no regular file"),
    ],
    ids=["truncated", "empty", "html", "16 bit", "dangling link", "folder", "pipe"],
)
def test_a_bad_image_is_named(root, damage, message):
    bad = root / "test/dog/0.png"
    damage(bad)
    with pytest.raises(UserError, match=message) as error:
        load_folder(root)
    assert str(bad) in str(error.value)


def test_the_first_of_several_bad_images_is_named(root):
    for name in ("train/cat/2.bmp", "train/dog/0.png", "test/dog/1.png"):
        (root / name).write_bytes(b"")
    with pytest.raises(UserError, match="cat/2.bmp"):
        load_folder(root)


def without(name):
    return lambda root: shutil.rmtree(root / name)


@pytest.mark.parametrize(
    "change, message",
    [
        (without(""), "train is missing"),
        (without("train"), "train is missing"),
        (without("test"), "test is missing"),
        (without("train/dog"), "train must hold at least two class folders, not 1"),
        (lambda root: [p.unlink() for p in (root / "test/dog").iterdir()],
         "dog holds no image .of type .jpg"),
        (lambda root: (root / "test/emu").mkdir(),
         "test has the class folder 'emu', which .*train lacks"),
        (lambda root: picture(root / "train/ant/0.png"),
         "train has the class folder 'ant', which .*test lacks"),
        (lambda root: (root / "test/dog").rename(root / "test/Dog"), "must have the same classes"),
        (lambda root: os.mkdir(os.fsencode(root / "train") + b"/\xff"), "train/.* is no name in UTF-8"),
    ],
    ids=["no folder", "no train", "no test", "one class", "empty class", "extra test class",
         "extra train class", "case", "no UTF-8"],
)
def test_wrong_layouts(root, change, message):
    change(root)
    with pytest.raises(UserError, match=message):
        load_folder(root)


def test_the_cache_is_used(root, cache, monkeypatch):
    first, _ = load_folder(root)
    assert [path.suffix for path in cache.iterdir()] == [".npz"]
    monkeypatch.setattr(folder, "_decode_all", lambda *_: pytest.fail("decoded again"))
    second, messages = load_folder(root)
    assert first.sha256 == second.sha256 and messages == []


def change_pixels_only(path):
    """Other pixels, same size and mtime, as another archive of the same layout would have."""
    stat = path.stat()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_mtime_ns == stat.st_mtime_ns


@pytest.mark.parametrize(
    "change",
    [
        lambda root: picture(root / "test/cat/0.png", seed=99),
        lambda root: picture(root / "test/cat/9.png", seed=99),
        lambda root: (root / "train/cat/2.bmp").unlink(),
        lambda root: (root / "train/cat/0.png").rename(root / "train/dog/5.png"),
        lambda root: change_pixels_only(root / "train/cat/2.bmp"),
    ],
    ids=["changed", "added", "removed", "moved", "same size and time"],
)
def test_the_cache_notices_changed_files(root, change):
    before, _ = load_folder(root)
    change(root)
    assert load_folder(root)[0].sha256 != before.sha256


def test_the_cache_depends_on_the_image_size(root):
    assert [load_folder(root, image_size=size)[0].image_size for size in (6, None, 4)] == [6, 8, 4]


def flip_a_pixel(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def wrong_checksum(path):
    with np.load(path) as stored:
        images, sha256 = stored["images"].copy(), stored["sha256"]
    images[0, 0, 0, 0] ^= 1
    np.savez(path, images=images, sha256=sha256)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b""),
        flip_a_pixel,
        wrong_checksum,
        lambda path: np.savez(path, images=np.zeros((10, 3, 8, 8), np.uint8)),
    ],
    ids=["end cut", "only start", "empty", "bit flip", "checksum", "no checksum"],
)
def test_a_damaged_cache_is_rebuilt(root, cache, damage):
    good, _ = load_folder(root)
    (stored,) = cache.iterdir()
    damage(stored)
    data, messages = load_folder(root)
    assert data.sha256 == good.sha256
    assert len(messages) == 1 and f"{stored} is damaged" in messages[0]
    assert load_folder(root)[1] == []  # repaired


class Trap:
    """Unpickling one makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_the_cache_never_runs_code(root, cache, tmp_path):
    load_folder(root)
    (stored,) = cache.iterdir()
    trap = np.array([Trap(tmp_path / "trapped")], object)
    np.savez(stored, images=trap, sha256=np.zeros(32, np.uint8))
    _, messages = load_folder(root)
    assert "is damaged" in messages[0] and not (tmp_path / "trapped").exists()


def test_no_cache_folder(root, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    data, messages = load_folder(root)
    assert len(data.train) == 6
    assert len(messages) == 1 and "cannot be cached" in messages[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_cache(root, cache):
    cache.mkdir(parents=True)
    cache.chmod(0o500)
    assert "cannot be cached" in load_folder(root)[1][0]


def test_a_full_disk_leaves_no_half_cache(root, cache, monkeypatch):
    def full(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    data, messages = load_folder(root)
    assert len(data.train) == 6
    assert "No space left on device" in messages[0]
    assert list(cache.iterdir()) == []


def test_cache_default_place(root, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    load_folder(root)
    assert len(list((tmp_path / "home/.cache/jittor-cnn-zoo").iterdir())) == 1


def test_auto_prefers_a_folder(root):
    assert load("auto", root, 0, 0, warn=pytest.fail).name == "folder"


def test_auto_does_not_hide_a_broken_folder(root):
    shutil.rmtree(root / "test")
    with pytest.raises(UserError, match="test is missing"):
        load("auto", root, 0, 0)


def test_auto_takes_cifar10_if_it_loads(tmp_path, monkeypatch):
    toy = load("digits", tmp_path, 0.1, 0)
    monkeypatch.setattr(datasets.downloads, "read",
                        lambda name, _: (toy.train, toy.test, (name,) * 10))
    data = load("auto", tmp_path, 0, 0, warn=pytest.fail)
    assert data.name == "cifar10" and data.classes[0] == "cifar10"
    assert data.mean == (0.4914, 0.4822, 0.4465) and data.std == (0.2470, 0.2435, 0.2616)
    assert (data.padding, data.flip) == (4, True)


def test_auto_falls_back_to_digits_with_a_notice(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise UserError("no network here")

    monkeypatch.setattr(datasets.downloads, "read", fail)
    assert load("auto", tmp_path, 0, 0).name == "digits"
    notice = capsys.readouterr().err
    assert notice.count("=" * 76) == 2 and len(notice.splitlines()) > 8
    for part in ("NOT CIFAR-10", "no network here", "cifar-10-python.tar.gz", str(tmp_path)):
        assert part in notice


def test_a_home_in_the_data_folder_is_expanded(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    assert load("folder", "~/pictures", 0, 0).train.images.shape == (6, 3, 8, 8)
    assert Path("~/pictures").exists() is False
