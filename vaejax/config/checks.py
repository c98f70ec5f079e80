"""Checks settings that are each valid and yet do not go together."""

import difflib

from vaejax.config import Config, LadderConfig, TrainConfig
from vaejax.errors import UserError
from vaejax.files.paths import check_no_address


def check_together(config: Config) -> None:
    """Raises UserError for the first that do not: one line with key, value and remedy."""
    _check_source(config.data.source)
    for key in ("path", "manual_dir", "cache_dir"):
        check_no_address(f"config.data.{key}", getattr(config.data, key))
    _check_levels(config)
    if config.model.has_groups:
        _check_ladder(config)
    else:
        _check_no_ladder(config.ladder)
    _check_likelihood(config)
    _check_loop(config.train)
    if 0 < config.optimizer.guard <= 1:
        raise UserError(
            f"config.optimizer.guard={config.optimizer.guard} would let gradients of usual length "
            "fade; choose more than 1, such as 5, or 0 for none"
        )


def check_read(config: Config) -> None:
    """Raises UserError if a place is named that the source of the data does not read.

    Of what a user gives now; runs of version 0.1 may have such settings, and load.
    """
    data = config.data
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


def _check_levels(config: Config) -> None:
    model = config.model
    if len(model.widths) != len(model.blocks):
        raise UserError(
            f"config.model.blocks={model.blocks} must have one number for each of "
            f"config.model.widths={model.widths}"
        )
    if not model.widths:
        raise UserError("config.model.widths=() must name at least one level, such as (64, 128)")
    shrink = model.patch * 2 ** (len(model.widths) - 1)
    if min(config.data.image_size) < shrink:
        raise UserError(
            f"config.model.widths={model.widths} with config.model.patch={model.patch} divides "
            f"the side by {shrink}, more than config.data.image_size={config.data.image_size} has; "
            "name fewer widths"
        )


def _check_ladder(config: Config) -> None:
    model, hidden = config.model, config.ladder.hidden
    if config.prior.fitted:
        raise UserError(
            f"config.prior.fitted={config.prior.fitted} names priors of a flat z, and "
            "config.model.name=ladder has none; begin with a config file of a ladder, such as "
            "configs/celeba_ladder.py, which sets all that one needs"
        )
    if hidden and len(hidden) != len(model.widths):
        raise UserError(
            f"config.ladder.hidden={hidden} must have one number for each of "
            f"config.model.widths={model.widths}, or none at all"
        )
    if not model.blocks[-1]:
        raise UserError(
            f"config.model.blocks={model.blocks} leaves a ladder's top, the last level, without "
            "latents; name a number from 1 on there, or fewer levels"
        )
    for key in ("model.latent_size", "prior.name", "prior.layers", "prior.width"):
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        if value != getattr(getattr(Config(), section), name):
            raise UserError(
                f"config.{key}={value!r} is of a flat z, and config.model.name=ladder has none; "
                "leave it out"
            )
    if config.likelihood.name != "mixture" and config.likelihood.scale == "position":
        raise UserError(
            "config.likelihood.scale='position' would tie a ladder to pictures of one size; "
            "name predicted, or shared"
        )


def _check_no_ladder(ladder: LadderConfig) -> None:
    for key, value in vars(ladder).items():
        if value != getattr(LadderConfig(), key):
            raise UserError(
                f"config.ladder.{key}={value!r} has no meaning for config.model.name=conv; leave "
                "it out, or begin with a config file of a ladder, such as configs/celeba_ladder.py"
            )


def _check_likelihood(config: Config) -> None:
    likelihood = config.likelihood
    if likelihood.bits != 8 and likelihood.name not in ("logistic", "mixture"):
        raise UserError(
            f"config.likelihood.bits={likelihood.bits} is not known to "
            f"config.likelihood.name={likelihood.name!r}; name logistic or mixture"
        )
    if likelihood.name == "bernoulli" and likelihood.scale != "fixed":
        raise UserError(
            f"config.likelihood.scale={likelihood.scale!r} has no meaning for bernoulli, "
            "which has no scale; set config.likelihood.scale=fixed"
        )
    if likelihood.name == "mixture" and likelihood.scale == "fixed":
        raise UserError(
            "config.likelihood.scale='fixed' has no meaning for a mixture, whose components learn "
            "their scales; leave it out, or name config.likelihood.name=logistic"
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
