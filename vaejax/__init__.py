"""Variational autoencoders that generate faces.

Example::

    import vaejax

    model = vaejax.load("runs/celeba")
    faces = model.sample(16)
    codes, spread = model.encode(faces)
"""

from typing import TYPE_CHECKING

from vaejax.version import __version__

__all__ = ["TrainedModel", "__version__", "load"]

if TYPE_CHECKING:
    from vaejax.trained.loading import load
    from vaejax.trained.model import TrainedModel


def __getattr__(name: str) -> object:
    # Imported on demand: `python -m vaejax.main --help` should not wait for Orbax.
    if name == "load":
        from vaejax.runtime.quiet import quiet_libraries

        with quiet_libraries():
            from vaejax.trained.loading import load

        return load
    if name == "TrainedModel":
        from vaejax.trained.model import TrainedModel

        return TrainedModel
    raise AttributeError(f"module 'vaejax' has no attribute {name!r}")
