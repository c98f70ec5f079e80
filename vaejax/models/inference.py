"""The outputs that `VAE` and `Ladder` share."""

from typing import Any, NamedTuple

from jaxtyping import Array, Float


class Codes(NamedTuple):
    """The diagonal Gaussian posteriors q(z|x) of a batch.

    Attributes:
      mean: their means.
      log_std: logs of their standard deviations.
    """

    mean: Float[Array, "batch ..."]
    log_std: Float[Array, "batch ..."]


class Inference(NamedTuple):
    """The terms of the ELBO for one sample z ~ q(z|x) of each picture of a batch.

    Attributes:
      kl: KL(q(z|x) || p(z)) in nats, with one column for each factor of the prior; in closed form
        as far as there is one, else estimated at the sample.
      log_ratio: log q(z|x) - log p(z) at the sample, in nats. Its expectation is the total KL.
      pixels: parameters of p(x|z), `Pixels` or `MixturePixels`.
      codes: the posterior of z, a vector or a map; None for a ladder, whose groups depend on one
        another.
    """

    kl: Float[Array, "batch factor"]
    log_ratio: Float[Array, "batch"]
    pixels: Any
    codes: Codes | None
