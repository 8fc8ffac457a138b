"""One region for all that Jittor computes on a CPU: an array has its place where smaller ones were."""
import subprocess
import sys

import pytest

PROGRAM = """
import os, resource, sys
import jt_models
import jittor as jt
from jt_models import memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

def pool():
    return jt.get_mem_info().total_cpu_used >> 20

before = pool()
if sys.argv[1] == "limited":
    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))
if sys.argv[1] != "without":
    memory.reserve()
    memory.reserve()
reserved = pool() - before
small = [jt.ones([8 << 18]) + i for i in range(16)]  # of 8 MB each
jt.sync_all(True)
del small
before = resident()
large = jt.ones([128 << 18]) * 3
large.sync()
print(reserved, resident() - before)
"""


@pytest.mark.parametrize("way", ["with", "without", "limited"])
def test_large_arrays_lie_where_small_ones_were(way):
    done = subprocess.run([sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, check=True)
    reserved, grown = map(int, done.stdout.split()[-2:])
    if way == "with":
        with open("/proc/meminfo") as file:
            total = int(file.readline().split()[1]) >> 10
        assert abs(reserved - total // 2) < 8 and grown < 32
    else:  # why it is done, and that a limit on addresses is respected
        assert reserved == 0 and grown > 96
