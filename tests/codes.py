"""Synthetic codes that tests fit priors to."""

import numpy as np


def correlated(count, size, seed=0):
    """Returns codes from a Gaussian with full covariance and a mean of 3 in each dimension."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) + 3).astype(np.float32)
