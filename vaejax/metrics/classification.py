"""How well logits predict binary labels, attribute by attribute, over a whole set of pictures.

All functions take one row for each picture and one column for each attribute, compute in float64,
and return one number for each attribute. Where that is not defined, because no picture has the
attribute or all have it, the number is NaN; `mean_of_known` leaves such attributes out.
"""

import numpy as np
from jaxtyping import Bool, Float, Float64, Num

Logits = Float[np.ndarray, "picture attribute"]
Labels = Num[np.ndarray, "picture attribute"] | Bool[np.ndarray, "picture attribute"]
PerAttribute = Float64[np.ndarray, "attribute"]


def cross_entropy(logits: Logits, labels: Labels) -> PerAttribute:
    """Returns the mean binary cross-entropy in nats; log 2 is that of probabilities of 0.5."""
    values, truth = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    return (np.logaddexp(0.0, values) - truth * values).mean(axis=0)


def accuracy(logits: Logits, labels: Labels) -> PerAttribute:
    """Returns the share of pictures whose label is predicted: that the logit is above 0."""
    return ((logits > 0) == (np.asarray(labels) > 0)).mean(axis=0)


def majority_accuracy(labels: Labels) -> PerAttribute:
    """Returns the accuracy of predicting the more frequent label for every picture."""
    share = (np.asarray(labels) > 0).mean(axis=0)
    return np.maximum(share, 1 - share)


def balanced_accuracy(logits: Logits, labels: Labels) -> PerAttribute:
    """Returns the mean of the accuracies over pictures with and without the attribute."""
    truth, right = np.asarray(labels) > 0, (logits > 0) == (np.asarray(labels) > 0)
    with np.errstate(invalid="ignore"):  # 0 / 0 where there are no such pictures
        having = (right & truth).sum(axis=0) / truth.sum(axis=0)
        lacking = (right & ~truth).sum(axis=0) / (~truth).sum(axis=0)
    return (having + lacking) / 2


def average_precision(logits: Logits, labels: Labels) -> PerAttribute:
    """Returns the average precision: the mean of the precision over the pictures that have it.

    It is Σ (R_n - R_{n-1}) P_n, where P_n and R_n are precision and recall at the n-th highest
    logit (Manning, Raghavan and Schütze, "Introduction to information retrieval", 2008, section
    8.4). Equal logits share one threshold, so the order of the pictures does not matter.
    """
    truth = np.asarray(labels) > 0
    return np.array([_average_precision(*columns) for columns in zip(logits.T, truth.T)])


def _average_precision(scores: Float[np.ndarray, "picture"], truth: np.ndarray) -> float:
    positives = truth.sum()
    if positives in (0, len(truth)):
        return float("nan")
    order = np.argsort(-scores)
    scores, found = scores[order], np.cumsum(truth[order])
    # The last place of each run of equal scores.
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    steps = np.diff(found[last], prepend=0) / positives
    return float(np.sum(steps * found[last] / (last + 1)))


def mean_of_known(values: PerAttribute) -> float:
    """Returns the mean over the attributes whose number is not NaN; NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
