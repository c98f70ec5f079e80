"""Tables of factors of variation, and codes that mix them, for tests without pictures."""

import numpy as np

KINDS = {
    "pose": "continuous",
    "style": "categorical",
    "light": "continuous",
    "smiles": "categorical",
}


def factors_of(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack(
        [
            rng.uniform(-30, 30, count),
            rng.integers(0, 3, count) * 2.0,
            rng.uniform(0, 1, count) ** 2,
            rng.integers(0, 2, count),
        ],
        axis=1,
    )


def standardised(values):
    return (values - values.mean(axis=0)) / values.std(axis=0)


def mixed_codes(factors, seed=0):
    """Returns five codes: two factors, each with noise, a mixture of all, noise, and a constant."""
    rng = np.random.default_rng(seed)
    values = standardised(factors)
    mixed = values @ rng.normal(size=(values.shape[1], 1))
    noise = rng.normal(size=(len(values), 1))
    codes = [values[:, :2] + 0.2 * noise, mixed, noise, 0 * noise]
    return np.concatenate(codes, axis=1).astype(np.float32)
