"""`python -m parity`: exit codes, files, and one line for bad input."""
import ast
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jittor import nn as jt_nn
from parity import __main__, api, report as reports, reproduce, weights
from parity.models import Source
from parity.report import Check, Report
from training.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PAIR = [str(ROOT / "examples/my_jittor.py") + ":Net", str(ROOT / "examples/my_torch.py") + ":Net"]
CACHE = os.environ.get("JITTOR_HOME") or str(Path.home())
FAST = ["--verdict", "structure", "--steps", "1", "--level", "eval", "gradients"]


def run(*arguments, cwd=ROOT):
    return subprocess.run([sys.executable, "-m", "parity", *arguments], cwd=cwd, text=True,
                          capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_a_pair_of_ones_own_in_one_command(tmp_path):
    done = run("check", *PAIR, "--input", "2x3x12x12", *FAST, "--json", str(tmp_path / "r.json"),
               "--html", str(tmp_path / "r.html"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = reports.load(tmp_path / "r.json")
    assert found.passed and found.environment["seed"] == 0
    assert found.environment["command"].endswith("r.html")
    assert "PASS" in (tmp_path / "r.html").read_text()


def test_a_wrong_port_exits_with_1_and_names_the_module(tmp_path):
    text = (ROOT / "examples/my_jittor.py").read_text()
    (tmp_path / "mine.py").write_text(text.replace("self.first_norm = BatchNorm2d(width)",
                                                   "self.first_norm = BatchNorm2d(width, eps=1e-3)"))
    done = run("check", f"{tmp_path}/mine.py:Net", PAIR[1], "--input", "2x3x12x12", *FAST, "--repro",
               str(tmp_path / "repro"))
    assert done.returncode == 1, done.stderr
    assert "blocks.0.bn1" in done.stdout.replace("\n", "")
    assert len(list(tmp_path.glob("repro/*/reproduce.py"))) == 1


def test_several_nets_one_process_each(tmp_path):
    done = run("check", "--net", "cnn", "cnn_1x1", *FAST, "--json", str(tmp_path / "all"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == ["cnn.json", "cnn_1x1.json"]


BAD = [
    (["check"], "give two models"),
    (["check", "a.py:Net"], "give two models, Jittor first, not 1"),
    (["check", *PAIR], "--input is needed"),
    (["check", *PAIR, "--input", "2x3xx"], "--input '2x3xx': use sizes such as 2x3x32x32"),
    (["check", *PAIR, "--input", "0x3"], "--input '0x3'"),
    (["check", *PAIR, "--input", "2x3x8x8", "--args", "{"], "--args '{' is no JSON"),
    (["check", *PAIR, "--input", "2x3x8x8", "--args", '{"classes": 3}'], "cannot be built with"),
    (["check", *PAIR, "--input", "2x4x8x8"], "does not run on these inputs"),
    (["check", *PAIR, "--input", "2x3x8x8", "--level", "evil"], "unknown level 'evil'"),
    (["check", *PAIR, "--input", "2x3x8x8", "--map", "no.json"], "no.json"),
    (["check", PAIR[0] + "t", PAIR[1], "--input", "2x3x8x8"], "did you mean 'Net'"),
    (["check", "no.py:Net", PAIR[1], "--input", "2x3x8x8"], "no such file: no.py"),
    (["check", "Net", PAIR[1], "--input", "2x3x8x8"], "use FILE.py:NAME or PACKAGE.MODULE:NAME"),
    (["check", "--net", "resnet81"], "did you mean"),
    (["check", *PAIR, "--input", "2x3x8x8", "--args", "[" * 10**5], "is no JSON"),
    (["check", *PAIR, "--input", "99999999999x99999999999"], "268435456 numbers in all"),
    (["check", *PAIR, "--input", "2x3:99999999999999999999"], "below 2147483648"),
    (["check", *PAIR, "--input", "x".join("1" * 40)], "at most 8 sizes"),
    (["check", *PAIR, "--input", "9" * 5000], "268435456 numbers in all"),
    (["check", *PAIR, "--input", "2x3x8x8", "--level", "optimizer", "--optim", "nope.nope"],
     "nope.nope cannot be imported"),
    (["check", "--net", "cnn", "--steps", "-1"], "must not be negative"),
    (["check", "--net", "cnn", "--seed", "9" * 22], "--seed must be 0 to 2147483647"),
    (["check", *PAIR, "--json", "."], "'.' cannot be written"),
    (["check", *PAIR, "--html", ""], "'' cannot be written"),
    (["check", *PAIR, "--repro", ""], "'' cannot be written"),
    (["check", "--net", "cnn", "cnn_1x1", "--json", ""], "'' cannot be written"),
    (["inject", "--json", "/"], "'/' cannot be written"),
    (["probe", "--json", "."], "'.' cannot be written"),
    (["convert", "no.pth", ""], "'' cannot be written"),
    (["report", "no-such-folder"], "no such folder"),
    (["convert", "no.pth", "out.safetensors"], "no such weights file"),
    (["convert", "no.pth", "out.pth"], "must end in .safetensors"),
    (["inject", "--fault", "batchnorm_epsi"], "did you mean 'batchnorm_eps'"),
]


@pytest.mark.parametrize("arguments, words", BAD, ids=[" ".join(case[0])[-60:] for case in BAD])
def test_bad_input_is_one_line_and_exit_code_2(arguments, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert __main__.main(arguments) == 2
    error, = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert words in error
    assert list(tmp_path.iterdir()) == []


def test_convert_keeps_every_bit(tmp_path):
    state = {"a.weight": torch.randn(3, 2), "n": torch.tensor(5)}
    torch.save(state, tmp_path / "in.pth")
    assert __main__.main(["convert", str(tmp_path / "in.pth"), str(tmp_path / "out.safetensors")]) == 0
    found = weights.read(tmp_path / "out.safetensors")
    assert {k: a.tobytes() for k, a in found.items()} == {k: t.numpy().tobytes() for k, t in state.items()}


def test_report_shows_saved_reports(tmp_path, capsys):
    good = Report("good", [Check("structure", "eval", "output", 0.0, 0.0, 0.0, 1.0)])
    bad = Report("bad", [Check("structure", "eval", "output", np.inf, 2.0, 0.0, 1.0)])
    good.save(tmp_path / "good.json")
    assert __main__.main(["report", str(tmp_path)]) == 0
    bad.save(tmp_path / "bad.json")
    assert __main__.main(["report", str(tmp_path), "--html", str(tmp_path / "page.html")]) == 1
    assert "FAIL" in capsys.readouterr().out and (tmp_path / "page.html").is_file()
    (tmp_path / "ugly.json").write_text('{"checks": 3}')
    assert __main__.main(["report", str(tmp_path)]) == 2
    assert "ugly.json" in capsys.readouterr().err


def saved(folder, titles):
    for name, title in titles.items():
        Report(title, [Check("structure", "eval", "output", 0.0, 0.0, 0.0, 1.0)]).save(folder / name)
    return str(folder)


def test_several_reports_are_written_under_the_names_of_their_files(tmp_path):
    titles = {"a.json": "/absolute", "b.json": "../../up", "c.json": "\0", "d.json": "equal",
              "e.json": "equal"}
    folder = saved(tmp_path / "in", titles)
    assert __main__.main(["report", folder, "--json", str(tmp_path / "out")]) == 0
    assert {path.name: reports.load(path).title for path in (tmp_path / "out").iterdir()} == titles
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize("titles", [{"a.json": "a"}, {"a.json": "a", "b.json": "b"}])
@pytest.mark.parametrize("option, place", [("--json", ""), ("--html", ""), ("--html", "."), ("--html", "/"),
                                           ("--json", "file/x"), ("--html", "file/x")])
def test_reports_go_only_where_they_can_be_written(titles, option, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert __main__.main(["report", saved(tmp_path / "in", titles), option, place]) == 2
    shown = capsys.readouterr()
    assert "cannot be written" in shown.err and not shown.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "in"]


@pytest.mark.parametrize("option", ["--json", "--repro"])
def test_a_file_in_the_place_of_a_folder_is_found_before_the_nets_are_checked(option, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert __main__.main(["check", "--net", "cnn", "cnn_1x1", option, str(tmp_path / "file")]) == 2
    assert "file is no folder" in capsys.readouterr().err


def test_a_pipe_among_reports_is_one_line(tmp_path, capsys):
    os.mkfifo(tmp_path / "a.json")
    assert __main__.main(["report", str(tmp_path)]) == 2
    assert "a.json is no parity report: it is no regular file" in capsys.readouterr().err


def test_a_title_stays_text_in_a_reproduction(tmp_path):
    pair = SimpleNamespace(start=SimpleNamespace(arrays={}), task=SimpleNamespace(seed=0), names={},
                           device="cpu")
    found = SimpleNamespace(call=SimpleNamespace(inputs=(), name="conv", path="conv"))
    title = 'a"""\nboom\n"""\\N\\udcff\udcff'
    reproduce.write(tmp_path, pair, found, "float32", "eval", Source("a.b:C", "d.e:F"), title)
    tree = ast.parse((tmp_path / "reproduce.py").read_text())
    assert ast.get_docstring(tree).startswith(f"{title}: conv differs")
    assert "boom" not in ast.dump(tree.body[1])
    assert len(api._folder_name("é/" * 400, "structure").encode()) < 255
    assert api._folder_name("../..", "structure") == ".._..-structure"


def test_the_plugin_gives_the_pair_and_shows_the_report(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JITTOR_HOME", CACHE)  # in pytester's empty home Jittor would build itself anew
    pytester.makepyfile(f"""
        import pytest
        from parity import assert_parity

        @pytest.mark.parity({PAIR[0]!r}, {PAIR[1]!r}, "2x3x12x12", num_classes=4)
        def test_right(parity_pair):
            report = assert_parity(*parity_pair, levels="eval", verdicts="structure")
            assert report.checks

        @pytest.mark.parity({PAIR[0]!r}, {PAIR[1]!r}, "2x3x12x12")
        def test_wrong(parity_pair):
            parity_pair[0].body[0].first_norm.eps = 1e-3
            assert_parity(*parity_pair, levels="eval", verdicts="structure")
    """)
    found = pytester.runpytest_subprocess("-p", "parity.pytest_plugin")
    found.assert_outcomes(passed=1, failed=1)
    found.stdout.fnmatch_lines(["*parity report*", "*blocks.0.bn1*"])


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = torch.nn.ReLU()
    with pytest.raises(UserError, match="device cuda: this PyTorch sees no usable NVIDIA GPU"):
        api.check(jt_nn.ReLU(), model, np.ones((1, 2), "float32"), device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match="device cuda: Jittor runs on CPU"):
        api.check(jt_nn.ReLU(), model, np.ones((1, 2), "float32"), device="cuda")
    monkeypatch.setattr(api.jt, "has_cuda", 1)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    with pytest.raises(UserError, match="set NVIDIA_TF32_OVERRIDE=0"):
        api.check(jt_nn.ReLU(), model, np.ones((1, 2), "float32"), device="cuda")
    with pytest.raises(UserError, match="unknown device 'tpu': use cpu or cuda"):
        api.check(jt_nn.ReLU(), model, np.ones((1, 2), "float32"), device="tpu")
