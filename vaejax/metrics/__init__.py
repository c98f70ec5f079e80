"""Numbers about pictures. Each is a function of arrays and says in full what it measures."""

from vaejax.metrics.frechet import frechet_distance, thumbnail_features
from vaejax.metrics.image import psnr, ssim

__all__ = ["frechet_distance", "psnr", "ssim", "thumbnail_features"]
