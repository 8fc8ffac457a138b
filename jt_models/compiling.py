"""What is done to Jittor's compilation of operations: products are analysed in turn, elementwise loops share their work
among threads, and compile threads begin before they end.

- Where Jittor finds a product of matrices or a convolution in a fused operation, the thread that compiles it makes the
  library's operation beside it ("relay", src/opt/tuner/matmul_tuner.cc and conv_tuner.cc) and for a moment links this
  to its inputs. What is left over then, the graph lists in variables of the process (`free_buffer` and `nt` in
  src/node.h). Two threads that do so at once free what the other one needs: now and then a first step dies of SIGSEGV,
  or hangs. Those operations are analysed one after the other here; their compilers still run at once.
- What Jittor generates for a CPU runs on one thread; its own option for more is broken (docs/benchmark.md). In a fused
  operation that only maps elements to elements or reduces the last axes, each turn of the outermost loop writes elements
  of its own, so that OpenMP may share these turns.
- A compile thread that first runs when Jittor has said it should end (src/parallel_compiler.cc, `SimpleThread`) waits for
  ever, and so does who waits for it: a short program on a busy machine did not end. Here each does something before.
"""
from __future__ import annotations

from pathlib import Path

import jittor as jt

_HOOK = """
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <mutex>
#include <thread>
#include "fused_op.h"
#include "op_compiler.h"
#include "opt/tuner_manager.h"
#include "ops/op_register.h"
#include "ops/reduce_op.h"
namespace jittor {
extern jit_op_entry_t (*do_compile_hook)(Op*);
extern vector<void(*)()> cleanup_callback;
static bool share;

// What src/parallel_compiler.cc calls SimpleThread and SimpleThreads; no header declares it.
struct CompileThread {
    int id;
    std::function<void(int)> work;
    std::mutex mutex;
    std::condition_variable wake;
    std::thread thread;
};
struct CompileThreads { std::list<CompileThread> all; };
extern CompileThreads threads;

static void await_threads() {
    static std::atomic<uint64_t> began;
    uint64_t all = 0;
    for (CompileThread& it : threads.all) {
        all |= 1ull << it.id % 64;
        std::lock_guard<std::mutex> lock(it.mutex);
        it.work = [](int id) { began |= 1ull << id % 64; };
        it.wake.notify_all();
    }
    while (began != all) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

static bool named(Op* op, std::initializer_list<const char*> names) {
    for (const char* name : names)
        if (op->name() == string(name)) return true;
    return false;
}

static bool may_relay(FusedOp* fused) {
    for (Op* op : fused->ops)
        if (named(op, {"reduce", "reindex_reduce"})) return true;
    return false;
}

// The place, among the operation's variables, of one that has an element for each turn of all loops; -1 where turns of the
// outermost one may write the same element, as of a sum over the first axis.
static int divisible(FusedOp* fused, bool& sums) {
    NanoVector shape;
    sums = false;
    for (Op* op : fused->ops)
        if (named(op, {"reduce"})) {
            const ReduceOp* reduce = (ReduceOp*)op;
            const int axes = reduce->x->shape.size(), kept = axes - __builtin_popcount(reduce->reduce_mask);
            if (!kept || reduce->reduce_mask != (1 << axes) - (1 << kept)) return -1;  // the last axes only
            if (sums && reduce->x->shape != shape) return -1;
            shape = reduce->x->shape;
            sums = true;
        }
    int whole = -1;
    for (int i = 0; i < (int)fused->vars.size(); i++) {
        Var* var = fused->vars[i].var;
        if (fused->vars[i].type == 2 && named(var->input(), {"array"})) return -1;  // a number, written once
        if (!sums && fused->vars[i].type == 2) shape = var->shape;
    }
    for (Op* op : fused->ops) {
        if (named(op, {"array", "reduce"})) continue;
        if (!named(op, {"unary", "binary", "ternary", "broadcast_to", "reindex", "index"})) return -1;
        if (op->outputs().front()->shape != shape) return -1;
    }
    for (int i = 0; i < (int)fused->vars.size(); i++)
        if (fused->vars[i].var->shape == shape) whole = i;
    return whole;
}

// All is declared within the parallel region: of what lies outside the compiler no longer knows that pointers are
// `restrict` and that strides are equal.
static string shared_among_threads(FusedOp* fused, string source) {
    if (!share || fused->flags.get(NodeFlags::_cuda)) return source;
    bool sums;
    const int whole = divisible(fused, sums);
    const string start = "jit_run() {", outer = "\\n    for (", inner = "\\n        for (";
    const size_t body = source.find(start), loop = source.find(outer);
    if (whole < 0 || body == string::npos || loop == string::npos || source.find(outer, loop + 1) != string::npos)
        return source;
    size_t loops = 0;
    for (size_t i = source.find(" for (", loop); i != string::npos; i = source.find(" for (", i + 1)) loops++;
    const size_t second = source.find("\\n", loop + 1);
    const bool nested = second != string::npos && source.compare(second, inner.size(), inner) == 0;
    const string how = sums ? "" : loops == 1 ? " simd" : loops > 2 && nested ? " collapse(2)" : "";
    source.insert(source.rfind("}"), "}\\n");
    source.insert(loop, "\\n    #pragma omp for" + how);
    return source.insert(body + start.size(), "\\n    #pragma omp parallel if (vars[" + S(whole)
                                                  + "].var->num > 32768)\\n    {");
}

static jit_op_entry_t compile(Op* op) {
    static std::recursive_mutex analysis;  // a search among kernels compiles within
    std::unique_lock<std::recursive_mutex> turn(analysis, std::defer_lock);
    FusedOp* fused = op->name() == string("fused") ? (FusedOp*)op : nullptr;
    if (fused && may_relay(fused)) turn.lock();
    OpCompiler compiler(op);
    for (OpByType* type : op_types) type->post_pass(&compiler);
    string source = fused ? shared_among_threads(fused, TunerManager(&compiler).tune()) : compiler.src;
    op->compile_optimize(source);
    const string key = op->get_jit_key(get_jk());
    if (turn) turn.unlock();
    return compiler.compile(key, source);
}
}
"""
_SET = """
    share = in0_p[0];
    if (!do_compile_hook) {
        do_compile_hook = compile;
        cleanup_callback.insert(cleanup_callback.begin(), await_threads);  // before the one that ends them
    }
    out0_p[0] = do_compile_hook == compile;
"""


def use_folder(name: str) -> None:
    """Keep the kernels that this process compiles in a folder of Jittor's cache, beside those of other programs."""
    place = Path(jt.compiler.cache_path, name)
    for part in ("jit", "obj_files", "tmp"):
        (place / part).mkdir(parents=True, exist_ok=True)
    jt.flags.cache_path = str(place)


def take_over(threads: bool = True) -> bool:
    """Put this into Jittor's hook for compilers; False where another one has that place.

    Args:
        threads: whether elementwise loops share their work.
    """
    # Jittor makes its threads when they are first wanted, and a fork would have none. -O1: what is linked with
    # Jittor's own -Ofast has this thread flush subnormals.
    with jt.flag_scope(use_parallel_op_compiler=0, compile_options={"FLAGS: -O1 ": 1}):
        return bool(jt.code([1], "int32", [jt.array([int(threads)])], cpu_header=_HOOK, cpu_src=_SET).item())


def leave_loops() -> None:
    """From here on compile the loops that Jittor generates, as it does, in a folder of their own."""
    take_over(threads=False)  # first: what waits to be computed is compiled with it
    use_folder("zoo-stock")
