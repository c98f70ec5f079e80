"""A ladder is trained, explored, sampled and evaluated."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import assert_one_line, command
from PIL import Image
from tiny import LADDER, flags_of, metrics, tiny

import vaejax
from vaejax import data
from vaejax.config.saved import to_json
from vaejax.errors import UserError
from vaejax.evaluation.choosing import Choice
from vaejax.records import pictures
from vaejax.stages.fitting import check_priors
from vaejax.trained import exploring, measuring
from vaejax.trained.arguments import recorded_temperature
from vaejax.trained.temperature_files import save_temperatures

pytestmark = pytest.mark.slow


# Wide enough, and trained for long enough, to learn; this does not slow down the compilation.
SECTIONS = dict(
    data=LADDER["data"],
    model={"widths": (24, 24, 24), "blocks": (2, 0, 1), "dropout": 0.1},
    optimizer={
        "name": "adamax", "guard": 4.0, "learning_rate": 0.01, "warmup_steps": 0,
        "ema_decay": 0.9,
    },
    objective={"warmup_steps": 6, "balance": True},
    train={"steps": 150, "log_every": 15, "eval_every": 75, "save_every": 75},
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trains a ladder, and returns its work directory."""
    workdir = tmp_path_factory.mktemp("ladder")
    result = command("main", *flags_of("ladder", **SECTIONS), f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    assert (workdir / "config.json").read_text() == to_json(tiny("ladder", **SECTIONS))
    return workdir


@pytest.fixture(scope="module")
def model(run):
    return vaejax.load(run)


def test_the_metrics_have_the_kl_term_of_every_group_and_resolution(run):
    lines = metrics(run)
    trained = [line for line in lines if line["split"] == "train"]
    assert all(len(line["kl_per_group"]) == 3 for line in trained)
    for line in trained:
        np.testing.assert_allclose(sum(line["kl_per_group"]), line["kl_nats"], rtol=1e-5)
    last = [line for line in lines if line["split"] == "valid"][-1]
    parts = last["kl_3x2_bits_per_dim"] + last["kl_10x8_bits_per_dim"]
    np.testing.assert_allclose(parts, last["kl_nats"] / (320 * np.log(2)), rtol=1e-5)


def test_a_ladder_encodes_decodes_and_samples(model):
    faces = model.sample(3, seed=1)
    assert faces.shape == (3, 20, 16, 1) and faces.dtype == np.uint8
    z, spread = model.encode(faces)
    assert [leaf.shape for leaf in z] == [(3, 1, 3, 2, 2), (3, 2, 10, 8, 2)]
    assert all(np.all(leaf > 0) for leaf in spread)
    np.testing.assert_array_equal(model.decode(z), model.reconstruct(faces))
    sampled = model.decode(model.sample_posterior(faces, seed=3))
    np.testing.assert_array_equal(sampled, model.reconstruct(faces, seed=3))
    assert jax.tree.map(np.shape, model.sample_posterior(faces)) == jax.tree.map(np.shape, z)


def test_latents_that_memory_cannot_hold_are_refused(model):
    with pytest.raises(UserError, match=r"GB of memory; draw fewer"):
        model.sample_codes(10**12)


def test_the_largest_seed_resamples_latents(model):
    faces = model.sample(3)
    sheet = exploring.resampled(model, faces, seed=2**32 - 1)
    assert len(sheet) == 3 * (1 + 2 * exploring.CHOICES)


def test_there_is_one_temperature_or_one_per_resolution_or_one_per_group(model):
    same = [model.sample(3, temperature=value) for value in (0.7, [0.7], [0.7] * 2, [0.7] * 3)]
    for other in same[1:]:
        np.testing.assert_array_equal(same[0], other)
    coarse_first = [model.sample(3, temperature=each) for each in ([0.9, 0.3], [0.9, 0.3, 0.3])]
    np.testing.assert_array_equal(*coarse_first)
    with pytest.raises(UserError, match=r"2 \(one per resolution\), or 3 \(one per group\)"):
        model.sample(3, temperature=[1.0] * 4)
    with pytest.raises(UserError, match="must be a number from 0 on"):
        model.sample(3, temperature=[1.0, -1.0])


def test_latents_of_another_model_are_refused(model):
    z, _ = model.encode(model.sample(3))
    fewer = jnp.asarray(z[0]), jnp.asarray(z[1][:2])
    for wrong in (z[:1], (*z, z[0]), (), (z[1], z[0]), fewer):
        with pytest.raises(UserError, match=r"this model takes \(batch, 1, .*\), \(batch, 2, "):
            model.decode(wrong)
    with pytest.raises(UserError, match=r"latents of shapes \(3, 1, 3, 2, 2\); this model takes"):
        model.redraw(z[:1], keep=np.ones(3, bool))


def test_progressive_reconstructions_end_with_the_reconstruction(model):
    faces = model.sample(3)
    sheet = exploring.progressive(model, faces).reshape(3, 3, 20, 16, 1)
    np.testing.assert_array_equal(sheet[:, 0], faces)
    np.testing.assert_array_equal(sheet[:, 2], model.reconstruct(faces))
    assert np.any(sheet[:, 1] != sheet[:, 2])


def test_redraw_keeps_the_latents_of_the_chosen_groups(model):
    z, _ = model.encode(model.sample(4))
    _, other = model.redraw(z, keep=np.array([True, False, False]), seed=3)
    np.testing.assert_allclose(other[0], z[0])
    assert np.all(np.any(other[1] != z[1], axis=(2, 3, 4)))
    with pytest.raises(UserError, match=r"keep has the shape \(2,\); it must be \(3,\)"):
        model.redraw(z, keep=np.ones(2, bool))
    pictures, same = model.redraw(z, keep=np.ones(3, bool))
    np.testing.assert_array_equal(pictures, model.decode(z))
    np.testing.assert_allclose(same[1], z[1])


def test_after_training_the_bound_is_tighter_with_more_samples(run, model):
    faces = data.open_dataset(model.config.data).splits["valid"].images

    def bits_per_dim(samples: int) -> float:
        bounds = [
            model.log_likelihood(faces, samples=samples, seed=seed) for seed in range(64 // samples)
        ]
        return -float(np.mean(bounds)) / (320 * np.log(2))

    validations = [line["elbo_bits_per_dim"] for line in metrics(run) if line["split"] == "valid"]
    elbo, one_sample, eight_samples = min(validations), bits_per_dim(1), bits_per_dim(8)
    assert elbo < metrics(run)[0]["elbo_bits_per_dim"] - 1.0, "not trained enough"
    np.testing.assert_allclose(one_sample, elbo, atol=0.01)
    assert eight_samples < one_sample


def test_no_prior_is_fitted_to_a_ladder(model):
    with pytest.raises(UserError, match="trained with it"):
        model.sample(2, prior="gaussian")
    with pytest.raises(UserError, match="no prior is fitted to a ladder"):
        check_priors(model, ["gaussian"])


@pytest.fixture(scope="module")
def fitted(run, tmp_path_factory):
    """Returns what a run prints that ends by fitting temperatures, and its work directory."""
    copy = shutil.copytree(run, tmp_path_factory.mktemp("fitted") / "run")
    flags = flags_of("ladder", **SECTIONS, prior={"fitted": "temperatures"})
    done = command("main", *flags, f"--workdir={copy}")
    assert done.returncode == 0, done.stderr
    return done.stderr, copy


def test_the_temperatures_of_the_smallest_distance_are_kept(fitted):
    said, copy = fitted
    tried = {
        tuple(map(float, values.split(", "))): float(distance)
        for values, distance in re.findall(r"temperatures ([\d., ]+): distance (\S+)", said)
    }
    kept = vaejax.load(copy).temperature
    assert tried[kept] == min(tried.values()) and (1.0, 1.0) in tried
    assert f"{kept[0]:g} at 3x2, {kept[1]:g} at 10x8" in said


def test_samples_have_the_fitted_temperatures_unless_others_are_named(fitted, model, tmp_path):
    copy = shutil.copytree(fitted[1], tmp_path / "run")
    save_temperatures(vaejax.load(copy).origin, None, (0.9, 0.3))
    again = vaejax.load(copy)
    faces = again.sample(3)
    np.testing.assert_array_equal(faces, model.sample(3, temperature=(0.9, 0.3)))
    np.testing.assert_array_equal(again.sample(3, temperature=1.0), model.sample(3))
    assert np.any(faces != model.sample(3))
    kept, latents = [True, False, False], again.encode(again.sample(2, temperature=1.0))[0]
    redrawn = again.redraw(latents, keep=np.array(kept))[0]
    expected = model.redraw(latents, keep=np.array(kept), temperature=(0.9, 0.3))[0]
    np.testing.assert_array_equal(redrawn, expected)


def test_an_evaluation_records_its_temperatures(fitted):
    _, copy = fitted
    kept, figures = recorded_temperature(vaejax.load(copy).temperature, (1, 2)), {}
    for name, flags, expected in (
        ("fitted", [], kept), ("named", ["--temperature=0.4"], 0.4), ("none", ["--samples=0"], None)
    ):  # fmt: skip
        before = set((copy / "evaluations").glob("*.json"))
        flags = ["--samples=20", "--metrics=likelihood,thumbnails", *flags]
        done = command("evaluate", f"--workdir={copy}", "--importance_samples=0", *flags)
        assert done.returncode == 0, done.stderr
        (path,) = set((copy / "evaluations").glob("*.json")) - before
        written = json.loads(path.read_text())
        recorded = written["protocol"].get("temperature")
        assert (tuple(recorded) if isinstance(recorded, list) else recorded) == expected, name
        figures[name] = {figure["name"]: figure for figure in written["figures"]}
    samples = [figures[name]["thumbnail_frechet_samples"] for name in ("fitted", "named")]
    assert samples[0] != samples[1]
    refused = command("evaluate", f"--workdir={copy}", "--samples=0", "--temperature=-5")
    assert_one_line(refused, "temperature=[-5.0] must be a number from 0 on")


def test_evaluation_reports_the_kl_terms_of_resolutions(model):
    choice = Choice(("likelihood",))
    report = measuring.measure(model, importance_samples=2, samples=0, choice=choice)
    (path,) = (model.workdir / "evaluations").glob("*.json")
    assert json.loads(path.read_text())["results"] == pytest.approx(report["results"])
    results = report["results"]
    assert results["importance_bits_per_dim"] < results["elbo_bits_per_dim"]
    assert "kl_3x2_bits_per_dim" in results and "active_units" not in results


def test_explore_draws_its_three_sheets(run, tmp_path):
    result = command("explore", f"--workdir={run}", f"--out={tmp_path}", "--faces=3")
    assert result.returncode == 0, result.stderr
    # A cell is 82 x 102 pixels: a face of 16 x 20 pixels, enlarged five times, and a gap of 2.
    rows_and_columns = {"progressive": (3, 3), "resampled": (3, 5), "temperatures": (6, 3)}
    for name, (rows, columns) in rows_and_columns.items():
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size == (columns * 82 + 2, rows * 102 + 2)


def test_sample_takes_a_temperature_for_each_resolution(run, model, tmp_path):
    path = tmp_path / "samples.png"
    flags = (f"--workdir={run}", "--count=4", f"--out={path}", "--temperature=0.5,1")
    result = command("sample", *flags)
    assert result.returncode == 0, result.stderr
    sheet = pictures.grid(model.sample(4, temperature=[0.5, 1.0]), columns=2)
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), sheet[:, :, 0])
