"""The learning rate of every step: one rule for both trainers.

The schedulers of the two frameworks differ (Jittor's are one epoch late), so neither is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import UserError, did_you_mean

KINDS = ("cosine", "multistep", "constant")
# Far above any that trains, and below what float32 holds.
LARGEST = 1e30


@dataclass(frozen=True)
class Schedule:
    """Learning rate as a function of the step, counted from 0 over the whole training.

    kind: "cosine" falls from `lr` to 0 over the steps after the warm-up, as
        CosineAnnealingLR(T_max=total_steps - warmup_steps); "multistep" multiplies by `gamma`
        at the start of each milestone epoch, as MultiStepLR; "constant" stays at `lr`.
    lr: the peak. total_steps, steps_per_epoch: of the training.
    warmup_steps: the rate first rises linearly: lr/warmup_steps, 2*lr/warmup_steps, ..., lr.
    milestones, gamma: for "multistep" only; epochs counted from 0, warm-up included.

    Raises UserError for an unknown kind, an lr or gamma that is not positive and finite, a rate
    that becomes larger than LARGEST, a warm-up longer than the training, and milestones that do
    not increase or do not lie after the warm-up and before the end.
    """

    kind: str
    lr: float
    total_steps: int
    steps_per_epoch: int
    warmup_steps: int = 0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"unknown schedule {self.kind!r}: use {', '.join(KINDS)}"
                            + did_you_mean(self.kind, KINDS))
        for name in ("lr", "gamma"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"{name} must be positive and finite, not {value}")
        for name in ("total_steps", "steps_per_epoch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.warmup_steps <= self.total_steps:
            raise UserError(
                f"a warm-up of {self.warmup_steps} steps does not fit into a training of "
                f"{self.total_steps} steps"
            )
        if self.kind == "multistep":
            self._check_milestones()

    def _check_milestones(self) -> None:
        shown = ", ".join(map(str, self.milestones)) or "none"
        if not self.milestones or list(self.milestones) != sorted(set(self.milestones)):
            raise UserError(f"multistep needs increasing milestones (epochs), not {shown}")
        first, last = (epoch * self.steps_per_epoch for epoch in
                       (self.milestones[0], self.milestones[-1]))
        if first <= 0 or first < self.warmup_steps or last >= self.total_steps:
            raise UserError(
                f"milestones must lie after the warm-up ({self.warmup_steps} steps) and before "
                f"the end ({self.total_steps} steps of {self.steps_per_epoch} an epoch), "
                f"not at epochs {shown}"
            )
        growth = len(self.milestones) * math.log(self.gamma)
        if max(growth, growth + math.log(self.lr)) > math.log(LARGEST):
            raise UserError(
                f"lr {self.lr} is multiplied by gamma {self.gamma} {len(self.milestones)} times, "
                f"which is above {LARGEST:g}"
            )

    def __call__(self, step: int) -> float:
        """The rate of `step`, 0 to total_steps; total_steps is the state after the last step.

        Raises ValueError for a step outside.
        """
        if not 0 <= step <= self.total_steps:
            raise ValueError(f"step {step} is outside 0 to {self.total_steps}")
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        if self.kind == "cosine":
            length = max(1, self.total_steps - self.warmup_steps)  # 0 if all is warm-up
            done = (step - self.warmup_steps) / length
            return self.lr * (1 + math.cos(math.pi * done)) / 2
        if self.kind == "multistep":
            passed = sum(epoch * self.steps_per_epoch <= step for epoch in self.milestones)
            return self.lr * self.gamma**passed
        return self.lr
