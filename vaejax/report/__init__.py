"""The HTML report of an evaluation: one file that needs no network and runs no script."""

from vaejax.report.page import render

__all__ = ["render"]
