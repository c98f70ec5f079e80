"""The training step of each stage of a run, and what it costs, are known from the config alone."""

import math

import jax
import pytest
from commands import assert_one_line, command
from jax.experimental.compilation_cache import compilation_cache
from tiny import CONFIG_FILE, tiny, tiny_ladder

from vaejax.cost.compiled_step import estimate
from vaejax.cost.flops import matmul_flops
from vaejax.cost.steps import step_of
from vaejax.errors import UserError
from vaejax.runtime.mesh import single_device_mesh
from vaejax.stages.configs import flow_config
from vaejax.training.state import shapes

FLOW = {"batch_size": 4, "width": 16, "blocks": 2, "head_size": 8}
FINISH = {"batch_size": 4, "widths": (4, 8), "prior": "gaussian"}


def small(**sections):
    """Returns the tiny config of a model with a map of latents, and with small later stages."""
    return tiny("spatial", **{"flow": FLOW, "finish": FINISH, **sections})


def flops(config, stage):
    step = step_of(config, stage)
    return matmul_flops(step.trace(single_device_mesh()).jaxpr, step.costlier)


@pytest.mark.parametrize("flip", [True, False])
def test_the_flow_picks_codes_and_their_mirror_images_on_the_device(flip):
    config = small(data={"flip": flip})
    step = step_of(config, "flow", pictures=50)
    size = math.prod(config.latent_shape)
    names = ["code", "mirrored"] if flip else ["code"]
    assert {name: of.shape for name, of in step.resident.items()} == dict.fromkeys(
        names, (50, size)
    )
    updates = step.config.train.steps_per_dispatch
    assert {name: of.shape for name, of in step.batch.items()} == {"index": (updates, 4)}


def test_a_flow_with_labels_picks_them_on_the_device():
    config = small(flow={**FLOW, "labels": ("yaw", "smile")})
    step = step_of(config, "flow", pictures=50)
    assert step.resident["labels"].shape == step.resident["mirrored_labels"].shape == (50, 2)
    assert flops(config, "flow") > flops(small(), "flow")
    # The other stages do not read labels.
    assert step_of(config, "model").batch.keys() == {"image"}


@pytest.mark.parametrize(
    ("config_of", "prior", "names"),
    [(small, "gaussian", {"image", "sample"}), (small, "model", {"image"}),
     (tiny_ladder, "model", {"image"}), (tiny_ladder, "mixture", {"image"})],
)  # fmt: skip
def test_the_finish_takes_pictures_and_samples_of_a_fitted_prior(config_of, prior, names):
    config = config_of(finish={**FINISH, "prior": prior})
    step = step_of(config, "finish")
    assert step.batch.keys() == names and not step.resident
    assert step.batch["image"].shape == (1, 4, *config.data.shape)
    assert flops(config, "finish") > flops(config, "model")


@pytest.mark.parametrize("config", [small(), tiny(finish=FINISH)], ids=["spatial", "conv"])
def test_each_stage_learns_networks_of_its_own(config):
    learned = {
        stage: {name for name, net in shapes(step_of(config, stage).task).state.nets.items()
                if net.moments is not None}
        for stage in ("model", "flow", "finish")
    }  # fmt: skip
    assert learned == {"model": {"vae"}, "flow": {"flow"}, "finish": {"decoder", "discriminator"}}


def test_the_penalty_counts_in_the_share_of_the_updates_that_compute_it():
    every = {n: flops(small(finish={**FINISH, "penalty_every": n}), "finish") for n in (1, 2, 4)}
    assert every[1] - every[2] == pytest.approx(2 * (every[2] - every[4]), rel=1e-3)
    assert every[2] > every[4] > 0


def test_a_flow_costs_as_many_operations_as_its_matrix_products():
    """For one layer: of tokens four attention matrices and three of the MLP, and of conditions."""
    of_layers = [flops(small(flow={**FLOW, "blocks": n}), "flow") for n in (1, 2)]
    tokens, width = math.prod(small().latent_shape[:2]), FLOW["width"]
    hidden = 8 * width // 3
    of_tokens = tokens * (4 * width**2 + 3 * width * hidden) + 2 * tokens**2 * width
    forward = 2 * (of_tokens + 6 * width**2)
    codes = 4 * step_of(small(), "flow").config.train.steps_per_dispatch
    assert of_layers[1] - of_layers[0] == 3 * codes * forward


def test_long_flows_are_validated_about_a_hundred_times():
    for steps, every in ((200, 500), (8_000, 500), (100_000, 1_000), (400_000, 4_000)):
        train = flow_config(small(flow={**FLOW, "steps": steps}), 1_000, 1).train
        assert (train.steps, train.eval_every, train.save_every) == (steps, every, every)
        assert every % train.steps_per_dispatch == 0


def test_the_batch_of_a_flow_divides_among_the_devices():
    assert step_of(small(), "flow", devices=3).config.train.batch_size == 6


@pytest.mark.slow
def test_the_codes_that_a_device_holds_are_counted():
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        config, device = small(), jax.devices()[:1]
        few, many = (estimate(config, device, "flow", pictures).memory for pictures in (100, 1100))
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
        compilation_cache.reset_cache()
    # float32, and the mirror image's.
    assert many - few == pytest.approx(2 * 4 * math.prod(config.latent_shape) * 1000, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "labels"), [("flow", ()), ("flow", ("yaw", "smile")), ("finish", ())]
)
def test_aot_compiles_each_stage_without_a_trained_model(stage, labels):
    sizes = [f"--config.{section}.{name}={value}" for section, values in
             (("flow", FLOW), ("finish", FINISH)) for name, value in values.items()]  # fmt: skip
    if labels:
        sizes.append(f"--config.flow.labels={','.join(labels)}")
    done = command("aot", f"--config={CONFIG_FILE}:spatial", *sizes, f"--stage={stage}", devices=2)
    assert done.returncode == 0, done.stderr
    assert "here: compiling for 2 x cpu, 2 pictures each" in done.stderr
    assert ("with --pictures=N" in done.stderr) is (stage == "flow")
    figures = {line.rpartition("  ")[0].strip(): line.rpartition("  ")[2]
               for line in done.stdout.splitlines()}  # fmt: skip
    assert figures["stage"] == stage and figures["batch/chip"] == "2"
    config = small(flow={**FLOW, "labels": labels})
    expected = shapes(step_of(config, stage).task).state.parameters()
    assert figures["parameters"] == f"{expected:,}"
    assert "all-reduce" in figures["exchanged"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--stage=prior",), "--stage"),
        (("--pictures=10",), "--pictures=10 is of --stage=flow"),
        (("--stage=finish", "--pictures=10"), "leave it out"),
        (("--stage=flow", "--pictures=0"), "--pictures"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, message):
    assert_one_line(command("aot", f"--config={CONFIG_FILE}:spatial", *flags), message)


def test_a_model_without_codes_has_no_flow():
    with pytest.raises(
        UserError, match=r"config\.model\.name=ladder has none; name --stage=finish"
    ):
        step_of(tiny_ladder(), "flow")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["flow", "finish"])
def test_a_network_of_attributes_has_no_further_stage(stage):
    done = command("aot", "--config=configs/celeba_attributes.py", f"--stage={stage}")
    assert_one_line(done, f"--stage={stage} is of a VAE, and config.model.name=attributes is none")
