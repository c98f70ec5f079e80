"""Warnings about a training run, such as posterior collapse; each names a remedy."""

import math
from collections.abc import Iterator

from vaejax.config import Config, LocationScaleConfig
from vaejax.likelihoods import MIN_LOG_SCALE

# Bits/dim by which the validation loss may exceed the training loss, or its own best value.
OVERFIT_GAP = 0.25
OVERFIT_RISE = 0.03
# Nats below which a group of a ladder's latents, or a channel of a map, counts as unused.
QUIET = 0.1


class Health:
    """Checks the metrics of a run, and gives each warning once."""

    def __init__(self, config: Config):
        """Starts without any warning given."""
        self._config = config
        self._said: set[str] = set()
        self._best = float("inf")

    def training(self, step: int, values: dict[str, float | list[float]]) -> list[str]:
        """Returns new warnings about the training metrics of a window of updates.

        None are returned before the warm-ups of the KL term and of the learning rate are over.

        Args:
          step: updates so far.
          values: the training metrics.
        """
        warm = step > self._config.objective.warmup_steps + self._config.optimizer.warmup_steps
        last = step >= self._config.train.steps
        figures = {name: value for name, value in values.items() if not isinstance(value, list)}
        lists = {name: value for name, value in values.items() if isinstance(value, list)}
        return self._new(self._training(figures, lists, last)) if warm else []

    def validation(self, train: dict[str, float] | None, valid: dict[str, float]) -> list[str]:
        """Returns new warnings about the metrics of a validation.

        Args:
          train: the newest training metrics; None if there are none.
          valid: the validation metrics.
        """
        self._best = min(self._best, valid["elbo_bits_per_dim"])
        return self._new(self._validation(train, valid))

    def _new(self, complaints: Iterator[tuple[str, str]]) -> list[str]:
        fresh = [(name, text) for name, text in complaints if name not in self._said]
        self._said.update(name for name, _ in fresh)
        return [text for _, text in fresh]

    def _training(
        self, values: dict[str, float], lists: dict[str, list[float]], last: bool
    ) -> Iterator[tuple[str, str]]:
        groups = lists.get("kl_per_group", [])
        quiet = _quiet(groups)
        channels = lists.get("information_per_channel", [])
        dead = _quiet(channels)
        # The units of a map are its channels, and a ladder has no `active_units`.
        shape = self._config.latent_shape
        size = shape[0] if len(shape) == 1 else 0
        active = values.get("active_units", math.inf)
        if values["kl_nats"] < 1.0 or active < 1:
            yield (
                "collapse",
                f"posterior collapse: the codes carry {values['kl_nats']:.2f} nats, so all "
                "pictures come out alike; lower config.objective.beta, warm it up "
                "(config.objective.warmup_steps) or grant config.objective.free_bits",
            )
        elif active < 0.5 * size:
            yield (
                "dead",
                f"dead units: {size - active:.0f} of {size} latents carry nothing; "
                "config.model.latent_size could be smaller, or grant config.objective.free_bits",
            )
        elif dead and last:
            yield (
                "channels",
                f"dead channels: the information is below {QUIET} nats in channel "
                f"{', '.join(map(str, dead))} of {len(channels)}, counted from 0; "
                "config.model.latent could be smaller, or grant config.objective.free_bits",
            )
        # Groups stop and resume being used while the network learns, so only the end counts.
        elif quiet and last:
            yield (
                "quiet",
                f"quiet groups: the KL is below {QUIET} nats in group {', '.join(map(str, quiet))} "
                f"of {len(groups)}, counted from 0 at the top; config.model.blocks could name "
                "fewer, or grant config.objective.free_bits",
            )
        likelihood, effective = self._config.likelihood, values["effective_beta"]
        has_scale = isinstance(likelihood, LocationScaleConfig)
        if likelihood.learns_scale and values["log_std"] < MIN_LOG_SCALE + 1.1:
            remedy = ", or set config.likelihood.scale=fixed" if has_scale else ""
            yield (
                "saturated",
                "saturated scale: the likelihood's scale is at its floor, as for pictures with "
                f"constant pixels; look at the data{remedy}",
            )
        chosen = has_scale and not likelihood.learns_scale
        if chosen and self._config.objective.beta > 0 and not 0.2 <= effective <= 5.0:
            yield (
                "weight",
                f"the KL term weighs {effective:.2g} times what the likelihood's true scale calls "
                "for; set config.likelihood.scale=shared to learn it, or "
                "config.likelihood.fixed_scale nearer to the error",
            )

    def _validation(
        self, train: dict[str, float] | None, valid: dict[str, float]
    ) -> Iterator[tuple[str, str]]:
        reference = valid if train is None else train
        gap = valid["elbo_bits_per_dim"] - reference["elbo_bits_per_dim"]
        rise = valid["elbo_bits_per_dim"] - self._best
        # A model that is still worse than raw pixels cannot have overfitted.
        learned = reference["elbo_bits_per_dim"] < self._config.likelihood.bits
        if learned and (gap > OVERFIT_GAP or (rise > OVERFIT_RISE and gap > 0)):
            yield (
                "overfit",
                f"overfitting: validation costs {gap:.2f} bits/dim more than training and "
                f"{rise:.2f} more than at its best; the best checkpoint is kept, so stop, or use "
                "more pictures, config.data.flip, a smaller model or more "
                "config.optimizer.weight_decay",
            )


def _quiet(nats: list[float]) -> list[int]:
    """The numbers of those below `QUIET`."""
    return [number for number, value in enumerate(nats) if value < QUIET]
