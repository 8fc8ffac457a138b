"""The learning rate, value by value against torch's own schedulers."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.errors import UserError
from training.schedule import Schedule

EPOCHS, STEPS = 10, 7
TOTAL = EPOCHS * STEPS


def torch_rates(warmup, make_main):
    """The rates that a torch optimizer sees; make_main(optimizer, schedulers module)."""
    torch = pytest.importorskip("torch")
    rules = torch.optim.lr_scheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = make_main(optimizer, rules)
    if warmup:
        rise = rules.LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
        scheduler = rules.SequentialLR(optimizer, [rise, scheduler], milestones=[warmup])
    rates = []
    for _ in range(TOTAL):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.filterwarnings("ignore:The epoch parameter in")  # SequentialLR's own call
@pytest.mark.parametrize("warmup", [0, 2, STEPS, 3 * STEPS - 1])
@pytest.mark.parametrize("kind", ["cosine", "multistep", "constant"])
def test_rates_equal_torch(kind, warmup):
    milestones = (4, 5, 8)
    mains = {
        "cosine": lambda opt, rules: rules.CosineAnnealingLR(opt, TOTAL - warmup),
        "multistep": lambda opt, rules: rules.MultiStepLR(
            opt, [epoch * STEPS - warmup for epoch in milestones], gamma=0.2),
        "constant": lambda opt, rules: rules.ConstantLR(opt, factor=1, total_iters=0),
    }
    schedule = Schedule(kind, 0.1, TOTAL, STEPS, warmup, milestones, gamma=0.2)
    ours = [schedule(step) for step in range(TOTAL)]
    assert ours == pytest.approx(torch_rates(warmup, mains[kind]), rel=1e-9, abs=1e-15)


def test_known_values():
    cosine = Schedule("cosine", 0.4, 110, 10, warmup_steps=10)
    assert [cosine(step) for step in (0, 1, 9, 10, 60, 110)] == pytest.approx(
        [0.04, 0.08, 0.4, 0.4, 0.2, 0.0], abs=1e-15)
    steps = Schedule("multistep", 1.0, 100, 10, milestones=(3, 6))
    assert [steps(step) for step in (0, 29, 30, 59, 60, 100)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01])


def test_one_warmup_step_is_no_warmup():
    one, none = (Schedule("cosine", 0.1, 20, 5, warmup_steps=w) for w in (1, 0))
    assert one(0) == none(0) == 0.1


def test_all_warmup():
    schedule = Schedule("cosine", 1.0, 4, 2, warmup_steps=4)
    assert [schedule(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


@settings(deadline=None)
@given(
    kind=st.sampled_from(["cosine", "constant"]),
    lr=st.floats(1e-6, 1e3),
    total=st.integers(1, 300),
    data=st.data(),
)
def test_rates_rise_then_never_rise_again(kind, lr, total, data):
    warmup = data.draw(st.integers(0, total))
    schedule = Schedule(kind, lr, total, 10, warmup)
    rates = [schedule(step) for step in range(total)]
    assert all(0 < rate <= lr * (1 + 1e-12) for rate in rates)
    assert all(a < b for a, b in zip(rates[:warmup], rates[1:warmup]))
    main = rates[warmup:]
    assert all(a >= b for a, b in zip(main, main[1:]))
    assert not main or main[0] == lr


@pytest.mark.parametrize("step", [-1, 71])
def test_steps_outside_the_training(step):
    with pytest.raises(ValueError, match=f"step {step} is outside 0 to 70"):
        Schedule("constant", 0.1, TOTAL, STEPS)(step)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "cosin"}, "unknown schedule 'cosin': .*, constant; did you mean 'cosine'"),
        ({"kind": "zzz"}, "constant$"),
        ({"lr": 0.0}, "lr must be positive and finite, not 0.0"),
        ({"lr": -0.1}, "not -0.1"),
        ({"lr": math.nan}, "not nan"),
        ({"lr": math.inf}, "not inf"),
        ({"gamma": 0.0}, "gamma must be positive"),
        ({"gamma": math.inf}, "gamma must be positive"),
        ({"total_steps": 0}, "total_steps must be at least 1, not 0"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be at least 1"),
        ({"warmup_steps": -1}, "warm-up of -1 steps"),
        ({"warmup_steps": 71}, "warm-up of 71 steps does not fit into a training of 70 steps"),
        ({"milestones": ()}, "increasing milestones .*not none"),
        ({"milestones": (5, 3)}, "increasing milestones .*not 5, 3"),
        ({"milestones": (5, 5)}, "increasing"),
        ({"milestones": (0, 5)}, "not at epochs 0, 5"),
        ({"milestones": (-1, 5)}, "must lie"),
        ({"milestones": (5, 10)}, r"the end \(70 steps of 7 an epoch\), not at epochs 5, 10"),
        ({"gamma": 1e200, "lr": 1e-300}, r"multiplied by gamma 1e\+200 2 times, .* above 1e\+30"),
        ({"gamma": 1e15, "lr": 10.0}, r"above 1e\+30"),
        ({"milestones": (1, 5), "warmup_steps": 8}, r"after the warm-up \(8 steps\)"),
    ],
)
def test_bad_values(change, message):
    good = dict(kind="multistep", lr=0.1, total_steps=TOTAL, steps_per_epoch=STEPS,
                milestones=(3, 6))
    with pytest.raises(UserError, match=message):
        Schedule(**{**good, **change})


def test_milestones_matter_to_multistep_only():
    assert Schedule("cosine", 0.1, TOTAL, STEPS, milestones=(99, 1))(0) == 0.1
