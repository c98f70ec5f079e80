"""Extractors map pictures to rows of numbers that metrics compare; distances compare pairs."""

from vaejax.features.extractor import Distance, Extractor

__all__ = ["Distance", "Extractor"]
