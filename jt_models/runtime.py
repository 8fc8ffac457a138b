"""Makes `import jittor` work on this machine: offline, without a GPU, beside PyTorch.

Stock Jittor 1.3.11.0 downloads oneDNN at its first import, takes any `nvcc` that it finds (and then
fails where there is no NVIDIA driver), and must come after PyTorch in one process. `start()` does
what is needed before and after the import; it is called once, when `jt_models` is imported. A
variable that is already set in the environment is never changed.

`python -m jt_models.runtime` prints a diagnosis and changes nothing but Jittor's own cache folder.
"""
from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np

from . import onednn
from .cuda import overlay
from .cuda.overlay import Unsuitable

JITTOR = "1.3.11.0"
device = "not chosen: Jittor was imported by somebody else"  # what `start` has chosen and why, in words


def compiler() -> str | None:
    """Path of the C++ compiler that Jittor will use (variable `cc_path`, else g++), or None."""
    return shutil.which(os.environ.get("cc_path") or "g++")


def python_header() -> Path:
    """Where Python.h, without which Jittor's core does not compile, lies or should lie."""
    return Path(sysconfig.get_paths()["include"]) / "Python.h"


def mpi_header() -> bool:
    """Whether the `mpicc` on PATH finds mpi.h, without which Jittor's MPI engine does not compile."""
    try:
        shown = subprocess.run(["mpicc", "--showme:incdirs"], capture_output=True, text=True).stdout
    except OSError:
        return False
    return any((Path(folder) / "mpi.h").is_file() for folder in shown.split())


def jittor_home() -> Path:
    """The folder below which Jittor keeps `.cache/jittor` (JITTOR_HOME, else its sticky setting)."""
    try:
        import jittor_utils
    except (ImportError, RuntimeError, OSError):  # it looks for the compiler and makes its cache
        return Path(os.environ.get("JITTOR_HOME") or Path.home())
    return Path(jittor_utils.home())


def nvidia_devices() -> int:
    """Number of GPUs that the NVIDIA driver reports; 0 without a driver, whatever CUDA is there."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def cuda_toolkit() -> str | None:
    """Path of the CUDA compiler where Jittor looks for it, its own download included, or None."""
    own = jittor_home().glob(".cache/jittor/jtcuda/*/bin/nvcc")
    places = [shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc", "/usr/bin/nvcc", "/opt/cuda/bin/nvcc"]
    return next((str(p) for p in (*places, *own) if p and Path(p).is_file()), None)


def _choose_device() -> str:
    if "nvcc_path" in os.environ:
        path = os.environ["nvcc_path"]
        return f"CUDA by nvcc_path={path}" if path else "CPU (nvcc_path is empty)"
    try:
        return _choose_cuda()
    except (Unsuitable, OSError) as reason:
        # Else Jittor would take any nvcc, and with a driver but no toolkit download one.
        os.environ["nvcc_path"] = ""
        return f"CPU ({reason})"


def _choose_cuda() -> str:
    devices = nvidia_devices()
    if not devices:
        raise Unsuitable("no NVIDIA driver")
    nvcc = cuda_toolkit()
    if nvcc is None:
        raise Unsuitable("a GPU, but no CUDA toolkit")
    found = f"{devices} NVIDIA GPU(s), CUDA {'.'.join(map(str, overlay.release(nvcc)))}"
    if not overlay.needed(nvcc):
        return f"{found} as Jittor finds it"
    place = overlay.build(jittor_home() / ".cache" / "jt_models", nvcc)
    for name, value in overlay.variables(place).items():
        os.environ.setdefault(name, value)
    return f"{found} by way of {place}"


def _environment() -> str:
    """Set what Jittor reads at import, unless the user has; returns the device chosen, in words."""
    if "OMPI_COMM_WORLD_SIZE" not in os.environ:
        # With an mpicc on PATH Jittor compiles its MPI extension even outside mpirun.
        os.environ.setdefault("use_mpi", "0")
    # Inside a git repository Jittor names its cache after the branch: a new branch would compile
    # everything again.
    os.environ.setdefault("cache_name", "default")
    # Beside a virtual environment's python there is none, and that of /usr/bin is another Python's.
    config = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info[1]}-config"
    if config.is_file():
        os.environ.setdefault("python_config_path", str(config))
    # Last: looking for a toolkit imports jittor_utils, which reads the names set above.
    return _choose_device()


def _torch_wanted() -> bool:
    """Whether to import PyTorch: unless a process on the CPU has said, by Jittor's own variable, that it will never
    use it (1.6 s and 180 MB less)."""
    alone = os.environ.get("FIX_TORCH_ERROR") == "0" and os.environ.get("nvcc_path") == ""
    return importlib.util.find_spec("torch") is not None and not alone


class _Progress:
    """Stands for stdout while Jittor compiles: its progress goes to stderr, thinned in a log."""

    def __init__(self):
        self._last = -1

    def write(self, text: str) -> int:
        if sys.stderr.isatty():
            sys.stderr.write(text)
        elif text.startswith("Compiling") and "/" in text:
            done, total = text.split("(")[1].split(")")[0].split("/")
            quarter = 4 * int(done) // int(total)
            if quarter != self._last:
                self._last = quarter
                print(text.strip(), file=sys.stderr, flush=True)
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()


@contextlib.contextmanager
def _handlers_kept():
    """Jittor's own SIGINT handler ends the process at once, without `finally`; its SIGCHLD handler
    does so when a child is killed. Keep it from the first, and put the second back."""
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGCHLD)}
    jupyter = os.environ.get("JPY_PARENT_PID")
    os.environ["JPY_PARENT_PID"] = jupyter or "0"  # under Jupyter Jittor leaves SIGINT alone
    try:
        yield
    finally:
        if jupyter is None:
            del os.environ["JPY_PARENT_PID"]
        for number, handler in before.items():
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def start() -> None:
    """Prepare this process and import Jittor. Does nothing if Jittor is already imported.

    Raises:
        ImportError: no C++ compiler, no Jittor, or Jittor's own start failed; one sentence.
    """
    if "jittor" in sys.modules:
        return
    if importlib.util.find_spec("jittor") is None:
        raise ImportError(f"Jittor is not installed: pip install jittor=={JITTOR}")
    if compiler() is None:
        wanted = os.environ.get("cc_path") or "g++"
        raise ImportError(
            f"Jittor compiles its kernels with a C++ compiler, and {wanted!r} is not on PATH: "
            "install g++ (Debian, Ubuntu: apt install g++) or set cc_path to one")
    if not python_header().is_file():
        raise ImportError(f"Jittor compiles against Python's headers, and {python_header()} is missing: "
                          "install them (Debian, Ubuntu: apt install python3-dev)")
    if "OMPI_COMM_WORLD_SIZE" in os.environ and os.environ.get("use_mpi") != "0" and not mpi_header():
        raise ImportError("under mpirun Jittor compiles against Open MPI's headers, and mpi.h is missing: install "
                          "them (Debian, Ubuntu: apt install libopenmpi-dev)")
    global device
    device = _environment()
    if _torch_wanted():
        import torch  # noqa: F401  (must come first: two OpenMP runtimes and oneDNNs in a process)
        from training.torchvision_ops import declare_missing_ops
        declare_missing_ops()
    try:
        which = onednn.choose(jittor_home())
        import jittor_utils
    except OSError as error:
        raise ImportError(f"Jittor cannot make its cache folder ({error}): set JITTOR_HOME to a "
                          "folder that can be written to") from error
    cache = Path(jittor_utils.cache_path)
    print(f"jt_models: Jittor on {device}, {which}, cache {cache}", file=sys.stderr)
    if not any(cache.glob(f"{'cu*/' if os.environ.get('nvcc_path') else ''}jittor_core*.so")):
        print("jt_models: first import on this machine: compiling Jittor's core, "
              "two to six minutes on two cores", file=sys.stderr, flush=True)
    info, jittor_utils.LOG.i = jittor_utils.LOG.i, lambda *message: None
    try:
        with _handlers_kept(), contextlib.redirect_stdout(_Progress()):
            import jittor
    except (KeyboardInterrupt, ImportError):
        raise
    except BaseException as error:  # Jittor raises RuntimeError, AssertionError and SystemExit
        sys.modules.pop("jittor", None)
        if isinstance(error, SystemExit) and not error.code:
            raise ImportError("Jittor has rebuilt a part of itself (its compiler or Python has "
                              "changed) and must be started again: repeat the command") from error
        raise ImportError(f"Jittor did not start ({type(error).__name__}: {error}); "
                          "`python -m jt_models.runtime` says what is missing") from error
    finally:
        jittor_utils.LOG.i = info
    for real in (np.float32, np.float64):
        np.finfo(real)  # numpy keeps what it finds; after a kernel was loaded (-Ofast) it would warn of subnormals
    if jittor.has_cuda:
        # With it a tanh is off by 130 units of rounding; a user's own nvcc_flags stay.
        if "fast_math" not in os.environ.get("nvcc_flags", ""):
            jittor.flags.nvcc_flags = jittor.flags.nvcc_flags.replace("--use_fast_math", "")
        limit_workspace()
        # Else after 100 shapes of convolutions no algorithm is looked for, but guessed.
        jittor.cudnn.set_algorithm_cache_size(10_000)
    from . import compiling, headers
    try:
        compiling.use_folder("zoo")
        headers.precompile()
        compiling.take_over()
    except (OSError, RuntimeError) as error:
        raise ImportError(f"Jittor cannot compile into its cache folder {cache} ({error})") from error


def limit_workspace(size: int = 2**30) -> None:
    """Let convolutions on the GPU use those algorithms of cuDNN that need at most so many bytes of workspace
    (Jittor's own limit is a quarter of the GPU). What was chosen for a shape stays chosen."""
    import jittor
    jittor.cudnn.set_max_workspace_ratio(size / jittor.get_mem_info().total_cuda_ram)


if __name__ == "__main__":
    from .diagnosis import main
    sys.exit(main())
