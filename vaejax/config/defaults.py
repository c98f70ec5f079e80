"""The default settings that config files start from."""

import typing

import ml_collections

from vaejax.config.options import settings_of
from vaejax.config.schema import Config


def default_config() -> ml_collections.ConfigDict:
    """Returns the default settings, for a config file to change.

    A section whose `name` chooses a class has the settings of all its classes, so that a flag can
    choose another one. The ConfigDict is neither locked nor type-safe: `settings.resolve` finds the
    same mistakes, and its messages suggest the nearest key.
    """
    sections = {
        name: {key: setting.default for key, setting in settings_of(section).items()}
        for name, section in typing.get_type_hints(Config).items()
    }
    return ml_collections.ConfigDict(sections, type_safe=False)


def ladder_config() -> ml_collections.ConfigDict:
    """Returns the default settings of a ladder, for a config file to change."""
    config = default_config()
    config.model.name = "ladder"
    config.model.patch = 1
    config.likelihood.name = "mixture"
    config.prior.name = "hierarchical"
    config.prior.fitted = ()
    config.finish.prior = "model"
    config.objective.balance = True
    config.objective.warmup_steps = 2_000
    config.optimizer.weight_decay = 0.0
    config.optimizer.warmup_steps = 100
    config.optimizer.final_fraction = 0.1
    # Gradients grow thirtyfold while a mixture learns; a fixed limit would clip most.
    config.optimizer.clip_norm = 0.0
    config.optimizer.guard = 5.0
    config.optimizer.ema_decay = 0.9999
    config.train.batch_size = 32
    config.eval.importance_samples = 16
    return config
