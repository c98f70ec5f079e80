"""Metrics of pictures: functions of arrays, whose docstrings define the metrics in full."""

from vaejax.metrics.frechet import frechet_distance, thumbnail_features
from vaejax.metrics.image import psnr, ssim

__all__ = ["frechet_distance", "psnr", "ssim", "thumbnail_features"]
