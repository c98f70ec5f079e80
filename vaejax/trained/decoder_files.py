"""The file of a trained model's finished decoder."""

from pathlib import Path

from jaxtyping import PyTree

from vaejax.errors import UserError
from vaejax.files.array_tree import load_tree, save_tree
from vaejax.records.progress import say
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


def chosen_decoder(origin: Origin, name: str | None) -> dict[str, PyTree]:
    """Returns the parameters of a checkpoint's finished decoder by module; empty for its own.

    Args:
      origin: the checkpoint.
      name: `finished` or `model`; None for the finished decoder if this checkpoint has one.

    Raises:
      UserError: the name is unknown; or the finished decoder is asked for and there is none, or it
        is that of another checkpoint; or its file is damaged.
    """
    if name not in (None, MODEL, FINISHED):
        raise UserError(f"decoder {name!r} is none of {MODEL}, {FINISHED}; name one of them")
    path = decoder_path(origin)
    if name == MODEL or (name is None and not path.exists()):
        return {}
    if not path.exists():
        raise UserError(f"no decoder was finished in {origin.workdir}; {_REMEDY}")
    params, meta = load_tree(path, _WHAT, _REMEDY)
    if (meta.get("step"), meta.get("model")) == (origin.step, origin.digest):
        return params
    line = (
        f"the finished decoder in {origin.workdir} is that of step {meta.get('step')}, and this is "
        f"step {origin.step}"
    )
    if name == FINISHED:
        raise UserError(f"{line}; name that checkpoint, or the decoder {MODEL}")
    say(f"{line}, whose own decoder draws the pictures")
    return {}
