"""The outputs that all model families share."""

from typing import Any, NamedTuple

from jaxtyping import Array, Float


class Codes(NamedTuple):
    """A diagonal Gaussian posterior.

    Attributes:
      mean: mean of q(z|x).
      log_std: log of its standard deviation.
    """

    mean: Float[Array, "batch latent"]
    log_std: Float[Array, "batch latent"]


class Inference(NamedTuple):
    """One sample z ~ q(z|x) for each picture of a batch, and what it tells.

    Attributes:
      kl: KL(q(z|x) || p(z)), nats; one column for each factor of the prior, in closed form as
        far as there is one and at the sample where there is none.
      log_ratio: log q(z|x) - log p(z) at the sample, nats. Its mean is that of the KL.
      pixels: the distribution of the picture's values given z.
      codes: the posterior of a flat z; None of a ladder, whose groups depend on one another.
    """

    kl: Float[Array, "batch factor"]
    log_ratio: Float[Array, "batch"]
    pixels: Any
    codes: Codes | None
