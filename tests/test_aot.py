"""`vaejax.aot` estimates the cost of a step on any devices; the step keeps to its budgets."""

import importlib.util
import json
import re

import budgets
import jax
import pytest
from commands import assert_one_line, command
from jax.experimental.compilation_cache import compilation_cache
from tiny import CONFIG_FILE, least

from vaejax.cost.compiled_step import estimate
from vaejax.errors import DoesNotFit, UserError
from vaejax.runtime.chips import CHIPS, chip_of, topology_devices

pytestmark = pytest.mark.slow

CONFIG = f"--config={CONFIG_FILE}:least"
SMALL = (CONFIG, "--config.model.widths=(8,)", "--config.model.blocks=(0,)")
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler: pip install -e '.[tpu]'"
)


@pytest.fixture(autouse=True)
def no_program_cache():
    """Turns JAX's compilation cache off.

    JAX would keep a program for devices that are not present, but could not read it again.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


@needs_compiler
@pytest.mark.parametrize(("topology", "fsdp"), budgets.PLACES)
def test_the_step_keeps_to_its_budget(topology, fsdp):
    cost = budgets.step_cost(topology, fsdp)
    found = budgets.summary(cost)
    recorded = budgets.budget(topology, fsdp)
    for name in ("memory", "exchanged"):
        assert found[name] <= budgets.SLACK * recorded[name], name
    if fsdp == 1:
        # The gradients, the loss and the metrics are combined into one all-reduce.
        assert found["collectives"] == {"all-reduce": 1}
    else:
        assert found["collectives"].keys() == recorded["collectives"].keys()
    assert not cost.doubles and not cost.host_transfers


@needs_compiler
def test_aot_compares_topologies_that_are_not_attached(tmp_path):
    out = tmp_path / "cost.json"
    done = command("aot", *SMALL, "--compare=v5e:1x1,v5e:2x2*2", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "nothing was run" in done.stdout and " topology |" in done.stdout
    assert "config.train.batch_size=8 does not divide" not in done.stderr
    assert "UserWarning" not in done.stderr
    rows = json.loads(out.read_text())
    shapes = [(row["topology"], row["chip"], row["chips"], row["batch/chip"]) for row in rows]
    assert shapes == [("v5e:1x1", "v5e", 1, 8), ("v5e:2x2*2", "v5e", 8, 1)]
    single, slices = rows
    assert single["exchanged"] == "nothing" and single["exchanged MB"] == 0
    assert "all-reduce" in slices["exchanged"] and "send" in slices["exchanged"]
    assert slices["exchanged MB"] > 0 and single["MFLOP/image"] == slices["MFLOP/image"] > 0
    for row in rows:
        rate = row["images/s at most"]
        assert rate == pytest.approx(1e3 * 8 / row["ms at least"])
        peak = 1e6 * row["MFLOP/image"] * rate / row["chips"] / CHIPS["TPU v5 lite"].flops
        assert row["of peak %"] == pytest.approx(100 * peak) and 0 < peak < 1
        assert row["of memory %"] == pytest.approx(100 * row["peak GiB/chip"] / 16)


@needs_compiler
def test_a_step_that_exceeds_the_memory_raises_the_needed_and_available_bytes():
    with pytest.raises(DoesNotFit, match=r"GiB of a device's 15\.75") as raised:
        estimate(least(train={"batch_size": 2**20}), topology_devices("v5e:1x1"))
    assert raised.value.needed > raised.value.had == 15.75 * 2**30


@needs_compiler
def test_a_topology_that_holds_no_batch_is_a_row_beside_the_others():
    flags = ("--find_batch", "--config.data.image_size=(1024, 1024)", "--config.model.patch=1",
             "--config.model.widths=(512, 512)", "--config.data.on_device=never")  # fmt: skip
    done = command("aot", CONFIG, *flags, "--compare=v5e:1x1,v5e:1x1")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if "v5e:1x1 |" in line]
    assert len(rows) == 2
    assert all("not even the smallest batch fits; choose a smaller model" in row for row in rows)


def test_aot_compiles_for_the_attached_devices_by_default():
    done = command("aot", *SMALL, devices=2)
    assert done.returncode == 0, done.stderr
    assert "here: compiling for 2 x cpu, 4 pictures each" in done.stderr
    figures = dict(re.findall(r"^ *(\S.*?)  (.*)$", done.stdout, re.MULTILINE))
    assert (figures["topology"], figures["chips"], figures["batch/chip"]) == ("here", "2", "4")
    assert "all-reduce" in figures["exchanged"]


def test_the_batch_of_a_chip_of_unknown_memory_cannot_be_found():
    done = command("aot", CONFIG, "--find_batch")
    assert_one_line(done, "--find_batch: the memory of cpu is not known; name a --topology")


@needs_compiler
@pytest.mark.parametrize(
    ("name", "chip", "count"),
    [("v4:2x2x1", "v4", 4), ("v5e:1x1", "v5e", 1), ("v5e:2x2*2", "v5e", 8), ("v5p:2x2x2", "v5p", 8),
     ("v6e:2x2", "v6e", 4)],
)  # fmt: skip
def test_a_topology_has_chips_of_known_rates(name, chip, count):
    devices = topology_devices(name)
    assert len(devices) == count
    assert {chip_of(device).name for device in devices} == {chip}


@pytest.mark.parametrize(
    "name",
    ["v5e-16", "v9:2x2", "v5e:4", "v5e:2x2*0", pytest.param("v5e:3x5", marks=needs_compiler)],
)
def test_a_name_of_no_topology_is_refused(name):
    message = rf"^'?{re.escape(name)}'? is no TPU topology.*; name one such as v5e:2x2"
    with pytest.raises(UserError, match=message) as raised:
        topology_devices(name)
    assert "\n" not in str(raised.value)
