"""Skips tests that need an optional distribution, and only where it is not installed."""

from importlib import metadata

import pytest


def skip_without(distribution: str) -> None:
    """Skips the test or module if pip knows no such distribution; a damaged one fails the test."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        pytest.skip(f"the package {distribution} is not installed", allow_module_level=True)
