"""`vaejax.aot` estimates the cost of a step on any devices; the step keeps to its budgets."""

import importlib.util
import json

import budgets
import jax
import pytest
from commands import command
from jax.experimental.compilation_cache import compilation_cache
from tiny import CONFIG_FILE, LEAST, tiny

from vaejax.cost.compiled_step import estimate
from vaejax.errors import DoesNotFit
from vaejax.runtime.chips import topology_devices

pytestmark = pytest.mark.slow

CONFIG = f"--config={CONFIG_FILE}"
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler: pip install -e '.[tpu]'"
)


@pytest.fixture(autouse=True)
def no_program_cache():
    """JAX would keep a program for devices that are not present, but could not read it again."""
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
def test_the_command_tells_what_a_pod_would_do(tmp_path):
    out = tmp_path / "cost.json"
    done = command("aot", CONFIG, *LEAST, "--compare=v5e:1x1,v5e:2x2*2", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "nothing was run" in done.stdout and " topology |" in done.stdout
    assert "config.train.batch_size=8 does not divide" not in done.stderr
    alone, slices = json.loads(out.read_text())
    assert alone["exchanged"] == "nothing" and "send" in slices["exchanged"]
    assert "UserWarning" not in done.stderr
    for row in alone, slices:
        assert 0 < row["of peak %"] < 100 and row["images/s at most"] > 0
        assert row["batch/chip"] * row["chips"] == 8


@needs_compiler
def test_the_compilers_complaint_of_too_little_memory_is_understood():
    config = tiny(
        train={"batch_size": 2**20}, prior={"name": "standard_normal"}, model={"blocks": (0, 1)}
    )
    with pytest.raises(DoesNotFit, match=r"GiB of a device's 15\.75") as raised:
        estimate(config, topology_devices("v5e:1x1"))
    assert raised.value.needed > raised.value.had > 15 * 2**30


@needs_compiler
def test_one_that_holds_no_batch_does_not_cost_the_others_their_rows(tmp_path):
    flags = ("--find_batch", "--config.data.image_size=(1024, 1024)", "--config.model.patch=1",
             "--config.model.widths=(512, 512)", "--config.data.on_device=never")  # fmt: skip
    done = command("aot", CONFIG, *LEAST, *flags, "--compare=v5e:1x1,v5e:1x1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not even the smallest batch fits") == 2


def test_the_devices_at_hand_are_told_of():
    done = command("aot", CONFIG, *LEAST, devices=2)
    assert done.returncode == 0, done.stderr
    assert "all-reduce" in done.stdout and "here: compiling for 2 x cpu" in done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--topology=v5e-16"], "'v5e-16' is no TPU topology; name one such as v5e:2x2"),
        (["--compare=v5e:2x2,v9:2x2"], "'v9:2x2' is no TPU topology"),
        (["--find_batch"], "the memory of cpu is not known"),
        (["--topology=v5e:2x2", "--config.train.batch_size=0"], "must be at least 1"),
        pytest.param(["--topology=v5e:3x5"], "v5e:3x5 is no TPU topology", marks=needs_compiler),
    ],
)
def test_a_mistake_gets_one_clear_line(flags, words):
    done = command("aot", CONFIG, *flags)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert words in done.stderr.splitlines()[-1]
