"""Scores against scikit-learn's and PyTorch's."""
import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

from training.evaluation import Scores, score


def test_scores_are_scikit_learns_and_torchs():
    rng = np.random.default_rng(0)
    logits = (5 * rng.standard_normal((50, 7))).astype("float32")
    labels = rng.integers(0, 7, 50).astype("int32")
    found = score([(logits[:20], labels[:20]), (logits[20:], labels[20:])], 7)
    right = torch.nn.functional.cross_entropy(torch.tensor(logits).double(), torch.tensor(labels).long())
    assert found.loss == pytest.approx(float(right), rel=1e-12)
    assert np.array_equal(found.confusion, confusion_matrix(labels, logits.argmax(1), labels=range(7)))
    assert found.accuracy == pytest.approx((logits.argmax(1) == labels).mean())
    assert found.top5 == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=range(7)))
    assert found.images == 50


@pytest.mark.filterwarnings("error")
def test_large_equal_and_broken_outputs():
    assert score([(np.array([[1e4, 0.0]]), np.array([1]))], 2).loss == 1e4
    equal = score([(np.zeros((7, 7)), np.arange(7))], 7)
    assert (equal.accuracy, equal.top5) == (1 / 7, 5 / 7)
    for broken in (np.nan, np.inf):
        assert np.isnan(score([(np.array([[broken, 0.0]]), np.array([1]))], 2).loss)
    assert score([(np.zeros((3, 2)), np.array([0, 1, 1]))], 2).top5 == 1


def test_classes():
    scores = Scores(0.0, 0.75, 1.0, np.array([[3, 1], [0, 0]]))
    assert scores.by_class(("a, b", "c")) == {"a, b": 0.75, "c": None}
    assert scores.table(("a, b", "c")) == 'class,"a, b",c\n"a, b",3,1\nc,0,0\n'
