"""The metrics of the finish, from sums over pictures, and the warnings that they give reason to."""

import numpy as np
from jaxtyping import Array, Float

from vaejax.records.ranking import Ranking
from vaejax.tasks.finish.losses import DecoderSums, DiscriminatorSums

# Decoders rank by the Fréchet distance of samples times the distance of their power spectrum, which
# is 0.02 between two sets of 2,000 real faces. By the former alone, which hardly depends on fine
# texture, a decoder that is still blurred equals a later one that is not.
RANKING = Ranking("frechet_resnet_samples", factor="spectrum_distance_samples", least_factor=0.02)
# The discriminator has won if it is right about this share of all pictures.
WON = 0.98
# Samples have lost variety if their thumbnails vary less than this share of what real ones do.
VARIED = 0.5
# Updates before the first warning.
_FIRST = 100
# Grey levels by which the mean colour of samples may differ from that of real pictures.
DRIFT = 10.0


def summarize(decoder: DecoderSums, judge: DiscriminatorSums) -> dict[str, float]:
    """Computes the metrics of a window of updates.

    Returns:
      `pixel_error`, the mean absolute error of reconstructions in grey levels; `feature_distance`;
      `adversarial_loss` and `discriminator_loss` in nats; the shares of real pictures, of
      reconstructions and of samples about which the discriminator is right; `variety`, the
      variance of samples' thumbnails as a share of that of real pictures'; and `colour_drift`, the
      largest difference of a channel's mean between samples and real pictures, in grey levels.
    """
    count, judged = float(decoder.pictures), float(judge.pictures)
    real, sampled = (np.asarray(some) / count for some in (decoder.real, decoder.sampled))
    spread = _variance(decoder.real_squared, real, count)
    # Grey pictures have one channel; 8x8 thumbnails are flattened with the channels last.
    drift = (sampled - real).reshape(64, -1).mean(axis=0)
    return {
        "pixel_error": float(decoder.pixels) / count,
        "feature_distance": float(decoder.features) / count,
        "adversarial_loss": float(decoder.adversarial) / count,
        "discriminator_loss": float(judge.loss) / judged,
        "right_of_real": float(judge.right_of_real) / judged,
        "right_of_reconstructions": float(judge.right_of_reconstructions) / judged,
        "right_of_samples": float(judge.right_of_samples) / judged,
        "variety": _variance(decoder.sampled_squared, sampled, count) / max(spread, 1e-9),
        "colour_drift": float(255 * np.abs(drift).max()),
    }


def _variance(
    squared: Float[Array | np.ndarray, "value"], mean: Float[np.ndarray, "value"], count: float
) -> float:
    """Returns the variance of thumbnails, averaged over their values."""
    return float(np.mean(np.maximum(np.asarray(squared) / count - mean**2, 0.0)))


class Health:
    """Warns once of each trouble of adversarial training."""

    def __init__(self) -> None:
        """Starts without any warning given."""
        self._said: set[str] = set()

    def training(self, step: int, values: dict[str, float]) -> list[str]:
        """Returns new warnings about the training metrics of a window of updates.

        None are returned at first: a new discriminator begins with any opinion.
        """
        if step < _FIRST:
            return []
        found = {}
        right = min(
            values[name]
            for name in ("right_of_real", "right_of_reconstructions", "right_of_samples")
        )
        if right > WON:
            found["won"] = (
                f"the discriminator wins: it is right about {right:.0%} of all pictures, so the "
                "decoder learns little from it; lower config.finish.discriminator_rate, raise "
                "config.finish.penalty, or use more pictures"
            )
        if values["variety"] < VARIED:
            found["variety"] = (
                f"mode loss: samples vary {values['variety']:.0%} as much as real pictures; lower "
                "config.finish.adversarial or config.finish.decoder_rate"
            )
        if values["colour_drift"] > DRIFT:
            found["drift"] = (
                f"colour drift: the mean colour of samples is {values['colour_drift']:.0f} grey "
                "levels off that of real pictures; lower config.finish.decoder_rate"
            )
        fresh = [text for name, text in found.items() if name not in self._said]
        self._said |= set(found)
        return fresh

    def validation(self, train: dict[str, float] | None, valid: dict[str, float]) -> list[str]:
        """Returns no warnings: the stage itself says whether it has made samples better."""
        return []
