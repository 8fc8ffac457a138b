"""The curves: what is drawn, read back from the figure and from the pixels."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training import plots
from training.errors import UserError
from training.plots import compare_curves, curves

HEADER = ("epoch,lr,train_loss,train_acc,val_loss,val_acc,seconds,images_per_second,"
          "peak_memory_mb\n")


def write_log(path, epochs=5, validation=True, shift=0.0):
    rows = []
    for epoch in range(1, epochs + 1):
        val = f"{1.2 / epoch + shift},{0.7 - 0.4 / epoch}" if validation else ","
        rows.append(f"{epoch},0.1,{1 / epoch + shift},{0.8 - 0.5 / epoch},{val},9.5,5000,1200\n")
    path.write_text(HEADER + "".join(rows))
    return path


@pytest.fixture
def figures(monkeypatch):
    """The figures in the moment of saving."""
    seen = []
    save = plots._save
    monkeypatch.setattr(plots, "_save", lambda f, path: (seen.append(f), save(f, path)))
    return seen


def lines(axis):
    """(colour, style, x, y) of every line with points."""
    return [(line.get_color(), line.get_linestyle(), list(line.get_xdata()), list(line.get_ydata()))
            for line in axis.get_lines() if len(line.get_xdata())]


def legend(figure):
    """Of one run within its axes, of several beside them."""
    (found,) = figure.legends or [figure.axes[1].get_legend()]
    return [text.get_text() for text in found.get_texts()]


def test_curves(tmp_path, figures):
    curves(write_log(tmp_path / "log.csv", 3), tmp_path / "new/curves.png", "resnet18")
    (figure,) = figures
    assert figure.get_suptitle() == "resnet18"
    assert legend(figure) == ["training", "validation"]
    loss, accuracy = map(lines, figure.axes)
    assert [line[1] for line in loss] == [line[1] for line in accuracy] == ["--", "-"]
    assert loss[0][0] != loss[1][0]
    assert loss[0][2] == [1, 2, 3] and loss[0][3] == pytest.approx([1, 1 / 2, 1 / 3])
    assert loss[1][3] == pytest.approx([1.2, 0.6, 0.4])
    assert accuracy[1][3] == pytest.approx([30, 50, 70 - 40 / 3])
    with Image.open(tmp_path / "new/curves.png") as image:
        assert image.size == (990, 396)
        pixels = np.asarray(image.convert("RGB"))
    for colour, *_ in loss:
        rgb = [int(colour[i:i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == rgb).all(2).sum() > 50  # the line can be seen


def test_no_validation(tmp_path, figures):
    curves(write_log(tmp_path / "log.csv", validation=False), tmp_path / "c.png", "t")
    assert legend(figures[0]) == ["training"]
    assert [len(lines(axis)) for axis in figures[0].axes] == [1, 1]


def test_a_single_epoch_is_visible(tmp_path, figures):
    curves(write_log(tmp_path / "log.csv", epochs=1), tmp_path / "c.png", "t")
    drawn = [line for line in figures[0].axes[0].get_lines() if len(line.get_xdata())]
    assert [line.get_marker() for line in drawn] == ["o", "o"]


def test_a_run_that_diverged(tmp_path, figures):
    log = tmp_path / "log.csv"
    log.write_text(HEADER + "1,0.1,2.3,0.1,2.3,0.1,1,1,1\n2,0.1,inf,0.1,nan,0.1,1,1,1\n")
    curves(log, tmp_path / "c.png", "t")
    with Image.open(tmp_path / "c.png") as image:
        assert image.size == (990, 396)


def test_compare(tmp_path, figures):
    logs = {
        "Jittor": write_log(tmp_path / "a.csv"),
        "PyTorch": write_log(tmp_path / "b.csv", shift=0.1),
        "no validation": write_log(tmp_path / "c.csv", validation=False),
    }
    compare_curves(logs, tmp_path / "c.png", "both")
    (figure,) = figures
    assert legend(figure) == [*logs, "training", "validation"]
    loss = lines(figure.axes[0])
    assert [line[1] for line in loss] == ["--", "-", "--", "-", "--"]
    colours = [line[0] for line in loss]
    assert colours[0] == colours[1] != colours[2] == colours[3] != colours[4] != colours[0]
    widths = [line.get_linewidth() for line in figure.axes[0].get_lines()]
    assert widths[0] == widths[1] > widths[2] + 1 > widths[4] + 2  # visible below equal curves
    handles = figure.legends[0].get_lines()
    assert [handle.get_color() for handle in handles[:3]] == colours[::2]
    assert loss[2][3][0] == pytest.approx(1.1)


def test_compare_without_any_validation(tmp_path, figures):
    log = write_log(tmp_path / "a.csv", validation=False)
    compare_curves({"run": log}, tmp_path / "c.png", "t")
    assert legend(figures[0]) == ["run", "training"]


@pytest.mark.parametrize("count", [0, 8])
def test_compare_refuses_none_and_too_many(tmp_path, count):
    log = write_log(tmp_path / "a.csv")
    with pytest.raises(UserError, match=f"can compare 1 to 7 runs, not {count}"):
        compare_curves({str(i): log for i in range(count)}, tmp_path / "c.png", "t")


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "cannot be read as a log"),
        ("", "log.csv lacks the column 'epoch'$"),
        ("epoch,train_loss,train_acc,val_loss\n", "log.csv lacks the column 'val_acc'$"),
        (HEADER, "has no epoch yet"),
        (HEADER + "1,0.1,abc,0.1,,,1,1,1\n", "cannot be read as a log .*abc"),
        (b"\xff\xfe\x00", "cannot be read as a log"),
    ],
    ids=["missing", "empty", "other columns", "no rows", "text", "binary"],
)
def test_bad_logs_leave_no_plot(tmp_path, content, message):
    log, png = tmp_path / "log.csv", tmp_path / "c.png"
    if content is not None:
        log.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as error:
        curves(log, png, "t")
    assert str(log) in str(error.value) and not png.exists()


def test_a_row_cut_by_a_kill_is_drawn_as_far_as_it_goes(tmp_path, figures):
    log = write_log(tmp_path / "log.csv", 2)
    log.write_text(log.read_text() + "3,0.1,0.2")
    curves(log, tmp_path / "c.png", "t")
    loss, accuracy = (lines(axis)[0][3] for axis in figures[0].axes)
    assert loss[2] == 0.2 and np.isnan(accuracy[2])


def test_a_failed_write_keeps_the_old_plot(tmp_path, monkeypatch):
    log, png = write_log(tmp_path / "log.csv"), tmp_path / "c.png"
    png.write_bytes(b"old")

    def half(self, file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plots.Figure, "savefig", half)
    with pytest.raises(OSError):
        curves(log, png, "t")
    assert png.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.png", "log.csv"]


def test_equal_logs_give_equal_bytes(tmp_path):
    log = write_log(tmp_path / "log.csv")
    for name in ("a.png", "b.png"):
        curves(log, tmp_path / name, "t")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert "Software" not in image.info  # another matplotlib would change the bytes


def test_pyplot_is_never_touched():
    root = Path(__file__).resolve().parents[2]
    code = "import sys, training.plots; print('matplotlib.pyplot' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert result.stdout.strip() == "False", result.stderr
