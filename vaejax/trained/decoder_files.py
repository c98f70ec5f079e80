"""The file of a trained model's finished decoder."""

from pathlib import Path
from typing import NamedTuple

from jaxtyping import PyTree

from vaejax.errors import UserError
from vaejax.files.array_tree import damaged, load_tree, save_tree
from vaejax.records.progress import say
from vaejax.trained.prior_files import Origin

MODEL, FINISHED = "model", "finished"
"""The names of the decoder that was trained with the model, and of the one trained on after it."""

_WHAT, _REMEDY = "finished decoder", "finish it with --config.finish.steps"


def decoder_path(origin: Origin) -> Path:
    """Returns the path of the finished decoder of a run, whether or not it exists."""
    return origin.workdir / "decoders" / f"{FINISHED}.npz"


class FinishedDecoder(NamedTuple):
    """A decoder that was trained on after its model.

    Attributes:
      params: parameters of the modules that decode, by name.
      prior: name of the prior whose samples it has learned to decode: `model`, or a fitted one.
      step: number of updates of the finish.
    """

    params: dict[str, PyTree]
    prior: str
    step: int


def save_decoder(origin: Origin, decoder: FinishedDecoder) -> None:
    """Saves a finished decoder together with the checkpoint whose decoder it was.

    Args:
      origin: the checkpoint.
      decoder: the decoder.

    Raises:
      OSError: the file cannot be written.
    """
    about = {"prior": decoder.prior, "finish_step": decoder.step}
    meta = {"step": origin.step, "model": origin.digest, **about}
    save_tree(decoder_path(origin), decoder.params, meta)


def chosen_decoder(origin: Origin, name: str | None) -> FinishedDecoder | None:
    """Returns the finished decoder of a checkpoint; None for the model's own.

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
        return None
    if not path.exists():
        raise UserError(f"no decoder was finished in {origin.workdir}; {_REMEDY}")
    params, meta = load_tree(path, _WHAT, _REMEDY)
    try:
        of_checkpoint = meta["step"], meta["model"]
        decoder = FinishedDecoder(params, meta["prior"], meta["finish_step"])
    except (KeyError, TypeError) as error:
        raise damaged(path, _WHAT, _REMEDY) from error
    if of_checkpoint == (origin.step, origin.digest):
        return decoder
    line = (
        f"the finished decoder in {origin.workdir} is that of step {meta['step']}, and this is "
        f"step {origin.step}"
    )
    if name == FINISHED:
        raise UserError(f"{line}; name that checkpoint, or the decoder {MODEL}")
    say(f"{line}, whose own decoder draws the pictures")
    return None
