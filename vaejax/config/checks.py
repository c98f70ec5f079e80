"""Checks settings that are each valid but do not go together."""

import dataclasses
import difflib

from vaejax.config import Config, EvalConfig, TrainConfig
from vaejax.config.priors import check_fitted
from vaejax.errors import UserError
from vaejax.files.paths import check_no_address

# The settings that only a VAE has, by section; (): all of the section.
_OF_VAE: dict[str, tuple[str, ...]] = {
    "likelihood": (),
    "prior": (),
    "flow": (),
    "objective": (),
    "finish": (),
    "eval": (
        "importance_samples",
        "metrics",
        "metrics_every",
        "samples",
        "features",
        "weights",
        "best_by",
    ),
}


def check_together(config: Config) -> None:
    """Raises UserError, with key, value and remedy, for the first settings that conflict."""
    _check_source(config.data.source)
    for key in ("path", "manual_dir", "cache_dir"):
        check_no_address(f"config.data.{key}", getattr(config.data, key))
    check_no_address("config.eval.weights", config.eval.weights)
    config.model.check(config.data.image_size)
    if config.is_vae:
        config.prior.check(config.model, config.latent_shape)
        config.likelihood.check(config.model)
        config.flow.check(config.latent_shape)
        _check_features(config.eval)
        _check_finish(config)
        _check_objective(config)
    else:
        _check_without_vae(config)
    _check_loop(config.train)
    if 0 < config.optimizer.guard <= 1:
        raise UserError(
            f"config.optimizer.guard={config.optimizer.guard} would scale down gradients of "
            "typical norm; choose more than 1, such as 5, or 0 for none"
        )


def check_given(config: Config) -> None:
    """Raises UserError for settings that have no effect, or another than they say, or too large.

    Only for settings that a user gives now: runs of version 0.1 may have saved such settings, and
    must still load.
    """
    of_finish = config.finish.prior if config.finish.steps else "model"
    fitted = [*config.prior.fitted, *[of_finish] * (of_finish != "model")]
    check_fitted(fitted, config.latent_shape)
    data = config.data
    if any(amount > 1 and amount % 1 for amount in data.holdout):
        raise UserError(
            f"config.data.holdout={data.holdout} must hold shares below 1 or whole numbers of "
            "pictures"
        )
    if data.source == "synthetic" and data.path:
        raise UserError(
            f"config.data.path={data.path!r} is not read by config.data.source='synthetic'; "
            "set config.data.source to folder, celeba or array, or leave the path out"
        )
    if data.manual_dir and not data.source.startswith("tfds:"):
        raise UserError(
            f"config.data.manual_dir={data.manual_dir!r} is read by config.data.source='tfds:NAME' "
            f"alone, not by {data.source!r}; leave it out"
        )


def _check_finish(config: Config) -> None:
    prior = config.finish.prior
    if config.finish.steps and config.model.has_groups and prior != "model":
        raise UserError(
            f"config.finish.prior={prior!r} is fitted to codes of a flat z, and config.model.name="
            f"{config.model.name} has none; set --config.finish.prior=model"
        )


def _check_features(settings: EvalConfig) -> None:
    if settings.features == "inception" and not settings.weights:
        raise UserError(
            "config.eval.features='inception' needs the network's file; name it with "
            "config.eval.weights"
        )
    if settings.features == "resnet" and settings.weights:
        raise UserError(
            f"config.eval.weights={settings.weights!r} is not read by config.eval.features="
            "'resnet', whose weights come with a package; name vgg or inception"
        )


def _check_objective(config: Config) -> None:
    if config.objective.latent_noise and config.model.has_groups:
        raise UserError(
            f"config.objective.latent_noise={config.objective.latent_noise} is of one array of "
            f"latents, and config.model.name={config.model.name} has groups; leave it out"
        )


def _check_without_vae(config: Config) -> None:
    """Raises UserError for a setting of VAEs that the config of another network changes."""
    default = Config()
    for section, keys in _OF_VAE.items():
        given, usual = (dataclasses.asdict(getattr(one, section)) for one in (config, default))
        for key, value in given.items():
            if (not keys or key in keys) and value != usual.get(key):
                raise UserError(
                    f"config.{section}.{key}={value!r} is of a VAE, and config.model.name="
                    f"{config.model.name} has none; leave it out"
                )


def _check_source(source: str) -> None:
    kind, _, name = source.partition(":")
    known = ("synthetic", "celeba", "folder", "array", "tfds")
    if kind not in known or (kind == "tfds" and name[:1] in ("", ":", "/")):
        near = difflib.get_close_matches(kind, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(
            f"config.data.source={source!r} is not one of synthetic, celeba, folder, array, "
            f"tfds:NAME{hint}"
        )


def _check_loop(train: TrainConfig) -> None:
    if train.batch_size % train.accumulate:
        raise UserError(
            f"config.train.batch_size={train.batch_size} must be a multiple of "
            f"config.train.accumulate={train.accumulate}"
        )
    for key in ("steps", "log_every", "eval_every", "save_every"):
        if getattr(train, key) % train.steps_per_dispatch:
            raise UserError(
                f"config.train.{key}={getattr(train, key)} must be a multiple of "
                f"config.train.steps_per_dispatch={train.steps_per_dispatch}"
            )
