"""Makes figures, curves and evaluations for the tests of the report, and parses its pages."""

import math
import xml.etree.ElementTree as ET

import numpy as np


def some_figure(name="fid", **changes):
    return {
        "name": name,
        "group": "Samples against held-out faces",
        "label": "Fréchet distance",
        "value": 0.51234,
        "spread": 0.0119,
        "floor": 0.25,
        "floor_spread": 0.01,
        "count": 2500,
        "reference_count": 2000,
        "unit": "",
        "better": "lower",
        "protocol": "features of a network; k = 5",
    } | changes


def some_rows(lines, **more):
    return {"x": ["a", "b", "c"], "x_label": "kind", "y_label": "bits", "lines": lines} | more


def some_evaluation():
    rng = np.random.default_rng(0)
    figures = [
        some_figure(
            f"figure_{i}",
            group=f"group {i % 4}",
            value=float(rng.normal() * 10.0 ** rng.integers(-6, 6)),
        )
        for i in range(40)
    ]
    bins = list(range(1, 33))
    return {
        "protocol": {"run": "ladder", "split": "valid", "checkpoint_step": 100_000, "beta": 0.5},
        "figures": figures,
        "results": {one["name"]: one["value"] for one in figures} | {"gradient_norm": 0.125},
        "findings": ["Blurred: 40% of the energy above 8 cycles per face is missing."],
        "curves": {
            "spectrum": {
                "x": bins,
                "x_label": "cycles per picture",
                "y_label": "log10 power",
                "lines": {
                    "real faces": [-2 * math.log10(x) for x in bins],
                    "samples": [-2.5 * math.log10(x) for x in bins],
                },
            },
            "kl_by_group": some_rows({"KL": [0.1, 0.4, 0.2]}),
            "slices": some_rows(
                {"real faces": [0.1, None, 0.2], "samples": [0.2, 0.3, 0.4]},
                spreads={"samples": [0.01, 0.02, None]},
            ),
        },
        "captions": {"Samples": "Seed 0."},
    }


def parsed_page(page):
    """Parses the page as XML, which finds each tag that is not closed."""
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>"))


def text_of(node):
    return "".join(node.itertext())
