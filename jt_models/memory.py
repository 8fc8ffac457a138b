"""One region of memory for all that Jittor computes on a CPU.

Jittor's pool (src/mem/allocator/sfrl_allocator.cc) asks the system for every array that finds no place in it, and joins
free neighbours only where they came with one request. So what a forward pass leaves free, array by array, does not hold
the larger gradients of the layers before it, and the pool grows beyond what is ever in use.
"""
from __future__ import annotations

import functools
import mmap
import os
import resource

import jittor as jt


@functools.cache
def reserve() -> None:
    """Have the pool begin with half of the machine's memory in one piece, of which the system gives what is written to.

    Does nothing where what is asked for counts as used: under `ulimit -v`, and with `vm.overcommit_memory=2`.
    """
    size = os.sysconf("SC_PHYS_PAGES") // 2 * os.sysconf("SC_PAGE_SIZE")
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return
    try:
        with open("/proc/sys/vm/overcommit_memory") as file:
            if file.read().strip() == "2":
                return
        mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()  # Jittor would not notice a refusal
    except OSError:
        return
    jt.empty([size], "uint8").sync()
