"""Lets torchvision be imported beside a torch without CUDA, for the reference networks of tests.

torchvision's wheels on PyPI link to CUDA. Beside a CPU build of torch their operators do not load,
and the import fails where it describes two of them. The networks use neither.
"""

import importlib.metadata
import importlib.util

import pytest


def skip_without_torchvision() -> None:
    """Skips the test where torchvision is not installed; otherwise, it can be imported."""
    torch = pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    if torch.version.cuda is None and "+cpu" not in importlib.metadata.version("torchvision"):
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                arguments = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{name}", arguments)
