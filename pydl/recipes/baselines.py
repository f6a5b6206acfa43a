"""What classical learners make of the same images: the named baselines that a network has to beat.

Each learns from the pixels of a split's training images and returns the part of the held-out ones
that it classifies right, in 0 ... 1. Both are scikit-learn's; without it they raise
:class:`pydl.data.MissingExtraError`.
"""

from collections.abc import Callable
from typing import Any

from pydl.data import Split
from pydl.data.extras import require


def nearest_neighbour(split: Split) -> float:
    """Each held-out image gets the label of the training image that is nearest to it, by the sum of
    squared differences of their pixels."""
    require("sklearn")
    from sklearn.neighbors import KNeighborsClassifier

    return _accuracy(KNeighborsClassifier(1), split)


def logistic_regression(split: Split) -> float:
    """Multinomial logistic regression with scikit-learn's usual L2 penalty: a linear score of the
    pixels for each class."""
    require("sklearn")
    from sklearn.linear_model import LogisticRegression

    return _accuracy(LogisticRegression(max_iter=1000), split)


# By name, from the weakest on digits to the strongest.
BASELINES: dict[str, Callable[[Split], float]] = {
    "logistic regression": logistic_regression,
    "nearest neighbour": nearest_neighbour,
}


def _accuracy(learner: Any, split: Split) -> float:
    images, labels = split.train.tensors
    learner.fit(images.flatten(1).numpy(), labels.numpy())
    images, labels = split.held_out.tensors
    return float(learner.score(images.flatten(1).numpy(), labels.numpy()))
