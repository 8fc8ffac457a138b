"""The overlay in which Jittor compiles for CUDA 13 and cuDNN 9, as far as it can be tried without a GPU."""
import ctypes
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from jt_models import diagnosis, runtime
from jt_models.cuda import overlay
from jt_models.cuda.overlay import Unsuitable

ROOT = Path(__file__).resolve().parents[1]
# A compiler that tells of itself and, asked to compile, writes its own arguments.
NVCC = """#!/bin/sh
case "$*" in
    --version) echo "Cuda compilation tools, release {release}, V{release}.88" ;;
    --dryrun*) echo "#$ TOP=$(dirname "$0")/.." >&2 ;;
    *) for word do last=$word; done; echo "$@" > "$last" ;;
esac
"""


def toolkit(folder, release="13.0"):
    """A CUDA toolkit without CUDA's mathematical libraries, as PyTorch's wheels expect it; its compiler."""
    for name in ("bin", "include", "lib64"):
        (folder / name).mkdir(parents=True)
    (folder / "include" / "cuda_runtime.h").write_text("the toolkit's own")
    (folder / "lib64" / "libcudart.so.13").write_text("the toolkit's")
    nvcc = folder / "bin" / "nvcc"
    nvcc.write_text(NVCC.format(release=release))
    nvcc.chmod(0o755)
    return nvcc


def wheels(site):
    """NVIDIA's wheels as PyTorch for CUDA 13 installs them."""
    for place in ("cu13", "cudnn"):
        for name in ("include", "lib"):
            (site / "nvidia" / place / name).mkdir(parents=True)
    for name in overlay.HEADERS:
        place = "cudnn" if name.startswith("cudnn") else "cu13"
        (site / "nvidia" / place / "include" / name).write_text("")
    for name in overlay.LIBRARIES:
        place, version = ("cudnn", 9) if name.startswith("cudnn") else ("cu13", 13)
        (site / "nvidia" / place / "lib" / f"lib{name}.so.{version}").write_text(f"the wheel's {name}")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """(compiler, site folder with wheels, cache folder)."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
    wheels(tmp_path / "site")
    return toolkit(tmp_path / "cuda"), tmp_path / "site", tmp_path / "cache"


def test_an_overlay_has_what_jittor_looks_for(machine):
    nvcc, _, cache = machine
    assert overlay.needed(nvcc)
    place = overlay.build(cache, nvcc)
    assert "-" not in place.name
    # Jittor follows links to find its CUDA home.
    assert not (place / "bin" / "nvcc").is_symlink() and not (place / "cutt").is_symlink()
    for name in ("cudart", "cublas", "cudnn"):
        assert (place / "lib64" / f"lib{name}.so").read_text() == f"the wheel's {name}"
    for name in ("ops_infer", "ops_train", "cnn_infer", "cnn_train"):
        assert (place / "lib64" / f"libcudnn_{name}.so").read_text() == f"the wheel's cudnn_{name[:3]}"
    assert (place / "include" / "toolkit" / "cuda_runtime.h").read_text() == "the toolkit's own"
    assert "computeMode" in (place / "include" / "cuda_runtime.h").read_text()
    assert f"-o {place.parent}" in (place / "cutt" / "libcutt.so").read_text()
    called = place / "called"
    subprocess.run([place / "bin" / "nvcc", "-std=c++14", "a b", called], check=True)
    assert called.read_text() == f"-std=c++17 a b {called}\n"
    config = subprocess.run([place / "bin" / "python-config", "--includes"], capture_output=True, text=True)
    assert config.stdout == f"-I{runtime.python_header().parent}\n"
    assert all(str(place) in value for name, value in overlay.variables(place).items() if "path" in name)


def test_an_overlay_is_built_once_by_many_at_once_and_anew_for_other_libraries(machine):
    nvcc, site, cache = machine
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: overlay.build(cache, nvcc), range(8)))
    assert len(made) == 1 and [path.name for path in cache.iterdir()] == [made.pop().name]
    (site / "nvidia" / "cudnn" / "lib" / "libcudnn_graph.so.9").write_text("")
    overlay.build(cache, nvcc)
    assert len(list(cache.iterdir())) == 2


def test_a_build_that_fails_leaves_nothing(machine):
    nvcc, _, cache = machine
    nvcc.write_text(nvcc.read_text().replace('echo "$@" > "$last"', "echo no such device >&2; exit 1"))
    with pytest.raises(Unsuitable, match="does not compile .*no such device"):
        overlay.build(cache, nvcc)
    assert list(cache.iterdir()) == []


def test_a_link_or_a_script_before_the_compiler_is_followed(machine, tmp_path):
    nvcc, _, _ = machine
    (tmp_path / "link").symlink_to(nvcc)
    (tmp_path / "script").write_text(f'#!/bin/sh\nexec {nvcc} "$@"\n')
    (tmp_path / "script").chmod(0o755)
    assert overlay.toolkit(nvcc) == overlay.toolkit(tmp_path / "script") == nvcc.parents[1]
    with pytest.raises(Unsuitable, match="does not tell"):
        overlay.release("/bin/true")
    with pytest.raises(Unsuitable, match="does not run"):
        overlay.release(tmp_path / "none")


@pytest.mark.parametrize("release, cudnn, wanted", [
    ("11.8", None, False), ("12.4", 8, False), ("12.4", 9, True), ("12.4", None, True), ("13.0", None, True)])
def test_what_stock_jittor_supports_is_left_to_it(release, cudnn, wanted, machine, tmp_path):
    nvcc = toolkit(tmp_path / "other", release)
    if cudnn:
        (tmp_path / "other" / "include" / "cudnn_version.h").write_text(f"#define CUDNN_MAJOR {cudnn}\n")
    assert overlay.needed(nvcc) is wanted


def test_missing_wheels_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(overlay, "wheels", lambda: [])
    nvcc = toolkit(tmp_path / "cuda")
    with pytest.raises(Unsuitable, match=r"wheels have cublas_v2.h, cublasLt.h, cudnn_v9.h and 11 more"):
        overlay.needed(nvcc)


def test_the_machine_decides(machine, monkeypatch):
    nvcc, _, cache = machine
    for name in (*overlay.variables(cache), "use_mpi"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(runtime, "nvidia_devices", lambda: 1)
    monkeypatch.setattr(runtime, "cuda_toolkit", lambda: str(nvcc))
    monkeypatch.setattr(runtime, "jittor_home", lambda: cache)
    monkeypatch.setenv("use_nccl", "1")
    found = runtime._choose_device()
    assert found.startswith("1 NVIDIA GPU(s), CUDA 13.0 by way of ") and os.environ["use_nccl"] == "1"
    assert Path(os.environ["nvcc_path"]).is_file() and cache in Path(os.environ["nvcc_path"]).parents
    assert diagnosis._cuda_case(str(nvcc)) == (f"{nvcc}, release 13.0, with an overlay of our own", None)
    monkeypatch.delenv("nvcc_path")
    monkeypatch.setattr(overlay, "wheels", lambda: [])
    assert runtime._choose_device().startswith("CPU (neither ")
    assert os.environ["nvcc_path"] == ""
    finding, remedy = diagnosis._cuda_case(str(nvcc))
    assert finding.endswith("Jittor runs on the CPU") and "pip install torch" in remedy


PERMUTE = """
#include "permute.h"
extern "C" void permute(int rank, const int* sizes, const int* order, const int* input, int* output) {
    Permutation axes(rank, sizes, order);
    for (int64_t to = 0; to < axes.count; ++to) output[to] = input[axes.source(to)];
}
"""


def test_the_transposition_is_numpys(tmp_path):
    """The indices of the CUDA kernel, on the CPU; cuTT counts axes from the fastest."""
    (tmp_path / "p.cc").write_text(PERMUTE)
    subprocess.run(["g++", "-shared", "-fPIC", f"-I{overlay.HERE / 'cutt'}", tmp_path / "p.cc", "-o",
                    tmp_path / "p.so"], check=True)
    permute = ctypes.CDLL(str(tmp_path / "p.so")).permute
    for rank in range(1, 6):
        x = np.arange(np.prod(range(2, rank + 2)), dtype="int32").reshape(range(2, rank + 2))
        for axes in itertools.permutations(range(rank)):
            right = np.ascontiguousarray(x.transpose(axes))
            found = np.empty_like(right)
            sizes = (ctypes.c_int * rank)(*x.shape[::-1])
            order = (ctypes.c_int * rank)(*(rank - 1 - axis for axis in axes[::-1]))
            permute(rank, sizes, order, x.ctypes, found.ctypes)
            assert np.array_equal(found, right), axes


@pytest.mark.slow
def test_training_compiles_for_cuda(tmp_path):
    nvcc = runtime.cuda_toolkit()
    try:
        if nvcc is None or not overlay.needed(nvcc):
            pytest.skip("needs nvcc 12 or 13")
    except Unsuitable as reason:
        pytest.skip(str(reason))
    done = subprocess.run([sys.executable, ROOT / "results/cuda/compile.py", "lenet_bn", "mobilenet_slim",
                           "--cache", tmp_path, "--json", tmp_path / "rows.json"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(row["kernels"] > 5 for row in json.loads((tmp_path / "rows.json").read_text())["rows"])
