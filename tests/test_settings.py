"""The schema of the settings accepts its defaults, keeps given values, and reports mistakes."""

import contextlib
import dataclasses
import json
import re

import pytest
from commands import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import of_file

from vaejax.config import FlowConfig, default_config
from vaejax.config.checks import check_given
from vaejax.config.saved import from_json, to_json, upgraded
from vaejax.config.settings import (
    changed,
    common,
    differences,
    names,
    resolve,
    setting_of,
)
from vaejax.errors import UserError
from vaejax.tasks import build_task

CONFIGS = sorted((REPOSITORY / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_file_is_valid(path):
    config = resolve(of_file(path))
    assert config.data.crop != "auto"
    build_task(config)


def test_the_defaults_are_valid_and_survive_json():
    config = resolve(default_config())
    assert from_json(to_json(config)) == config
    assert resolve({}) == config


@settings(max_examples=30)
@given(
    steps=st.integers(1, 10**9),
    rate=st.floats(1e-8, 1.0),
    widths=st.lists(st.integers(1, 512), min_size=1, max_size=4),
    flip=st.booleans(),
)
def test_json_keeps_every_value(steps, rate, widths, flip):
    config = resolve(
        {
            "train": {"steps": steps},
            "optimizer": {"learning_rate": rate},
            "model": {"widths": widths, "blocks": [1] * len(widths), "patch": 1},
            "data": {"flip": flip},
        }
    )
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dat": {}}, "config.dat is not a setting; did you mean config.data?"),
        ({"data": {"sorce": "x"}}, "did you mean config.data.source?"),
        ({"data": 3}, "config.data is 3"),
        ({"lr": 0.1}, "did you mean config.optimizer.learning_rate?"),
        ({"beta": 0.1}, "did you mean config.objective.beta?"),
        ({"batch_size": 8}, "did you mean config.train.batch_size?"),
        ({"train": {"learning_rate": 0.1}}, "did you mean config.optimizer.learning_rate?"),
        ({"train": {"lerning_rate": 0.1}}, "did you mean config.optimizer.learning_rate?"),
        ({"zzzz": 1}, "config.zzzz is not a setting; known: data, model"),
        ({"train": {"batch_size": "many"}}, "config.train.batch_size='many' must be a whole"),
        ({"train": {"batch_size": 2.5}}, "config.train.batch_size=2.5 must be a whole"),
        ({"train": {"batch_size": True}}, "config.train.batch_size=True must be a whole"),
        ({"train": {"batch_size": 0}}, "must be at least 1"),
        ({"train": {"batch_size": 9, "accumulate": 2}}, "a multiple of config.train.accumulate"),
        ({"train": {"log_every": 5, "steps_per_dispatch": 2}}, "config.train.log_every=5"),
        ({"optimizer": {"learning_rate": float("nan")}}, "learning_rate=nan must be"),
        ({"optimizer": {"guard": 1.0}}, "config.optimizer.guard=1.0 would scale down gradients"),
        ({"optimizer": {"b1": 2.0}}, "config.optimizer.b1=2.0 must be at least 0 and at most"),
        ({"data": {"crop": "nvae"}}, "did you mean nvae148?"),
        ({"data": {"source": "celebs"}}, "did you mean celeba?"),
        ({"data": {"source": "tfds:"}}, "config.data.source='tfds:'"),
        ({"data": {"source": "tfds:/sets/lfw"}}, "config.data.source='tfds:/sets/lfw'"),
        ({"data": {"channels": 2}}, "config.data.channels=2 is not one of 1, 3"),
        ({"data": {"image_size": 64}}, "must be a tuple such as (64, 64)"),
        ({"data": {"image_size": (64,)}}, "must have 2 values"),
        ({"data": {"image_size": (64, 2000)}}, "2000 must be at least 16 and at most 1024"),
        ({"model": {"widths": ()}}, "config.model.blocks"),
        ({"likelihood": {"name": "logistics"}}, "did you mean logistic?"),
        ({"model": {"widths": (8,) * 6, "blocks": (1,) * 6}}, "name fewer widths"),
        (
            {"likelihood": {"name": "gaussian", "bits": 5}},
            "config.likelihood.bits=5 is of config.likelihood.name=logistic or mixture, and "
            "gaussian has none; leave it out",
        ),
        ({"likelihood": {"name": "mixture", "scale": "fixed"}}, "of config.likelihood.name=log"),
        ({"prior": {"name": "standard_normal", "layers": 3}}, "is of config.prior.name=coup"),
        ({"model": {"dropout": 0.5}}, "config.model.dropout=0.5 is of config.model.name=ladder"),
        ({"model": {"name": "ladder", "latent_size": 512}}, "is of config.model.name=conv, and"),
        ({"model": {"name": "ladder"}}, "begin with a config file of a ladder"),
        ({"prior": {"name": "hierarchical"}}, "is of a ladder's groups, and"),
        ({"prior": {"fitted": ["temperatures"]}}, "temperatures are fitted to a ladder; choose"),
        (
            {"model": {"name": "ladder"}, "prior": {"name": "hierarchical", "fitted": ["mixture"]}},
            "config.prior.fitted=('mixture',) names priors of a flat z",
        ),
        (
            {"model": {"name": "ladder"}, "prior": {"name": "hierarchical"}},
            "config.likelihood.scale='position' would tie a ladder to pictures of one size",
        ),
        ({"flow": {"widht": 8}}, "did you mean config.flow.width?"),
        ({"flow": {"patch": 2}}, "config.flow.patch=2 is of latent maps, and this model has none"),
        ({"flow": {"head_size": 32}}, "config.flow.head_size=32 is of latent maps"),
        (
            {"model": {"name": "attributes"}, "flow": {"width": 8}},
            "config.flow.width=8 is of a VAE",
        ),
        (
            {"model": {"name": "spatial"}},
            "config.model.name=spatial has a map of latents",
        ),
        (
            {
                "objective": {"latent_noise": 0.1},
                "model": {"name": "ladder"},
                "prior": {"name": "hierarchical", "fitted": []},
                "likelihood": {"name": "mixture"},
            },
            "config.objective.latent_noise=0.1 is of one array of latents, and config.model.na",
        ),
        ({"model": {"z_channels": 4}}, "did you mean config.model.latent?"),
        ({"model": {"name": "ladder", "blocks": (0, 0, 0)}}, "the last level, without latents"),
        (
            {"model": {"name": "ladder", "hidden": (8,)}},
            "config.model.hidden=(8,) must have one number for each",
        ),
        (
            {"ladder": {"dropout": 0.5}},
            "config.ladder is not a setting; did you mean config.model?",
        ),
    ],
)
def test_a_mistake_is_one_line_with_key_value_and_remedy(values, message):
    with pytest.raises(UserError) as error:
        resolve(values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "fitted", "message"),
    [
        # 16 x 16 positions of 16 channels are as many dimensions as a Gaussian takes.
        ({"latent": 16}, ("gaussian",), None),
        ({"latent": 17}, ("gaussian",), "at most 4,096 dimensions, and this model's have 4,352;"),
        ({"latent": 17}, (), None),
        (
            {"latent": 8},
            ("mixture",),
            "prior 'mixture' has a full covariance, for codes of at",
        ),
        ({"latent": 8}, ("flow_matching",), None),
        ({"name": "conv", "latent_size": 5000}, ("gaussian",), "this model's have 5,000; leave it"),
        ({"name": "conv", "latent_size": 5000}, ("flow_matching",), None),
    ],
)
def test_a_prior_is_fitted_only_to_codes_that_it_can_take(model, fitted, message):
    """A run that has such settings still loads: only giving them is refused."""
    map_of = {"name": "spatial", "patch": 2, "widths": (4, 4), "blocks": (0, 0)}
    prior = {"name": "standard_normal", "fitted": fitted}
    config = resolve({"model": {**map_of, **model}, "prior": prior})
    if message is None:
        check_given(config)
        return
    with pytest.raises(UserError, match=re.escape(message)):
        check_given(config)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@given(name=st.sampled_from(names()), value=VALUES | st.integers(10**300, 10**400))
def test_any_value_of_any_setting_is_accepted_or_refused_in_one_line(name, value):
    section, key = name.split(".")
    try:
        config = resolve({section: {key: value}})
    except UserError as error:
        assert "\n" not in str(error).strip() and "config." in str(error)
    else:
        assert from_json(to_json(config)) == config


@given(values=st.dictionaries(st.text(max_size=6), VALUES, max_size=3))
def test_any_sections_are_accepted_or_refused(values):
    with contextlib.suppress(UserError):
        resolve(values)


@pytest.mark.parametrize(
    ("flow", "shape", "message"),
    [
        ({}, (8, 8, 16), ""),
        ({"width": 128, "patch": 2}, (8, 6, 4), ""),
        ({"patch": 2}, (8, 7, 4), "config.flow.patch=2 does not divide the 8 x 7 latents"),
        ({"width": 100}, (8, 8, 4), "config.flow.head_size=64 must be a multiple of 4 that div"),
        ({"head_size": 6}, (8, 8, 4), "config.flow.head_size=6 must be a multiple of 4"),
        ({"width": 256}, (), "config.flow.width=256 is of latent vectors or maps, and this model"),
        ({"dtype": "bfloat16", "ema_decay": 0.5}, (128,), ""),
    ],
)
def test_the_settings_of_a_flow_must_suit_the_latents(flow, shape, message):
    settings = FlowConfig(**flow)
    if not message:
        settings.check(shape)
        return
    with pytest.raises(UserError) as error:
        settings.check(shape)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_size_of_a_flow_is_chosen_by_the_latents():
    of_vectors, of_maps = FlowConfig().of((128,)), FlowConfig().of((8, 8, 16))
    assert (of_vectors.width, of_vectors.blocks, of_vectors.batch_size) == (512, 2, 1024)
    assert (of_maps.width, of_maps.blocks) == (192, 6) and of_maps.patch == 1
    given = FlowConfig(width=64, steps=7)
    assert (given.of((128,)).width, given.of((128,)).steps, given.of((128,)).blocks) == (64, 7, 2)


def test_the_source_chooses_the_crop():
    crops = {
        source: resolve({"data": {"source": source}}).data.crop
        for source in ("celeba", "tfds:celeb_a", "tfds:lfw", "folder", "array", "synthetic")
    }
    assert crops == {
        "celeba": "nvae148",
        "tfds:celeb_a": "nvae148",
        "tfds:lfw": "center",
        "folder": "center",
        "array": "none",
        "synthetic": "none",
    }


def test_a_longer_run_is_no_difference_and_another_batch_size_is():
    old = resolve({})
    longer = resolve({"train": {"steps": 99_999}, "data": {"cache_dir": "elsewhere"}})
    assert differences(old, longer) == []
    other = resolve({"train": {"batch_size": 32}})
    assert differences(old, other) == ["train.batch_size: 64 -> 32"]


def test_a_change_of_class_keeps_the_settings_that_both_classes_have():
    config = resolve({"prior": {"layers": 3, "fitted": ["mixture"]}})
    other = changed(config, {"prior.name": "standard_normal"})
    assert dataclasses.asdict(other.prior) == {"name": "standard_normal", "fitted": ("mixture",)}
    assert differences(config, other) == [
        "prior.name: 'coupling_flow' -> 'standard_normal'",
        "prior.layers: 3 -> None",
        "prior.width: 128 -> None",
    ]


def test_a_value_that_a_class_fixes_may_be_repeated():
    config = resolve({"likelihood": {"name": "bernoulli", "scale": "fixed", "bits": 8}})
    assert config.likelihood.bits == 8 and not config.likelihood.learns_scale


def test_settings_of_version_0_1_are_upgraded():
    old = {
        "model": {"name": "ladder", "latent_size": 128, "widths": [8, 8, 8], "patch": 1},
        "ladder": {"latent": 4, "hidden": [], "dropout": 0.2},
        "likelihood": {"name": "mixture", "scale": "predicted", "fixed_scale": 3.0},
        "prior": {"name": "coupling_flow", "layers": 5, "fitted": []},
    }
    config = resolve(upgraded(old))
    assert (config.model.latent, config.model.dropout, config.model.patch) == (4, 0.2, 1)
    assert (config.prior.name, config.prior.fitted) == ("hierarchical", ())
    assert upgraded(json.loads(to_json(config))) == json.loads(to_json(config))
    flat = resolve(upgraded({"likelihood": {"name": "bernoulli", "scale": "fixed"}, "ladder": {}}))
    assert flat.model.name == "conv"


def test_which_settings_may_change_and_which_may_differ_between_machines():
    entries = {name: setting_of(name) for name in names()}
    per_machine = {name for name in entries if entries[name].of_machine}
    assert per_machine == {
        "data.path", "data.manual_dir", "data.cache_dir", "data.decode_threads", "eval.weights"
    }  # fmt: skip
    assert {name for name in entries if entries[name].may_change} == per_machine | {
        "data.on_device", "train.steps", "train.keep", "train.log_every", "train.eval_every",
        "train.save_every", "train.fsdp", "train.hang_timeout", "model.scan", "model.remat",
        "eval.batch_size", "eval.importance_samples", "eval.grid", "prior.fitted", "eval.metrics",
        "eval.metrics_every", "eval.samples", "eval.features",
        *(name for name in entries if name.startswith(("flow.", "finish."))),
    }  # fmt: skip
    default = resolve({})
    own = set()
    for name in entries:
        section, key = name.split(".")
        if hasattr(getattr(default, section), key):
            own.add(name)
    assert common(default).keys() == own - per_machine
