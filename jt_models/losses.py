"""Losses with PyTorch's semantics, in Jittor."""
from __future__ import annotations

import jittor as jt

from .arithmetic import constant


def cross_entropy(logits: jt.Var, target: jt.Var, label_smoothing: float = 0.0) -> jt.Var:
    """Mean cross-entropy of softmax(logits), as torch.nn.functional.cross_entropy.

    Jittor's own has no label smoothing.

    Args:
        logits: float [N, C].
        target: int [N], each in [0, C). Not checked here: reading it would synchronise the device
            at each step. `training.data` checks the labels of a data set once, when it is loaded.
        label_smoothing: weight in [0, 1) of the uniform distribution in the target (Szegedy et
            al. 2015, arXiv:1512.00567, section 7).

    Returns:
        float [1], in the dtype of the logits.

    Raises:
        ValueError: shapes that do not fit, or a smoothing outside [0, 1).
    """
    if logits.ndim != 2 or target.ndim != 1 or target.shape[0] != logits.shape[0]:
        raise ValueError(f"logits [N, C] and target [N] are needed, not {list(logits.shape)} "
                         f"and {list(target.shape)}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1), not {label_smoothing}")
    n, classes = logits.shape
    shifted = logits - logits.max(1, keepdims=True).stop_grad()
    log_p = shifted - jt.log(jt.exp(shifted).sum(1, keepdims=True))
    one_hot = (target.broadcast([n, classes], [1]) == jt.index([n, classes], 1)).cast(logits.dtype)
    loss = -(log_p * one_hot).sum() / n
    if label_smoothing == 0:
        return loss
    uniform = -log_p.sum() / (n * classes)
    return loss * constant(1 - label_smoothing, logits) + uniform * constant(label_smoothing, logits)
