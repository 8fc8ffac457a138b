"""compare.py: both trainers side by side, from a command or from finished runs."""
import csv
import json
import math
import os
import re
import shutil

import numpy as np
import pytest
from scipy import stats

import compare
from training import comparison, comparison_page, finished
from training.errors import UserError
from training.run import LOG

OPTIONS = ["--dataset", "digits", "-b", "64", "--epochs", "2", "--limit-batches", "3"]


def record(framework, seed=0, **options):
    return {"command": f"python train_{framework}.py --net cnn --seed {seed}", "framework": framework,
            "options": {"net": "cnn", "seed": seed, "batch_size": 10, "lr": 0.1, "init_from": None,
                        "milestones": [], **options},
            "data": "toy", "data_sha256": "d", "start_sha256": f"s{seed}", "net_image_size": 32,
            "device": "cpu", "gpu": None, "precision": "float32", "cpu": "a processor", "cores": 2,
            "python": "3", "versions": {framework: "1", "numpy": "2"}}


def make(folder, content, accuracy, seconds=(9.0, 2.0, 4.0), val=(0.2, 0.45, 0.7), energy=("", "", "")):
    """A finished run of three epochs of 100 images."""
    folder.mkdir(parents=True)
    (folder / "args.json").write_text(json.dumps(content))
    (folder / "result.json").write_text(json.dumps({"test_acc": accuracy, "test_loss": 1.0,
                                                    "test_top5": 1.0, "test_images": 200, "epochs": 3,
                                                    "seconds": 20}))
    rows = [[e, 0.1, 1.0, 0.5, 1.0, v, s, 100 / s, 300 + e, j]
            for e, (s, v, j) in enumerate(zip(seconds, val, energy), 1)]
    (folder / "log.csv").write_text("\n".join(",".join(map(str, row)) for row in (LOG, *rows)) + "\n")
    return folder


def runs(tmp_path, pairs):
    """Folders of (PyTorch's accuracy, Jittor's accuracy) by seed."""
    return [make(tmp_path / f"{framework}-{seed}", record(framework, seed), accuracy,
                 *([] if framework == "torch" else [(20.0, 6.0, 6.0), (0.1, 0.3, 0.55)]))
            for seed, pair in enumerate(pairs) for framework, accuracy in zip(("torch", "jittor"), pair)]


def one(folders, margin=0.02):
    found, = comparison.compare([finished.read(folder) for folder in folders], margin)
    return found


def test_speed_and_convergence_are_the_logs(tmp_path):
    found = one(runs(tmp_path, [(0.6, 0.5)]))
    assert found.speed("torch") == {"first_epoch": 9, "epoch": 3, "step_ms": 300, "images": 100 / 3,
                                    "energy": None, "memory": 303}
    assert found.speed("jittor")["step_ms"] == 600
    assert found.ratios == [1.5, 3]
    assert dict(found.convergence()) == {
        0.3: {"torch": (2, 11), "jittor": (2, 26)}, 0.4: {"torch": (2, 11), "jittor": (3, 32)},
        0.5: {"torch": (3, 15), "jittor": (3, 32)}, 0.6: {"torch": (3, 15), "jittor": None},
        0.7: {"torch": (3, 15), "jittor": None}}
    assert found.equivalence is None


@pytest.mark.parametrize("margin, equivalent", [(0.005, False), (0.03, True)])
def test_equivalence_is_two_one_sided_t_tests(margin, equivalent, tmp_path):
    pairs = [(0.60, 0.61), (0.62, 0.62), (0.58, 0.595), (0.61, 0.60)]
    found = one(runs(tmp_path, pairs), margin).equivalence
    d = np.diff(pairs)[:, 0]
    p = max(stats.ttest_1samp(d, -margin, alternative="greater").pvalue,
            stats.ttest_1samp(d, margin, alternative="less").pvalue)
    interval = stats.ttest_1samp(d, 0).confidence_interval(0.90)
    assert found["p"] == pytest.approx(p)
    assert (found["low"], found["high"]) == pytest.approx(tuple(interval))
    assert found["equivalent"] == equivalent == (-margin < interval.low and interval.high < margin)


def test_energy_is_that_of_the_later_epochs_an_image(tmp_path):
    folders = [make(tmp_path / framework, record(framework), 0.5, energy=energy)
               for framework, energy in (("torch", (900, 200, 400)), ("jittor", (900, 200, "")))]
    found = one(folders)
    assert found.speed("torch")["energy"] == 3 and found.speed("jittor")["energy"] is None
    comparison_page.write([found], tmp_path, "command")
    theirs, ours = csv.DictReader((tmp_path / "comparison.csv").open())
    assert theirs["later_epoch_joules"] == "300.0" and ours["later_epoch_joules"] == ""
    assert "| 3 J |" in (tmp_path / "comparison.md").read_text()


def test_equal_and_constantly_different_accuracies(tmp_path):
    assert one(runs(tmp_path / "a", [(0.5, 0.5), (0.6, 0.6)])).equivalence["equivalent"]
    assert not one(runs(tmp_path / "b", [(0.5, 0.75), (0.5, 0.75)])).equivalence["equivalent"]


def test_a_report_shows_and_escapes_everything(tmp_path):
    folders = runs(tmp_path, [(0.6, 0.5)])
    evil = json.loads((folders[0] / "args.json").read_text())
    evil["command"] += " '<script>alert(1)</script>\x1b[31m\n`'"
    evil["data"] = "toy <b>[x](y)\n"
    (folders[0] / "args.json").write_text(json.dumps(evil))
    comparison_page.write([one(folders)], tmp_path / "out", "python compare.py <b>")
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "<b>" not in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page) and "://" not in page
    assert page.count("data:image/png;base64,") == 1
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "`` python train_torch.py --net cnn --seed 0 '<script>alert(1)</script>\\x1b[31m\\n`' ``" in text
    assert r"; toy \<b\>\[x\](y)\\n" in text and "\x1b" not in text
    for part in ("| cnn | 60.00% | 50.00% | -10.00% | 1 | 200 | one seed: no test |",
                 "| cnn | Jittor | 20.0 s | 6.0 s | 600.0 ms | 17/s | 303 MB | 2.25 (1.50 to 3.00) |",
                 "| cnn | 60% | epoch 3, 15.0 s | - |", "from the same initial weights"):
        assert part in text, text
    with open(tmp_path / "out" / "comparison.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(r["framework"], r["test_acc"], r["later_epoch_seconds"]) for r in rows] == [
        ("torch", "0.6", "3.0"), ("jittor", "0.5", "6.0")]


def nets(tmp_path, **other):
    """Comparisons of two nets, that of the second with other options or columns of its logs."""
    columns = {name: other.pop(name) for name in ("seconds", "val") if name in other}
    folders = [make(tmp_path / f"{net}-{framework}", record(framework, net=net, **options), accuracy, **extra)
               for net, accuracy, options, extra in (("cnn", 0.5, {}, {}), ("lenet", 0.6, other, columns))
               for framework in finished.FRAMEWORKS]
    return comparison.compare([finished.read(folder) for folder in folders], 0.02)


def test_nets_are_ranked_where_all_else_is_equal(tmp_path):
    ranking = comparison_page.tables(nets(tmp_path / "equal", seconds=(1.0, 1.0, 2.0)))[-1]
    assert [row[1:] for row in ranking.rows if row[0] == "Jittor"] == [
        ["accuracy", "lenet (60.00%), cnn (50.00%)"], ["time of a later epoch", "lenet (1.5 s), cnn (3.0 s)"],
        ["epochs to 70%", "lenet (3), cnn (3)"]]
    found = nets(tmp_path / "other", batch_size=64, mixup="<b>`x")
    ranking = comparison_page.tables(found)[-1]
    assert not ranking.rows and "cnn and lenet: batch_size is 10 in the first and 64 in the second" in ranking.note
    comparison_page.write(found, tmp_path, "command")
    assert "<b>" not in (tmp_path / "comparison.html").read_text()


def test_without_validation_there_is_no_convergence(tmp_path):
    found = nets(tmp_path, val=("", "", ""))
    *_, convergence, ranking = comparison_page.tables(found)
    assert {row[0] for row in convergence.rows} == {"cnn"} and "epochs to" not in str(ranking.rows)
    convergence = comparison_page.tables(found[1:])[-1]
    assert not convergence.rows and convergence.note == "None: there were no validation images."
    comparison_page.write(found[1:], tmp_path, "command")
    assert "validation accuracy" not in (tmp_path / "comparison.md").read_text()


def test_a_log_from_before_energy_is_read(tmp_path):
    folder = make(tmp_path / "r", record("torch"), 0.5)
    log = folder / "log.csv"
    log.write_text(log.read_text().replace(",energy_j", "").replace(",\n", "\n"))
    assert log.read_text().startswith("epoch,") and "energy" not in log.read_text()
    assert [row["energy_j"] for row in finished.read(folder).log] == [None] * 3


def test_runs_that_do_not_belong_together_are_refused(tmp_path, capsys):
    torch, jittor = runs(tmp_path, [(0.6, 0.5)])

    def refused(message, *arguments):
        assert compare.main([str(a) for a in arguments]) == 2
        assert message in capsys.readouterr().err

    refused("there is no run in jittor", torch)
    refused("are both cnn in torch with seed 0", torch, shutil.copytree(torch, tmp_path / "copy"))
    refused("lr is 0.1 in the first and 0.2 in the second", torch,
            make(tmp_path / "lr", record("jittor", lr=0.2), 0.5))
    both = runs(tmp_path / "seeds", [(0.6, 0.5)])
    refused("lr is 0.1 in the first and 0.3 in the second", *both,
            *(make(tmp_path / "seeds" / f"{f}-1", record(f, 1, lr=0.3), 0.5) for f in finished.FRAMEWORKS))
    refused("data_sha256 is d in the first and e in the second", torch,
            make(tmp_path / "data", {**record("jittor"), "data_sha256": "e"}, 0.5))
    for name, here in (("gpu", "another"), ("precision", "bfloat16"), ("ranks", 2), ("OMP_NUM_THREADS", "2")):
        refused(f"and {here} in the second", torch,
                make(tmp_path / name, {**record("jittor"), name: here}, 0.5))
    refused("holds no run", torch, tmp_path)
    refused("give folders of finished runs, or --nets", torch, "--nets", "cnn")
    refused("give folders of finished runs, or --nets")
    refused("--margin 2.0 is not allowed", torch, jittor, "--margin", 2)
    for name, text in (("log.csv", "epoch,seconds\n1,x\n"), ("log.csv", ""), ("result.json", "{}"),
                       ("result.json", "x"), ("result.json", "[" * 100_000), ("result.json", "[]"),
                       ("args.json", json.dumps({"command": "", "options": {}, "framework": "torch"}))):
        damaged = shutil.copytree(jittor, tmp_path / "damaged", dirs_exist_ok=True)
        (damaged / name).write_text(text)
        refused(f"the files in {damaged} are damaged", torch, damaged)
        shutil.rmtree(damaged)
    (jittor / "result.json").unlink()
    refused("is not complete: --resume", torch, jittor)


def value(column, text):
    """A function that changes a cell of the log's last row."""
    def change(folder):
        lines = (folder / "log.csv").read_text().splitlines()
        cells = lines[-1].split(",")
        cells[LOG.index(column)] = text
        (folder / "log.csv").write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n")
    return change


def result(**changed):
    def change(folder):
        path = folder / "result.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    return change


def pipe(name):
    def change(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    return change


@pytest.mark.parametrize("change", [
    *(value("val_acc", text) for text in ("7", "-1", "nan", "inf", "", "x" * 200_000)),
    *(value("epoch", text) for text in ("-3", "1.5", "nan", "inf", "", "1", "2", "4")),
    *(value("seconds", text) for text in ("-1", "0", "inf", "")),
    *(value("images_per_second", text) for text in ("0", "1e-300", "1e-6", "1e300", "-2")),
    *(value(column, "nan") for column in LOG[1:6]), value("train_acc", "1.01"), value("peak_memory_mb", "0"),
    value("energy_j", "-1"),
    *(result(test_acc=n) for n in (math.nan, 17, -1, True, None, "1")), result(test_images=-5),
    result(test_images=1.5), result(test_loss=math.inf), result(epochs=2), result(seconds=-1),
    *map(pipe, ("log.csv", "result.json", "args.json"))])
def test_values_that_no_run_leaves_are_refused(change, tmp_path):
    folder = make(tmp_path / "r", record("torch"), 0.5)
    change(folder)
    with pytest.raises(UserError, match=str(folder)) as refused:
        finished.read(folder)
    assert len(str(refused.value)) <= 2000


def changed(content):
    """`content` with each of its parts in turn dropped or replaced by something else."""
    for key, part in content.items():
        yield {name: other for name, other in content.items() if name != key}
        inside = changed(part) if isinstance(part, dict) else ()
        for other in (None, True, "x", -1, 1.5, [], {}, [1], *inside):
            yield {**content, key: other}


@pytest.mark.parametrize("name", ["args.json", "result.json"])
def test_no_changed_record_is_more_than_one_line(name, tmp_path, monkeypatch):
    """In both runs, so that it is not refused because they differ."""
    folders = runs(tmp_path, [(0.6, 0.5)])
    monkeypatch.setattr(comparison_page, "compare_curves", lambda logs, path, title: path.write_bytes(b""))
    monkeypatch.setattr(comparison_page, "write_text", lambda path, text: None)
    (tmp_path / "out").mkdir()
    good = [list(changed(json.loads((folder / name).read_text()))) for folder in folders]
    refused = 0
    for pair in zip(*good):
        for folder, content in zip(folders, pair):
            (folder / name).write_text(json.dumps(content))
        try:
            comparison_page.write([one(folders)], tmp_path / "out", "python compare.py")
        except UserError:
            refused += 1
    assert len(good[0]) > refused > len(good[0]) / 3
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"cnn.png"}


@pytest.mark.parametrize("net", ["../../evil", "/tmp/evil", "none", None, ["cnn"], {}])
def test_a_net_that_is_none_names_no_file(net, tmp_path, capsys):
    folders = [make(tmp_path / "runs" / f, record(f, net=net), 0.5) for f in finished.FRAMEWORKS]
    assert compare.main([*map(str, folders), "--output-dir", str(tmp_path / "a" / "b" / "out")]) == 2
    assert "options.net must be a net of the zoo, not " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_one_command_trains_both_and_goes_on_where_it_stopped(tmp_path, capfd):
    command = ["--nets", "cnn", "--output-dir", str(tmp_path / "c"), "--", *OPTIONS]
    assert compare.main(command) == 0
    runs_ = tmp_path / "c" / "runs"
    text = (tmp_path / "c" / "comparison.md").read_text()
    assert "from the same initial weights" in text
    both = [finished.read(runs_ / f"cnn-0-{f}") for f in finished.FRAMEWORKS]
    assert both[0].result["test_acc"] == pytest.approx(both[1].result["test_acc"], abs=0.02)
    before = (runs_ / "cnn-0-torch" / "log.csv").stat().st_mtime_ns
    (runs_ / "cnn-0-jittor" / "result.json").unlink()
    (tmp_path / "c" / "comparison.html").unlink()
    capfd.readouterr()
    assert compare.main(command) == 0
    assert "resuming" in capfd.readouterr().out
    assert (runs_ / "cnn-0-torch" / "log.csv").stat().st_mtime_ns == before
    assert (tmp_path / "c" / "comparison.html").exists()
    for other in (["--lr", "0.5"], ["--data-dir", str(tmp_path)]):
        assert compare.main([*command, *other]) == 2
        assert "was made with other options" in capfd.readouterr().err
    for own in ("--seed=3", "--list"):
        assert compare.main(["--nets", "cnn", "--", own]) == 2
        assert f"{own.partition('=')[0]} cannot be passed to the trainers" in capfd.readouterr().err
    assert compare.main(["--nets", "cnn", "--output-dir", str(tmp_path / "d"), "--", "--channels-last"]) == 2
    assert "--channels-last" in capfd.readouterr().err and not (tmp_path / "d").exists()
    assert compare.main(["--nets", "cnnn", "--", *OPTIONS]) == 2
    assert "did you mean cnn" in capfd.readouterr().err
