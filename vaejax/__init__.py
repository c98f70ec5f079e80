"""Variational autoencoders that generate faces.

import vaejax
model = vaejax.load("runs/celeba")
faces = model.sample(16)
codes, spread = model.encode(faces)
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["load"]

if TYPE_CHECKING:
    from vaejax.loading import load


def __getattr__(name: str) -> object:
    # Loaded on demand: `python -m vaejax.main --help` should not wait for Orbax.
    if name == "load":
        from vaejax.loading import load

        return load
    raise AttributeError(f"module 'vaejax' has no attribute {name!r}")
