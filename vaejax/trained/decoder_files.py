"""The file of a trained model's finished decoder."""

from pathlib import Path

from jaxtyping import PyTree

from vaejax.errors import UserError
from vaejax.files.array_tree import load_tree, save_tree
from vaejax.trained.prior_files import Origin

MODEL, FINISHED = "model", "finished"
"""The names of the decoder that was trained with the model, and of the one trained on after it."""

_WHAT, _REMEDY = "finished decoder", "finish it with --config.finish.steps"


def decoder_path(origin: Origin) -> Path:
    """Returns the path of the finished decoder of a run, whether or not it exists."""
    return origin.workdir / "decoders" / f"{FINISHED}.npz"


def save_decoder(origin: Origin, params: PyTree, step: int) -> None:
    """Saves a finished decoder together with the checkpoint whose decoder it was.

    Args:
      origin: the checkpoint.
      params: parameters of the modules that decode, by name.
      step: number of updates of the finish.

    Raises:
      OSError: the file cannot be written.
    """
    meta = {"step": origin.step, "model": origin.digest, "finish_step": step}
    save_tree(decoder_path(origin), params, meta)


def load_decoder(origin: Origin) -> PyTree:
    """Loads the finished decoder of a checkpoint.

    Raises:
      UserError: no decoder was finished, it is that of another checkpoint, or its file is damaged.
    """
    path = decoder_path(origin)
    if not path.exists():
        raise UserError(f"no decoder was finished in {origin.workdir}; {_REMEDY}")
    params, meta = load_tree(path, _WHAT, _REMEDY)
    if (meta.get("step"), meta.get("model")) != (origin.step, origin.digest):
        raise UserError(
            f"the finished decoder in {origin.workdir} is that of step {meta.get('step')}, and "
            f"this is step {origin.step}; name that checkpoint, or the decoder {MODEL!r}"
        )
    return params
