"""The finish of a decoder: what it changes and what it leaves, resuming, refusals, warnings."""

import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import COMMAND_TIMEOUT, assert_one_line, command, free_port, start
from ladders import pictures
from parameters import away_from_start
from stops import stopped_at
from tiny import CONFIG_FILE, metrics, tiny, tiny_ladder

import vaejax
from vaejax.errors import TRY_AGAIN, UserError
from vaejax.models.finished import Refiner, picture_model
from vaejax.stages import decoder_finish
from vaejax.stages.decoder_finish import finish_stage
from vaejax.tasks.finish import FinishTask, finished
from vaejax.tasks.finish.losses import DecoderSums, DiscriminatorSums
from vaejax.tasks.finish.metrics import RANKING, Health, summarize
from vaejax.tasks.vae import functions, vae_task
from vaejax.trained.decoder_files import FinishedDecoder, save_decoder
from vaejax.trained.loading import open_data

FLAGS = (
    f"--config={CONFIG_FILE}",
    "--config.finish.prior=gaussian",
    "--config.finish.steps=6",
    "--config.finish.validations=2",
    "--config.finish.batch_size=8",
    "--config.finish.widths=(4,8)",
    "--config.finish.decoder_rate=0.03",
    "--config.finish.ema_decay=0.0",
)


def stage_of(run):
    (stage,) = (run / "stages").glob("finish_*")
    return stage


@pytest.fixture(scope="module")
def finished_run(trained, tmp_path_factory):
    """The trained run with a finished decoder, by one uninterrupted process."""
    run = shutil.copytree(trained, tmp_path_factory.mktemp("finished") / "run")
    done = command("main", *FLAGS, f"--workdir={run}")
    assert done.returncode == 0, done.stderr
    assert "finished decoder of step" in done.stderr
    return run


@pytest.fixture(scope="module")
def last(finished_run, tmp_path_factory):
    """A run whose finished decoder is that of the last step, be it better or not."""
    run = shutil.copytree(finished_run, tmp_path_factory.mktemp("last") / "run")
    model = vaejax.load(run, decoder="model")
    stage = finish_stage(model, open_data(model))
    shutil.rmtree(run / "decoders")
    for at in (0, 3):
        shutil.rmtree(stage_of(run) / "checkpoints" / str(at), ignore_errors=True)
    stage.finish()
    return run


@pytest.mark.slow
def test_a_finish_changes_the_pictures_and_neither_codes_nor_likelihoods(last):
    finished, model = vaejax.load(last), vaejax.load(last, decoder="model")
    pictures = model.sample(4, seed=3)
    assert np.any(finished.sample(4, seed=3) != pictures)
    np.testing.assert_array_equal(finished.encode(pictures)[0], model.encode(pictures)[0])
    np.testing.assert_array_equal(
        finished.log_likelihood(pictures, samples=2), model.log_likelihood(pictures, samples=2)
    )
    assert (finished.prior, model.prior) == ("gaussian", "model")
    one, other = (some.sample_codes(4, prior="model") for some in (finished, model))
    np.testing.assert_array_equal(one, other)
    assert jax.tree.all(jax.tree.map(np.array_equal, finished.params, model.params))


@pytest.mark.slow
def test_the_decoder_it_began_with_is_evaluated_too(finished_run):
    """So a finish that makes nothing better keeps the decoder that it began with."""
    validations = [line for line in metrics(stage_of(finished_run)) if line["split"] == "valid"]
    assert [line["step"] for line in validations] == [0, 3, 6]
    ranked = [
        line["frechet_resnet_samples"] * max(line["spectrum_distance_samples"], 0.02)
        for line in validations
    ]
    with np.load(finished_run / "decoders" / "finished.npz", allow_pickle=False) as arrays:
        kept = str(arrays["header"])
    assert f'"finish_step": {(0, 3, 6)[int(np.argmin(ranked))]}' in kept


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ((0.36, 0.06), (0.35, 0.13)),  # as sharp to features, and less blurred
        ((0.35, 0.02), (0.69, 0.01)),  # both spectra are as near as those of real faces
        ((0.36, 0.06), (math.nan, 0.01)),
        ((0.36, 0.06), (0.01, math.nan)),
    ],
)
def test_decoders_rank_by_features_and_by_spectrum(better, worse):
    one, other = (
        RANKING.rank(dict(zip((RANKING.metric, RANKING.factor), values, strict=True)))
        for values in (better, worse)
    )
    assert one < other


@pytest.mark.slow
def test_codes_of_the_prior_repeat_beyond_the_most_that_are_sampled(finished_run, monkeypatch):
    model = vaejax.load(finished_run, decoder="model")
    dataset, most = open_data(model), 10
    monkeypatch.setattr(decoder_finish, "_MOST_CODES", most)
    found = finish_stage(model, dataset).task.examples(dataset)["train"]["sample"]
    assert len(found) == len(dataset.splits["train"].images) == 64
    np.testing.assert_array_equal(found[most:], found[:-most])
    np.testing.assert_array_equal(found[:most], model.sample_codes(most, prior="gaussian"))


@pytest.mark.slow
def test_an_interrupted_finish_resumes_to_the_same_decoder(finished_run, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    stopped = stopped_at("first step done", "main", *FLAGS, f"--workdir={run}")
    assert stopped.returncode == TRY_AGAIN, stopped.stderr
    assert not (run / "decoders").exists()
    assert command("main", *FLAGS, f"--workdir={run}").returncode == 0
    files = [at / "decoders" / "finished.npz" for at in (finished_run, run)]
    one, two = (np.load(file, allow_pickle=False) for file in files)
    assert one.files == two.files
    for name in one.files:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@pytest.mark.slow
def test_four_devices_of_two_processes_finish_a_decoder_together(finished_run, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    group = (f"--coordinator=localhost:{free_port()}", "--processes=2")
    processes = [
        start(
            "main",
            *FLAGS,
            f"--workdir={run}",
            *group,
            f"--process={index}",
            "--config.finish.validations=1",
            devices=2,
        )
        for index in range(2)
    ]
    errors = [process.communicate(timeout=COMMAND_TIMEOUT)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    # The same figures at the beginning and at the end, up to the rounding of sums in another order.
    alone, together = (
        {line["step"]: line for line in metrics(stage_of(at)) if line["split"] == "valid"}
        for at in (finished_run, run)
    )
    assert list(together) == [0, 6]
    for step, found in together.items():
        for name in ("psnr", "ssim", "frechet_resnet_samples", "thumbnail_frechet_samples"):
            assert found[name] == pytest.approx(alone[step][name], rel=0.02), (name, step)


@pytest.mark.slow
def test_a_ladder_is_finished_by_a_refiner(tmp_path):
    config = (f"--config={CONFIG_FILE}:ladder", *FLAGS[1:], "--config.finish.decoder_rate=0.001",
              "--config.finish.validations=1", "--config.finish.prior=model")  # fmt: skip
    refused = command("main", *config[:-1], f"--workdir={tmp_path}")
    assert_one_line(refused, "set --config.finish.prior=model")
    done = command("main", *config, f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "decoders" / "finished.npz", allow_pickle=False) as arrays:
        assert all(name.startswith(("refiner/", "header")) for name in arrays.files)
    assert vaejax.load(tmp_path, decoder="finished").sample(2).shape == (2, 28, 28, 3)


@pytest.mark.slow
def test_other_settings_are_refused_by_a_finish_that_has_begun(finished_run):
    done = command("main", *FLAGS, f"--workdir={finished_run}", "--config.finish.adversarial=0.5")
    assert_one_line(done, "remove it to train this stage anew")
    assert "{'adversarial': 0.1}, and there is {'adversarial': 0.5} now" in done.stderr


@pytest.mark.slow
def test_an_evaluation_says_whose_likelihood_it_is(last):
    flags = (f"--workdir={last}", "--importance_samples=0", "--metrics=likelihood,thumbnails")
    for decoder, said in (("finished", True), ("model", False)):
        done = command("evaluate", *flags, "--samples=20", f"--decoder={decoder}")
        assert done.returncode == 0, done.stderr
        written = (last / "evaluations").glob("valid_*_k0*_likelihood_thumbnails_*.json")
        newest = max(written, key=lambda path: path.stat().st_mtime).read_text()
        assert ("of the decoder before its finish" in newest) is said
        assert f'"decoder": "{decoder}"' in newest


def test_a_decoder_of_another_checkpoint_is_not_used(tmp_path, trained, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    model = vaejax.load(run)
    with pytest.raises(UserError, match="no decoder was finished"):
        vaejax.load(run, decoder="finished")
    with pytest.raises(UserError, match="decoder 'sharp' is none of model, finished"):
        vaejax.load(run, decoder="sharp")
    other = model.origin._replace(digest=model.digest + 1)
    save_decoder(other, FinishedDecoder({"refiner": {"kernel": np.ones(2)}}, "gaussian", 5))
    assert vaejax.load(run).finished is None
    assert "whose own decoder draws" in capsys.readouterr().err
    with pytest.raises(UserError, match="name that checkpoint"):
        vaejax.load(run, decoder="finished")
    (run / "decoders" / "finished.npz").write_bytes(b"no zip")
    with pytest.raises(UserError, match="is damaged or no finished decoder"):
        vaejax.load(run)


def sums(*, sampled=0.5, spread=0.1, right=(50, 50, 50)):
    """Returns sums over 100 pictures; thumbnails have mean 0.5 and standard deviation 0.1."""
    value = np.ones(192, np.float32)
    moments = [0.5 * value, 0.26 * value, sampled * value, (sampled**2 + spread**2) * value]
    decoder = DecoderSums(*map(np.float32, (100, 400, 200, 70)), *(100 * m for m in moments))
    return decoder, DiscriminatorSums(*map(np.float32, (100, 140, *right)))


def test_metrics_are_means_over_pictures():
    found = summarize(*sums(sampled=0.6, spread=0.05, right=(90, 80, 70)))
    assert found["pixel_error"] == pytest.approx(4) and found["feature_distance"] == 2
    assert found["right_of_samples"] == pytest.approx(0.7)
    assert found["variety"] == pytest.approx(0.25, rel=1e-3)
    assert found["colour_drift"] == pytest.approx(25.5, rel=1e-3)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({}, None),
        ({"right": (100, 99, 99)}, "discriminator wins"),
        ({"spread": 0.05}, "mode loss: samples vary 25%"),
        ({"sampled": 0.56}, "colour drift: the mean colour of samples is 15 grey levels"),
    ],
)
def test_each_trouble_is_named_once(trouble, words):
    health, values = Health(), summarize(*sums(**trouble))
    said = health.training(100, values)
    assert (not said) if words is None else (len(said) == 1 and words in said[0])
    assert health.training(200, values) == []


@pytest.mark.parametrize("size", [(28, 20), (17, 16)])
def test_a_refiner_changes_nothing_before_training(size):
    refiner = Refiner(4, 1, jnp.dtype("float32"))
    pictures = jax.random.normal(jax.random.key(0), (2, *size, 3))
    params = refiner.init(jax.random.key(1), pictures)["params"]
    refined = refiner.apply({"params": params}, pictures)
    np.testing.assert_array_equal(refined, pictures)
    moved = jax.tree.map(lambda leaf: leaf + 0.1, params)
    assert np.all(np.any(refiner.apply({"params": moved}, pictures) != pictures, axis=(1, 2, 3)))


@pytest.mark.parametrize("config_of", [tiny, tiny_ladder])
def test_a_finish_begins_with_the_pictures_of_the_model(config_of):
    config = config_of()
    params = away_from_start(vae_task(config).model, config)
    task = FinishTask(config, params, None, {})
    keys, images = jax.random.split(jax.random.key(0), 2), pictures(config, 2)
    drawn = finished(task.init(jax.random.key(1)))
    own, other = (picture_model(config, finished=some) for some in (False, True))
    for function, inputs in (
        (functions.sample, (keys, 1.0)),
        (functions.decode, (functions.posterior(own[0], params, images)[0],)),
    ):
        expected = function(*own, params, *inputs)
        np.testing.assert_array_equal(function(*other, drawn, *inputs), expected)
