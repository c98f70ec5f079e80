"""Faults of generated pictures, imitated on real faces: functions of pictures."""

import io
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageFilter

Pictures = UInt8[np.ndarray, "picture height width channel"]
Fault = Callable[[Pictures], Pictures]


def blurred(sigma: float) -> Fault:
    """Returns a Gaussian blur of standard deviation `sigma` pixels."""
    return _each(lambda picture: picture.filter(ImageFilter.GaussianBlur(sigma)))


def compressed(quality: int) -> Fault:
    """Returns the marks of JPEG at this quality."""

    def decoded(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file).convert(picture.mode)

    return _each(decoded)


def noisy(sigma: float) -> Fault:
    """Returns white noise of standard deviation `sigma` grey levels, the same for each call."""

    def faulty(pictures: Pictures) -> Pictures:
        noise = np.random.RandomState(0).normal(0, sigma, pictures.shape)
        return _rounded(pictures + noise)

    return faulty


def tinted(levels: float) -> Fault:
    """Returns a shift of the first channel (red) up and of the last (blue) down."""

    def faulty(pictures: Pictures) -> Pictures:
        shift = np.linspace(levels, -levels, pictures.shape[-1])
        return _rounded(pictures + shift[None, None, None])

    return faulty


def shifted(pixels: int) -> Fault:
    """Returns a shift to the right; the left edge is repeated."""

    def faulty(pictures: Pictures) -> Pictures:
        columns = np.maximum(np.arange(pictures.shape[2]) - pixels, 0)
        return pictures[:, :, columns]

    return faulty


def repeated(faces: int) -> Fault:
    """Returns the first `faces` pictures over and over."""
    return lambda pictures: pictures[np.arange(len(pictures)) % faces]


def without(having: Bool[np.ndarray, "picture"]) -> Fault:
    """Returns only the pictures without an attribute, which are fewer."""
    return lambda pictures: pictures[~having]


def principal_components(train: Pictures, components: int, *, sampled: bool) -> Fault:
    """Returns pictures of the linear autoencoder with the least squared error.

    A VAE with linear networks and a fixed scale learns the same subspace: Lucas et al., "Don't
    blame the ELBO!" (NeurIPS 2019). It blurs as VAEs trained by squared errors do.

    Args:
      train: pictures that it is fitted to.
      components: size of the code.
      sampled: whether to return samples of a Gaussian fitted to the codes, instead of
        reconstructions.
    """
    flat = train.reshape(len(train), -1).astype(np.float32)
    mean = flat.mean(axis=0)
    _, spread, axes = np.linalg.svd(flat - mean, full_matrices=False)
    axes, spread = axes[:components], spread[:components] / np.sqrt(len(train))

    def faulty(pictures: Pictures) -> Pictures:
        codes = (pictures.reshape(len(pictures), -1) - mean) @ axes.T
        if sampled:
            codes = np.random.RandomState(0).normal(0, spread, codes.shape)
        return _rounded((codes @ axes + mean).reshape(pictures.shape))

    return faulty


def _each(change: Callable[[Image.Image], Image.Image]) -> Fault:
    def faulty(pictures: Pictures) -> Pictures:
        changed = [np.asarray(change(_as_image(picture))) for picture in pictures]
        return np.stack(changed).reshape(pictures.shape)

    return faulty


def _as_image(picture: UInt8[np.ndarray, "height width channel"]) -> Image.Image:
    return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)


def _rounded(values: np.ndarray) -> Pictures:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
