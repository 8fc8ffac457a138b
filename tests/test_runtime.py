"""`import jt_models` makes Jittor work, and changes nothing that the user has set."""
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jt_models import onednn, runtime
from jt_models.cuda import overlay

ROOT = Path(__file__).resolve().parents[1]


# What Jittor and jt_models themselves put into the environment of this process.
OURS = ("cc_path", "nvcc_path", "use_mpi", "cache_name", "python_config_path", "FIX_TORCH_ERROR")


def python(*arguments, **environment):
    """Run Python as a user would who has set nothing but `environment`."""
    env = {name: value for name, value in os.environ.items() if name not in OURS}
    env.update(environment)
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, text=True,
                          capture_output=True, timeout=600)


@pytest.fixture
def bare(monkeypatch):
    """An environment in which the user has set nothing."""
    for name in (*OURS, "use_mkl", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_without_a_driver_a_stray_nvcc_is_ignored(bare):
    bare.setattr(runtime, "nvidia_devices", lambda: 0)
    assert runtime._environment() == "CPU (no NVIDIA driver)"
    assert os.environ["nvcc_path"] == ""
    assert os.environ["use_mpi"] == "0"
    assert os.environ["cache_name"] == "default"


def test_with_a_driver_cuda_is_left_to_jittor(bare):
    bare.setattr(runtime, "nvidia_devices", lambda: 2)
    bare.setattr(runtime, "cuda_toolkit", lambda: "/usr/local/cuda/bin/nvcc")
    bare.setattr(overlay, "release", lambda nvcc: (12, 2))
    bare.setattr(overlay, "needed", lambda nvcc: False)
    assert runtime._environment() == "2 NVIDIA GPU(s), CUDA 12.2 as Jittor finds it"
    assert "nvcc_path" not in os.environ


def test_what_the_user_set_stays(bare):
    wanted = {"nvcc_path": "/opt/cuda/bin/nvcc", "use_mpi": "1", "cache_name": "mine",
              "python_config_path": "/opt/python/bin/python3-config"}
    for name, value in wanted.items():
        bare.setenv(name, value)
    assert runtime._environment() == "CUDA by nvcc_path=/opt/cuda/bin/nvcc"
    assert {name: os.environ[name] for name in wanted} == wanted
    bare.setenv("use_mkl", "0")
    assert onednn.choose(Path("/nonexistent")) == "oneDNN off (use_mkl=0)"


def test_the_interpreters_own_config_is_used(bare, tmp_path):
    """In a virtual environment Jittor would find none, or that of another Python in /usr/bin."""
    config = tmp_path / "bin" / f"python3.{sys.version_info[1]}-config"
    bare.setattr(sys, "base_prefix", str(tmp_path))
    runtime._environment()
    assert "python_config_path" not in os.environ
    config.parent.mkdir()
    config.write_text("")
    runtime._environment()
    assert os.environ["python_config_path"] == str(config)


def test_a_gpu_without_a_toolkit_means_cpu(bare):
    """Jittor would download a CUDA toolkit."""
    bare.setattr(runtime, "nvidia_devices", lambda: 1)
    bare.setattr(runtime, "cuda_toolkit", lambda: None)
    assert runtime._environment() == "CPU (a GPU, but no CUDA toolkit)"
    assert os.environ["nvcc_path"] == ""


def test_under_mpirun_mpi_is_left_alone(bare):
    bare.setenv("OMPI_COMM_WORLD_SIZE", "2")
    runtime._environment()
    assert "use_mpi" not in os.environ


def test_onednn_is_laid_out_once_by_many_at_once(tmp_path):
    target = tmp_path / "mkl" / onednn.FOLDER
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: onednn.install(target), range(4)))
    assert [p.name for p in target.parent.iterdir()] == [onednn.FOLDER]
    assert (target / "lib" / "libmkldnn.so").resolve().stat().st_size > 10_000_000
    assert (target / "include" / "mkldnn.hpp").is_file()


def test_a_half_made_onednn_is_replaced_and_a_whole_one_kept(tmp_path):
    target = tmp_path / ".cache" / "jittor" / "mkl" / onednn.FOLDER
    (target / "lib").mkdir(parents=True)
    assert onednn.choose(tmp_path) == "oneDNN from the wheel"
    library = target / "lib" / "libmkldnn.so"
    assert library.is_file()
    library.unlink()
    library.write_text("the user's own")
    assert onednn.choose(tmp_path) == "oneDNN"
    assert library.read_text() == "the user's own"


def test_without_the_wheel_jittor_downloads(tmp_path, monkeypatch):
    monkeypatch.setattr(onednn, "WHEELS", ("no-such-wheel", "nor-this"))
    assert onednn.choose(tmp_path) == "oneDNN that Jittor downloads"


def test_import_in_one_process_with_torch_and_torchvision():
    done = python("-c", "import jt_models, torchvision, torch, jittor as jt\n"
                  "torchvision.models.resnet18(); print(float((jt.ones(3) + 1).sum().item()))")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "6.0\n"
    assert done.stderr.count("jt_models: Jittor on ") == 1


def test_the_trainer_starts_without_torch():
    """Which would take a third of its start. Whoever imports `jt_models` has PyTorch first, as Jittor wants it."""
    for start, imported in (("import train_jittor; train_jittor._start('cpu')", False), ("import jt_models", True)):
        done = python("-c", f"import sys; {start}; print('torch' in sys.modules)\n"
                      "import jittor as jt; x = jt.nn.matmul(jt.ones((3, 3)), jt.ones((3, 3))).numpy()\n"
                      "import torch; print((torch.ones(3, 3) @ torch.tensor(x)).sum().item())")
        assert done.stdout == f"{imported}\n81.0\n", done.stderr


def test_numpy_does_not_warn_of_what_jittors_kernels_change():
    """A kernel is loaded with -Ofast and flushes subnormals, which numpy tells whoever first asks for a finfo
    afterwards, as a plot does."""
    done = python("-W", "error", "-c", "import jt_models, jittor as jt, numpy as np\n"
                  "jt.randn(2, 3, 8, 8).sync(); print(5e-324 * np.ones(1) / 1, np.finfo(float).eps)")
    assert done.stdout == f"[0.] {2**-52}\n", done.stderr


def test_ctrl_c_is_pythons_again():
    """In a process of its own: a test run in the background may have inherited an ignored SIGINT."""
    code = ("import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import jt_models\n"
            "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler,"
            " signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL)")
    done = python("-c", code)
    assert done.stdout == "True True\n", done.stderr


def test_no_compiler_is_one_sentence():
    for code in (["-c", "import jt_models"], ["train_jittor.py", "--net", "cnn", "--dataset", "digits"]):
        done = python(*code, PATH="/nonexistent")
        message = done.stderr.strip().splitlines()[-1]
        assert "'g++' is not on PATH: install g++" in message
        if code[0] != "-c":
            assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1


def test_mpirun_without_its_headers_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "mpicc").write_text(f"#!/bin/sh\necho {tmp_path}\n")
    (tmp_path / "mpicc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = python("-c", "import jt_models", OMPI_COMM_WORLD_SIZE="2")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].endswith("apt install libopenmpi-dev)")
    (tmp_path / "mpi.h").write_text("")
    assert runtime.mpi_header()


def test_a_jittor_that_fails_to_start_is_one_sentence(tmp_path):
    (tmp_path / "jittor").mkdir()
    (tmp_path / "jittor" / "__init__.py").write_text("raise RuntimeError('broken cache')")
    done = python("-c", "import jt_models", PYTHONPATH=str(tmp_path))
    assert ("ImportError: Jittor did not start (RuntimeError: broken cache); "
            "`python -m jt_models.runtime` says what is missing") in done.stderr


def test_diagnosis():
    done = python("-m", "jt_models.runtime")
    assert done.returncode == 0, done.stdout + done.stderr
    for subject in ("Python", "Jittor", "NumPy", "PyTorch", "C++ compiler", "Python headers",
                    "oneDNN", "NVIDIA driver", "Cache folder"):
        assert subject in done.stdout
    done = python("-m", "jt_models.runtime", PATH="/nonexistent", COLUMNS="200")
    assert done.returncode == 1
    assert "install g++" in done.stdout


def test_progress_is_thinned_where_there_is_no_terminal(capsys):
    progress = runtime._Progress()
    for done in range(1, 151):
        progress.write(f"Compiling jittor_core({done}/150) used: 1s eta: 1s\r")
    assert len(capsys.readouterr().err.splitlines()) == 5
