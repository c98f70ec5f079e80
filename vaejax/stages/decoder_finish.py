"""The finish's stage: a run of its own that trains the decoder of a trained model on."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vaejax.config import Config, EvalConfig, FinishConfig
from vaejax.data import Dataset
from vaejax.errors import UserError
from vaejax.features.resnet import INSTALL, load_resnet
from vaejax.records.progress import say
from vaejax.runtime.processes import ALONE, Group
from vaejax.stages.configs import finish_config
from vaejax.stages.fitting import fit, is_fitted
from vaejax.stages.flow_prior import NAME
from vaejax.stages.sequence import Stage
from vaejax.tasks.finish import DECODER, FinishTask
from vaejax.tasks.finish.metrics import RANKING
from vaejax.trained.decoder_files import FinishedDecoder, decoder_path, save_decoder
from vaejax.trained.loading import restored
from vaejax.trained.model import TrainedModel
from vaejax.trained.prior_files import OWN_PRIOR

# Samples that each validation compares with held-out faces.
_SAMPLES = 1_000
# Different codes of a prior that a finish sees; more are not sampled, because one code of a flow
# costs eighty evaluations of its network.
_MOST_CODES = 20_000


def finish_stage(trained: TrainedModel, dataset: Dataset, group: Group = ALONE) -> Stage:
    """Builds the stage that trains the decoder on, for `config.finish.steps` updates.

    When it is finished, the decoder of its best checkpoint is saved as the finished decoder of
    `trained`. That may be the decoder with which it began.

    Args:
      trained: the model, on every process.
      dataset: the data set that `trained` was trained on.
      group: the processes that train together.

    Raises:
      UserError: the codes are too few for the prior, or not finite.
    """
    directory = trained.workdir / "stages" / f"finish_{trained.step:08d}"
    config = finish_config(trained.config)
    config = dataclasses.replace(config, eval=_eval(config, dataset))
    builds_on = {"step": trained.step, "digest": trained.digest, **_fixed(config.finish)}
    samples = _samples(trained, dataset, group)
    task = FinishTask(config, trained.params, samples, builds_on)
    return Stage(config, directory, task, lambda: _keep_best(trained, task, directory))


def _fixed(settings: FinishConfig) -> dict[str, Any]:
    """Returns the settings with which a finish that was stopped must be resumed."""
    values = dataclasses.asdict(settings)
    free = ("steps", "validations")
    # Lists, as JSON returns them from a checkpoint.
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if name not in free
    }


def _samples(
    trained: TrainedModel, dataset: Dataset, group: Group
) -> Float[np.ndarray, "picture latent"] | None:
    """Samples the prior of the finish, as many codes as there are training pictures.

    Beyond `_MOST_CODES` they repeat. Each update samples the model's own prior anew: for that,
    nothing is returned.
    """
    name = trained.config.finish.prior
    if name == OWN_PRIOR:
        return None
    # The flow, which is trained by all processes, has a stage of its own before this one.
    if name != NAME:
        with group.together():  # waits for process 0
            if group.index == 0 and not is_fitted(trained, name):
                fit(trained, [name], dataset)
    count = len(dataset.splits["train"].images)
    # One array, because no prior is fitted to a ladder, whose latents are several.
    codes = np.asarray(trained.sample_codes(min(count, _MOST_CODES), prior=name))
    return np.resize(codes, (count, codes.shape[1]))


def _eval(config: Config, dataset: Dataset) -> EvalConfig:
    """The settings of validations: the metrics of samples that can be measured here."""
    held_out = dataset.splits.get("valid")
    metrics = ("thumbnails", "spectrum") if held_out else ()
    is_ranked = held_out is not None and _has_network()
    return dataclasses.replace(
        config.eval,
        metrics=(*metrics, "frechet") if is_ranked else metrics,
        metrics_every=1,
        samples=min(_SAMPLES, len(dataset.splits["train"].images)),
        features="resnet",
        weights="",
        best_by=RANKING.metric if is_ranked else config.eval.best_by,
    )


def _has_network() -> bool:
    """Whether the network is installed whose features rank the checkpoints of a finish."""
    try:
        load_resnet()
    except UserError:
        return False
    return True


def _keep_best(trained: TrainedModel, task: FinishTask, directory: Path) -> None:
    """Saves the averaged decoder of the stage's best checkpoint, or the last if none is ranked."""
    is_ranked = task.best_by == RANKING
    found = restored(directory, task, "best" if is_ranked else "latest")
    at, prior = found.step, trained.config.finish.prior
    save_decoder(trained.origin, FinishedDecoder(found.params[DECODER], prior, at))
    if not is_ranked:
        say(
            "the last decoder is kept: the best one is found by features of held-out faces, for "
            f"which there must be such faces, and a package: {INSTALL}"
        )
    elif at == 0:
        say("the finish has made samples no better; the decoder stays as it was")
    say(f"finished decoder of step {at}: {decoder_path(trained.origin)}")
