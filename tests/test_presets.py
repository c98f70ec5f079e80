"""The presets of configs/ have the expected parameter counts, latents and picture sizes."""

import pytest
from commands import REPOSITORY
from tiny import of_file

from vaejax.config.checks import check_given
from vaejax.config.settings import resolve
from vaejax.cost.steps import step_of
from vaejax.models import build_model
from vaejax.tasks.vae import vae_task
from vaejax.training.state import shapes


@pytest.mark.parametrize(
    ("name", "parameters", "groups", "size"),
    [
        ("quickstart_ladder", 997_922, 8, (32, 32, 3)),
        ("frey_ladder", 1_421_871, 6, (28, 20, 1)),
        ("celeba_ladder_small", 1_647_730, 14, (64, 64, 3)),
        ("celeba_ladder", 26_451_044, 62, (64, 64, 3)),
        ("celeba_ladder_large", 132_169_572, 62, (64, 64, 3)),
        ("ffhq256_ladder", 54_271_460, 66, (256, 256, 3)),
        ("ffhq1024_ladder", 61_348_004, 64, (1024, 1024, 3)),
    ],
)
def test_a_ladder_has_the_expected_size(name, parameters, groups, size):
    config = resolve(of_file(REPOSITORY / "configs" / f"{name}.py"))
    model = build_model(config)
    assert shapes(vae_task(config)).state.parameters() == parameters
    assert len(model.factors()) == groups == len(model.resolutions())
    assert (*config.data.image_size, config.data.channels) == size


def test_the_map_of_latents_has_the_expected_size():
    config = resolve(of_file(REPOSITORY / "configs" / "celeba_spatial.py"))
    check_given(config)
    assert shapes(vae_task(config)).state.parameters() == 1_259_660
    assert build_model(config).factors() == (256,) * 8 and config.latent_shape == (16, 16, 8)


@pytest.mark.parametrize(
    ("name", "latents", "model", "flow", "finish"),
    [
        ("celeba_latent", (16, 16, 8), 22_377_756, 32_428_448, 15_093_306),
        ("ffhq256_latent", (16, 16, 16), 68_366_672, 147_778_960, 50_072_414),
    ],
)
def test_each_stage_of_a_latent_flow_model_has_the_expected_size(
    name, latents, model, flow, finish
):
    config = resolve(of_file(REPOSITORY / "configs" / f"{name}.py"))
    check_given(config)
    assert config.latent_shape == latents
    sizes = [
        shapes(step_of(config, stage).task).state.parameters()
        for stage in ("model", "flow", "finish")
    ]
    assert sizes == [model, flow, finish]
