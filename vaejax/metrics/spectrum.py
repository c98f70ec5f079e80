"""Power spectra of pictures: how much detail of which size they show, compared with real ones.

A picture's spectrum says what blur, noise and the marks of JPEG or of upsampling do to it. The mean
removed, a Hann window fades the picture out towards its edges, because the jump from one edge to
the opposite one would spread over all frequencies and hide how little detail there is. Powers are
of each channel's values in 0..1, averaged over channels, so that noise in colours counts in full.

Frequencies are in cycles per picture height, the radial frequency in cycles per pixel times the
height. Bands are half an octave wide, so that coarse and fine structures weigh alike. The last band
reaches to the corners of the spectrum, where checkerboards lie.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Num


class Bands(NamedTuple):
    """The bands of pictures of one size.

    Attributes:
      low: least frequency of each band, in cycles per picture height.
      share: share of all frequencies that lie in the band.
    """

    low: Float[np.ndarray, "band"]
    share: Float[np.ndarray, "band"]


class SpectrumGap(NamedTuple):
    """How the mean spectrum of a set of pictures differs from that of real ones.

    Attributes:
      log_ratio: log10 of the ratio of the powers, by band; negative where detail is missing.
      missing: share of the real pictures' power in fine structures that is missing; negative where
        there is too much.
      distance: root mean square of `log_ratio`; 0 for equal spectra.
    """

    log_ratio: Float[np.ndarray, "... band"]
    missing: Float[np.ndarray, "..."]
    distance: Float[np.ndarray, "..."]


def bands(height: int, width: int) -> Bands:
    """Returns the bands of pictures of `height` × `width` pixels, coarse to fine.

    A band without a frequency, which small pictures have, is part of the one below.

    Raises:
      ValueError: a side is shorter than 4 pixels.
    """
    low, index, multiplicity = _bins(height, width)
    counts = np.bincount(index.ravel(), multiplicity.ravel(), len(low) + 1)[1:]
    return Bands(low, counts / (height * width))


@jax.jit
def band_powers(
    pictures: Num[Array | np.ndarray, "batch height width channel"],
) -> Float[Array, "batch band"]:
    """Computes the power of pictures 0..255 in each of `bands(height, width)`.

    A picture's powers sum up to its variance under the squared window.

    Raises:
      ValueError: a side is shorter than 4 pixels.
    """
    height, width = pictures.shape[1:3]
    low, index, multiplicity = _bins(height, width)
    window = np.outer(_hann(height), _hann(width))[None, :, :, None]
    values = pictures.astype(jnp.float32) / 255
    mean = jnp.sum(values * window, axis=(1, 2), keepdims=True) / window.sum()
    transformed = jnp.fft.rfft2((values - mean) * window, axes=(1, 2))
    power = jnp.mean(jnp.abs(transformed) ** 2, axis=-1)
    power *= (multiplicity / (height * width * np.sum(window**2))).astype(np.float32)[None]
    members = (index[None] == band for band in range(1, len(low) + 1))
    return jnp.stack([jnp.sum(power, axis=(1, 2), where=member) for member in members], axis=-1)


def compare(
    powers: Float[np.ndarray, "*#sets band"],
    real_powers: Float[np.ndarray, "*#sets band"],
    bands: Bands,
    *,
    fine: float = 8.0,
) -> SpectrumGap:
    """Compares mean powers of pictures with those of real pictures of the same size.

    Args:
      powers: mean of `band_powers`; several with leading axes, such as replicates of a bootstrap.
      real_powers: mean of `band_powers` of real pictures.
      bands: the bands of this size.
      fine: structures count as fine from this frequency on, in cycles per picture height. Faces are
        recognised by 8 to 16 cycles per face (Näsänen, Vision Research 1999).

    Raises:
      ValueError: no band is that fine.
    """
    is_fine = bands.low >= fine
    if not is_fine.any():
        raise ValueError(f"no band begins at {fine:g} cycles or above; the last: {bands.low[-1]:g}")
    # Rounding to 8 bits is white noise of this variance. What is below it is not there to compare,
    # and constant pictures have logarithms.
    floor = bands.share / 12 / 255**2
    powers, real_powers = powers + floor, real_powers + floor
    log_ratio = np.log10(powers / real_powers)
    missing = 1 - powers[..., is_fine].sum(axis=-1) / real_powers[..., is_fine].sum(axis=-1)
    return SpectrumGap(log_ratio, missing, np.sqrt(np.mean(log_ratio**2, axis=-1)))


def _hann(side: int) -> Float[np.ndarray, "side"]:
    """Returns the periodic window, without a zero at either edge."""
    return (np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _bins(
    height: int, width: int
) -> tuple[
    Float[np.ndarray, "band"],
    Int32[np.ndarray, "row column"],
    Float[np.ndarray, "row column"],
]:
    """Returns the bands' lowest frequencies and, by bin of `rfft2`, its band and multiplicity.

    Bands count from 1; 0 is the constant. A bin counts twice if it stands for two frequencies.
    """
    if min(height, width) < 4:
        raise ValueError(f"a spectrum needs at least 4×4 pixels, got {height}×{width}")
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    cycles = height * np.hypot(rows, columns)
    # Bin edges lie on whole numbers, where rounding must not decide.
    half_octaves = np.floor(2 * np.log2(np.maximum(cycles, 1e-3)) + 1e-6)
    # The finest whole half octave below the Nyquist frequency takes in all that is finer.
    half_octaves = np.minimum(half_octaves, np.ceil(2 * np.log2(height / 2)) - 1)
    present, index = np.unique(half_octaves, return_inverse=True)
    multiplicity = np.full(cycles.shape, 2.0)
    multiplicity[:, 0] = 1
    if width % 2 == 0:
        multiplicity[:, -1] = 1
    return 2 ** (present[1:] / 2), index.reshape(cycles.shape).astype(np.int32), multiplicity
