"""Outputs of a net with auxiliary heads, alike for both frameworks."""
from __future__ import annotations


def heads(output) -> tuple:
    """(logits, then those of the auxiliary heads): a net with such heads returns a tuple in
    training mode. Raises TypeError for a list or a dict."""
    if isinstance(output, (list, dict)):
        raise TypeError("a net must return its logits, or a tuple of them and of the auxiliary "
                        f"heads' logits, not a {type(output).__name__}")
    return output if isinstance(output, tuple) else (output,)


def aux_weight(model) -> float:
    """Weight of each auxiliary loss: 0.3 for GoogLeNet (Szegedy et al. 2014, arXiv:1409.4842,
    section 5), 0.4 for Inception v3 (PyTorch's fine-tuning tutorial), 1 for a model that has
    no attribute of this name."""
    return getattr(model, "aux_weight", 1.0)


def mixed(of, labels, mix: float):
    """of(labels); of images that mixup mixed, the mean of it and of that for the labels in reverse order,
    with weights `mix` and 1 - `mix`."""
    return of(labels) if mix == 1 else of(labels) * mix + of(labels.flip(0)) * (1 - mix)


def total_loss(loss, output, aux_weight: float):
    """loss(logits) + aux_weight * (sum of the losses of the auxiliary heads)."""
    main, *auxiliary = map(loss, heads(output))
    for value in auxiliary:
        main = main + value * aux_weight
    return main
