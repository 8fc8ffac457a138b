"""How kernels are compiled: below precompiled headers, products and convolutions in turn, elementwise loops for threads."""
import ctypes
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jittor as jt
import jittor_core
import numpy as np
import pytest

from jt_models import compiling, headers, source

from test_runtime import python

HOOK = ctypes.c_void_p.in_dll(ctypes.CDLL(jittor_core.__file__), "_ZN6jittor15do_compile_hookE")
INCLUDE = re.compile(r'-include "(.*?)"')


def compiled(kernel: Path, flags: str, *more) -> subprocess.CompletedProcess:
    """g++ on the source of a kernel, as Jittor calls it."""
    return subprocess.run([*headers.compiler(flags), "-c", kernel, *more], capture_output=True, text=True, check=True)


@pytest.fixture
def kernels() -> list[Path]:
    """Sources of a fused operation and of one written by us."""
    x = jt.array(np.arange(6, dtype=np.float32))
    np.testing.assert_array_equal(((x + 2) * 3 - x).numpy(), 2 * x.numpy() + 6)
    doubled = jt.code([6], "float32", [x], cpu_src="for (int i = 0; i < 6; i++) out0_p[i] = 2 * in0_p[i];")
    np.testing.assert_array_equal(doubled.numpy(), 2 * x.numpy())
    folder = Path(jt.flags.cache_path, "jit")
    return [max(folder.glob(f"{kind}*.cc"), key=lambda path: path.stat().st_mtime) for kind in ("__opkey", "code")]


def test_kernels_are_compiled_below_precompiled_headers(kernels, tmp_path):
    header = INCLUDE.search(jt.flags.cc_flags)[1]
    for kernel in kernels:
        told = compiled(kernel, jt.flags.cc_flags, "-H", "-o", tmp_path / "a.o").stderr
        assert f"! {header}.gch" in told


def test_these_change_no_instruction(kernels, tmp_path):
    for kernel in kernels:
        code = []
        for flags in (jt.flags.cc_flags, INCLUDE.sub("", jt.flags.cc_flags)):
            compiled(kernel, flags, "-o", tmp_path / "a.o")
            subprocess.run(["strip", "--strip-debug", tmp_path / "a.o"], check=True)
            code.append((tmp_path / "a.o").read_bytes())
        assert code[0] == code[1] and len(code[0]) > 1000


@pytest.fixture
def flags():
    """Jittor's, which a test may change."""
    kept = {name: getattr(jt.flags, name) for name in ("cc_flags", "cc_type", "cc_path", "cache_path", "jittor_path")}
    jt.flags.cc_flags = INCLUDE.sub("", jt.flags.cc_flags)
    yield jt.flags
    for name, value in kept.items():
        setattr(jt.flags, name, value)


@pytest.mark.parametrize("name, value", [("cc_type", "clang"), ("cc_path", "/bin/false")])
def test_a_compiler_that_cannot_leaves_all_as_it_was(flags, tmp_path, name, value):
    setattr(flags, name, value)
    flags.cache_path = str(tmp_path)
    before = flags.cc_flags
    headers.precompile()
    assert (flags.cc_flags, flags.cache_path) == (before, str(tmp_path))
    assert not list(tmp_path.rglob("*.gch"))


def test_many_at_once_make_one_whole_file(flags, tmp_path):
    header = tmp_path / "kernel.h"
    result = Path(f"{header}.gch")
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(lambda _: headers._compile(header, result, flags.cc_flags), range(3)))
    assert sorted(tmp_path.iterdir()) == [header, result]
    (tmp_path / "a.cc").write_text("int f(jittor::Var* v) { return v->num; }\n")
    told = compiled(tmp_path / "a.cc", f'{flags.cc_flags} -include "{header}"', "-H", "-o", tmp_path / "a.o").stderr
    assert f"! {result}" in told


def test_a_header_that_changes_is_compiled_anew(flags, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "var.h").write_text("a")
    flags.jittor_path = str(tmp_path)
    before = headers._digest("-O2")
    assert before == headers._digest("-O2") != headers._digest("-O3")
    (tmp_path / "src" / "op.h").write_text("b")
    assert headers._digest("-O2") != before


def test_another_compiler_in_jittors_hook_is_kept():
    ours = HOOK.value
    assert ours and compiling.take_over()
    HOOK.value = None
    try:
        assert compiling.take_over() and HOOK.value == ours
        HOOK.value = 1
        assert not compiling.take_over() and HOOK.value == 1
    finally:
        HOOK.value = ours


def test_a_forked_process_can_compile_and_subnormals_stay():
    done = python("-c", "import jt_models, jittor as jt, numpy as np, os\n"
                  "print(np.ones(1, 'f4') * np.float32(1e-40) > 0, flush=True)\n"
                  "if not os.fork(): print((jt.ones(3) * 2 + 1).sum().item(), flush=True); os._exit(0)\n"
                  "print(os.waitstatus_to_exitcode(os.wait()[1]))")
    assert done.stdout == "[ True]\n9.0\n0\n", done.stderr


def compiled_source(make) -> str:
    """That of the fused operation which `make` is."""
    with jt.profile_scope() as report:
        make().sync()
    return Path(next(row[1] for row in report[1:] if "opkey" in row[0])).read_text()


A = np.arange(64 * 33 * 41, dtype=np.float32).reshape(64, 33, 41) % 1013 - 500
B = np.arange(33, dtype=np.float32) - 7


def over(b, a):
    """One number of `b` for each index of the second axis of `a`."""
    return b.broadcast(a, [0, 2]) if isinstance(b, jt.Var) else b[None, :, None]


SHARED = [  # how the outermost loop is shared, and an operation, in Jittor or NumPy
    ("for simd", lambda a, b, lib: a * 3 - a),
    ("for collapse(2)", lambda a, b, lib: lib(a > over(b, a), a * over(b, a), -a)),
    ("for", lambda a, b, lib: a + (a[0].broadcast(a, [0]) if isinstance(a, jt.Var) else a[0])),
    ("for collapse(2)", lambda a, b, lib: a + (a.reindex(a.shape, ["i0", "i1", "40-i2"]) if isinstance(a, jt.Var)
                                               else a[:, :, ::-1])),
]


@pytest.mark.parametrize("images", [64, 1])  # the latter are too few elements to be shared
@pytest.mark.parametrize("how, operation", SHARED)
def test_threads_share_elementwise_loops(how, operation, images):
    a, b = jt.array(A[:images]), jt.array(B)
    np.testing.assert_array_equal(operation(a, b, jt.ternary).numpy(), operation(A[:images], B, np.where))
    assert f"#pragma omp {how}\n" in compiled_source(lambda: operation(a, b, jt.ternary))


@pytest.mark.parametrize("images", [64, 1])
@pytest.mark.parametrize("operation", [lambda a: a.sum(2), lambda a: a.sum((1, 2)), lambda a: (a * a - 3 * a).sum(2),
                                       lambda a: a.max(2)])
def test_threads_share_sums_over_the_last_axes(operation, images):
    """In the order of one thread."""
    a = jt.array(A[:images])
    np.testing.assert_array_equal(operation(a).numpy(), operation(A[:images].astype("float64")).astype("float32"))
    assert "#pragma omp for\n" in compiled_source(lambda: operation(a))


@pytest.mark.parametrize("make", [lambda a: a.sum(1), lambda a: a.sum((0, 2)), lambda a: (a * 2).max(),
                                  lambda a: a.transpose(1, 0, 2) + 0 * a.max()])
def test_other_loops_stay_on_one_thread(make):
    a = jt.array(A)
    with jt.profile_scope() as report:
        make(a).sync()
    sources = [Path(row[1]).read_text() for row in report[1:] if "opkey" in row[0]]
    assert sources and not any("#pragma omp" in source for source in sources if "reduce" in source)


def test_stock_kernels_are_jittors_own_in_a_folder_of_their_own():
    done = python("-c", "import jt_models, jittor as jt, pathlib\n"
                  "from jt_models import compiling; compiling.leave_loops()\n"
                  "print((jt.ones([300, 300]) * 3 + 2).sum().item())\n"
                  "jit = pathlib.Path(jt.flags.cache_path, 'jit')\n"
                  "print(jit.parent.name, any('#pragma omp' in path.read_text() for path in jit.glob('__opkey*.cc')))")
    assert done.stdout == "450000.0\nzoo-stock False\n", done.stderr


def test_operations_find_headers_of_ours_from_that_folder():
    """Without this no convolution compiles on a GPU, where such a header includes cuDNN's."""
    for left in Path(jt.compiler.cache_path).glob("jt_models_test_*.h"):
        left.unlink()
    line = source.included("test", "inline float twice(float x) { return 2 * x; }\n")
    assert jt.flags.cache_path != jt.compiler.cache_path  # else it shows nothing
    read = subprocess.run([*headers.compiler(jt.flags.cc_flags), "-E", "-x", "c++", "-"], input=line, capture_output=True,
                          text=True)
    assert read.returncode == 0, read.stderr


def test_a_program_ends_whose_compile_threads_begin_late(tmp_path):
    text, library = tmp_path / "late.cc", tmp_path / "late.so"
    text.write_text("""
        #include <cstring>
        #include <dlfcn.h>
        #include <pthread.h>
        #include <unistd.h>
        struct Work { void* (*run)(void*); void* argument; };
        static void* late(void* pointer) {
            sleep(3);
            Work* work = (Work*)pointer;
            return work->run(work->argument);
        }
        extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* how, void* (*run)(void*), void* argument) {
            auto create = (decltype(&pthread_create))dlsym(RTLD_NEXT, "pthread_create");
            Dl_info caller;
            dladdr(__builtin_return_address(0), &caller);
            if (!strstr(caller.dli_fname, "libstdc++")) return create(thread, how, run, argument);
            return create(thread, how, late, new Work{run, argument});
        }
    """)
    subprocess.run(["g++", "-shared", "-fPIC", "-o", library, text, "-ldl"], check=True)
    # One operation, which the main thread compiles itself: for more it would wait until the others have begun.
    done = python("-c", "import jt_models, jittor as jt; jt.randn(2, 3).sync(); print('done')", LD_PRELOAD=library)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_vectors_are_as_long_as_kernels_take_them():
    found = jt.code([1], "int32", [jt.zeros([1])], cpu_header=source.BYTES, cpu_src="out0_p[0] = BYTES;")
    assert found.item() == source.vector_bytes()
