"""Codes to fit priors to."""

import numpy as np


def correlated(count, size, seed=0):
    """Codes of a Gaussian with a full covariance, far from the origin."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) + 3).astype(np.float32)
