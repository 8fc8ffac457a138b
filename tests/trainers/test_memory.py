"""A long run needs no more memory than a short one."""
import itertools
import os

import pytest

from training import options
from training.data import BatchPlan

from test_trainers import TRAINERS, both, toy


def resident() -> float:
    """Resident memory of this process, MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@both
@pytest.mark.parametrize("net", ["lenet_bn"] + [pytest.param(name, marks=pytest.mark.slow)
                                                for name in ("cnn", "resnet20_cifar", "mobilenet_slim", "densenet")])
def test_two_thousand_steps_grow_memory_by_less_than_two_percent(framework, net):
    args = options.parse(framework, ["--net", net, "--device", "cpu", "--ema", "0.9", "--clip-norm", "1"])
    channels = 1 if net == "lenet_bn" else 3
    engine = TRAINERS[framework].Engine(args, toy(channels, 32))
    plan = BatchPlan(12, 4, 32, 2, True, 0, cutout=3, mixup=0.4)
    batches = itertools.chain.from_iterable(plan.epoch(k) for k in itertools.count())
    seen = []
    for step in range(2000 + 200):
        values = engine.step(next(batches), 1e-4)
        if step % 20 == 0:  # as often as the trainers fetch
            engine.fetch(values)
        if step >= 200 and step % 100 == 0:  # 200 steps fill the pools of both frameworks
            seen.append(resident())
    assert max(seen) < 1.02 * seen[0], seen
