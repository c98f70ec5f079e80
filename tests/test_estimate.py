"""The figures of a step's estimate are those of a roofline with the chip's rates."""

import pytest

from vaejax.cost.compiled_step import Estimate
from vaejax.cost.hlo import Collective
from vaejax.cost.traffic import Traffic
from vaejax.runtime.chips import Chip

CHIP = Chip("chip", flops=1e12, memory=2**34, bandwidth=1e9, links=1e8, network=1e7)
# Two updates of 16 pictures on four devices, each of which reads and writes 6 MB of HBM.
ESTIMATE = Estimate(
    chip=CHIP, devices=4, fsdp=2, pictures=32, updates=2, parameters=1234567,
    flops=8 * 10**9, memory=2**32, traffic=Traffic(hbm=6 * 10**6, near=4 * 10**6),
    collectives=[Collective("all-reduce", 8 * 10**6, 4), Collective("send", 10**6, 2)],
    host_transfers=[], doubles=False, compile_seconds=1.5,
)  # fmt: skip


def test_figures_are_those_of_a_roofline():
    # An all-reduce of n devices sends 2 (n - 1) / n of its result over the links.
    seconds = {"arithmetic": 2e-3, "memory": 6e-3, "links": 0.12, "network": 0.1}
    assert ESTIMATE.bounds() == pytest.approx(seconds)
    assert ESTIMATE.seconds() == pytest.approx(6e-3 + 0.12 + 0.1)
    figures = ESTIMATE.figures()
    expected = {
        "batch/chip": 4, "MFLOP/image": 250.0, "peak GiB/chip": 4.0, "of memory %": 25.0,
        "HBM MB/image": 0.75, "near MB/image": 0.5, "exchanged MB": 9.0,
        "ms at least": 113.0, "images/s at most": 32 / 0.226, "of peak %": 100 * 2e-3 / 0.226,
        "compile s": 1.5,
    }  # fmt: skip
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    words = {"chip": "chip", "parameters": "1,234,567", "bound by": "links",
             "exchanged": "1 all-reduce, 1 send"}  # fmt: skip
    assert {name: figures[name] for name in words} == words


def test_an_unknown_chip_has_counts_but_no_rates():
    figures = ESTIMATE._replace(chip=None, collectives=[]).figures()
    assert figures["MFLOP/image"] == 250.0 and figures["exchanged"] == "nothing"
    for name in ("chip", "of memory %", "ms at least", "bound by", "images/s at most", "of peak %"):
        assert figures[name] is None
