"""The commands as a user runs them: real processes, real mistakes, real signals."""

import json
import random
import shutil
import signal
from subprocess import TimeoutExpired

import numpy as np
import pytest
from PIL import Image
from states import assert_same, final_state
from tiny import CONFIG_FILE, command, metrics, start, tiny

import vaejax
from vaejax.errors import UserError
from vaejax.workdir import claim

CONFIG = f"--config={CONFIG_FILE}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run trained by the command, to its end."""
    workdir = tmp_path_factory.mktemp("runs") / "trained"
    result = command("main", CONFIG, f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    assert f"new faces: {workdir / 'samples.png'}" in result.stderr
    assert "Traceback" not in result.stderr
    return workdir


def test_the_trained_model_is_usable_from_python(trained):
    model = vaejax.load(trained)
    faces = model.sample(12, seed=3)
    assert faces.shape == (12, 28, 28, 3) and faces.dtype == np.uint8
    np.testing.assert_array_equal(faces, model.sample(12, seed=3))
    assert np.any(faces != model.sample(12, seed=4))
    mean, std = model.encode(faces)
    assert mean.shape == std.shape == (12, 6) and np.all(std > 0)
    np.testing.assert_array_equal(model.decode(mean), model.reconstruct(faces))
    # A picture's noise is its own, whatever batch it is in.
    bound = model.log_likelihood(faces, samples=2)
    np.testing.assert_allclose(model.log_likelihood(faces[:5], samples=2), bound[:5], rtol=1e-5)
    twins = model.log_likelihood(np.repeat(faces[:1], 12, axis=0), samples=1)
    assert len(np.unique(twins)) == 12
    bounds = [model.log_likelihood(faces, samples=k).mean() for k in (1, 16)]
    assert bounds[0] < bounds[1] < 0
    assert model.sample(3, prior="gaussian").shape == (3, 28, 28, 3)
    with pytest.raises(UserError, match=r"shapes \(12, 5\); this model takes \(batch, 6\)"):
        model.decode(mean[:, 1:])


def test_sample_writes_a_grid_or_files(trained, tmp_path):
    result = command("sample", f"--workdir={trained}", "--count=9", f"--out={tmp_path / 'g.png'}")
    assert result.returncode == 0, result.stderr
    assert picture(tmp_path / "g.png").shape == (*(3 * (84 + 2) + 2,) * 2, 3)
    result = command(
        "sample", f"--workdir={trained}", "--count=3", "--separate", f"--out={tmp_path / 'faces'}",
        "--prior=gaussian", "--temperature=0.8", "--seed=5",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    files = sorted((tmp_path / "faces").iterdir())
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    expected = vaejax.load(trained).sample(3, prior="gaussian", temperature=0.8, seed=5)
    np.testing.assert_array_equal(np.stack([picture(file) for file in files]), expected)


def test_sample_writes_the_format_and_the_place_that_are_named(trained, tmp_path):
    for out, written, kind in (
        ("faces.jpg", "faces.jpg", "JPEG"),
        ("faces.WEBP", "faces.WEBP", "WEBP"),
        ("new/dir/", "new/dir/samples.png", "PNG"),
    ):
        result = command("sample", f"--workdir={trained}", "--count=4", f"--out={tmp_path}/{out}")
        assert result.returncode == 0, result.stderr
        with Image.open(tmp_path / written) as image:
            assert image.format == kind


def test_separate_faces_of_two_seeds_are_never_mixed(trained, tmp_path):
    flags = (f"--workdir={trained}", "--separate", f"--out={tmp_path / 'faces'}")
    assert command("sample", *flags, "--count=3").returncode == 0
    before = [picture(file) for file in sorted((tmp_path / "faces").iterdir())]
    assert_one_line(command("sample", *flags, "--count=2", "--seed=1"), "seeds would be mixed")
    after = [picture(file) for file in sorted((tmp_path / "faces").iterdir())]
    np.testing.assert_array_equal(before, after)


def test_figures_that_cannot_be_kept_are_printed_all_the_same(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(run / "evaluations", ignore_errors=True)
    (run / "evaluations").write_text("in the way")
    result = command("evaluate", f"--workdir={run}")
    assert_one_line(result, "cannot be written")
    lines = result.stderr.splitlines()
    assert lines[0].startswith("the figures will be printed and not kept")
    assert any(line.startswith("elbo_bits_per_dim ") for line in lines)


def test_whoever_uses_a_model_is_told_of_flags_that_there_are(trained, tmp_path):
    """The run's own cache is gone for good, and a file lies in its place."""
    flags = (f"--workdir={tmp_path / 'run'}", f"--config.data.cache_dir={tmp_path / 'cache'}")
    assert command("main", CONFIG, *flags).returncode == 0
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("in the way")
    for module, *more in (("evaluate",), ("fit", "--prior=gaussian")):
        result = command(module, flags[0], *more)
        assert_one_line(result, f"--cache_dir='{tmp_path / 'cache'}' cannot be")
        assert "config." not in result.stderr.splitlines()[-1]
        result = command(module, flags[0], *more, f"--cache_dir={tmp_path / 'other'}")
        assert result.returncode == 0, result.stderr


def test_a_prior_of_another_run_is_not_taken_for_this_ones(trained, tmp_path):
    """Both were fitted at the same step, which alone tells nothing."""
    other = tmp_path / "other"
    result = command("main", CONFIG, f"--workdir={other}", "--config.train.seed=9")
    assert result.returncode == 0, result.stderr
    vaejax.load(other).sample(1, prior="gaussian")
    shutil.copy(trained / "priors" / "gaussian.npz", other / "priors" / "gaussian.npz")
    with pytest.raises(UserError, match=r"of another model.*run python -m vaejax\.fit"):
        vaejax.load(other).sample(1, prior="gaussian")


def test_a_platform_that_is_not_here_is_one_line(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    for module, flags in (
        ("main", [CONFIG, f"--workdir={tmp_path / 'run'}"]),
        ("sample", [f"--workdir={trained}", f"--out={tmp_path / 'x.png'}"]),
    ):
        assert_one_line(command(module, *flags), "JAX_PLATFORMS=cuda finds no device")


def test_too_few_pictures_for_a_prior_are_told_before_training(tmp_path):
    result = command(
        "main", CONFIG, f"--workdir={tmp_path / 'run'}", "--config.data.synthetic_counts=1,0,0"
    )
    assert_one_line(result, "at least 2 training pictures, and there is 1")
    assert "training from" not in result.stderr
    assert not (tmp_path / "run" / "config.json").exists()


def test_under_the_compiler_flags_of_users_a_run_resumes_exactly(tmp_path, monkeypatch):
    """The other tests compile with most optimisations off, for speed."""
    for name in ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    changes = ("--config.train.steps=100", "--config.train.eval_every=100")
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert command("main", CONFIG, f"--workdir={whole}", *changes).returncode == 0
    process = start("main", CONFIG, f"--workdir={torn}", *changes)
    assert _wait_for(process, "first step done")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == 75
    assert command("main", CONFIG, f"--workdir={torn}", *changes).returncode == 0
    config = tiny(train={"steps": 100, "eval_every": 100})
    assert_same(final_state(whole, config), final_state(torn, config))
    assert metrics(whole) == metrics(torn)


def test_the_tpu_compiler_does_not_complain_where_no_tpu_is(trained, tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    result = command("sample", f"--workdir={trained}", f"--out={tmp_path / 'g.png'}")
    assert result.returncode == 0, result.stderr
    assert "TPU" not in result.stderr


def test_evaluate_writes_numbers_with_their_protocol(trained):
    """The same, however many devices share the pictures."""
    result = command("evaluate", f"--workdir={trained}", devices=2)
    assert result.returncode == 0, result.stderr
    report = json.loads((trained / "evaluations" / "valid_model_k4_00000012.json").read_text())
    results, protocol = report["results"], report["protocol"]
    assert results["pictures"] == 24
    assert results["importance_bits_per_dim"] <= results["elbo_bits_per_dim"]
    assert protocol["importance_samples"] == 4 and protocol["prior"] == "model"
    assert protocol["split"] == "valid" and protocol["crop"] == "none"
    assert protocol["checkpoint_step"] == 12
    at_the_end = [line for line in metrics(trained) if line["split"] == "valid"][-1]
    np.testing.assert_allclose(results["elbo_nats"], at_the_end["elbo_nats"], rtol=1e-5)
    fitted = command("evaluate", f"--workdir={trained}", "--prior=gaussian", "--split=test")
    assert fitted.returncode == 0, fitted.stderr
    report = json.loads((trained / "evaluations" / "test_gaussian_k4_00000012.json").read_text())
    assert report["results"]["pictures"] == 8 and report["protocol"]["prior"] == "gaussian"


def test_sampling_needs_no_data_and_survives_a_move(trained, tmp_path):
    moved = shutil.copytree(trained, tmp_path / "moved")
    np.testing.assert_array_equal(vaejax.load(moved).sample(2), vaejax.load(trained).sample(2))


def test_fit_adds_a_prior(trained):
    result = command("fit", f"--workdir={trained}", "--prior=mixture")
    assert result.returncode == 0, result.stderr
    assert vaejax.load(trained).sample(2, prior="mixture").shape == (2, 28, 28, 3)


def test_prepare_says_what_there_is(tmp_path):
    preview = tmp_path / "preview.png"
    result = command("prepare", CONFIG, f"--preview={preview}")
    assert result.returncode == 0, result.stderr
    assert "train: 64 pictures (28, 28, 3)" in result.stderr
    assert picture(preview).std() > 10


def test_an_interrupted_run_says_so_and_goes_on(trained, tmp_path):
    flags = (CONFIG, f"--workdir={tmp_path}")
    for number in (signal.SIGTERM, signal.SIGINT):
        process = start("main", *flags)
        _wait_for(process, "training from step")
        process.send_signal(number)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 75, err
        assert "run the same command to go on" in err
    assert command("main", *flags).returncode == 0
    assert_same(final_state(trained, tiny()), final_state(tmp_path, tiny()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["preparing", "prior flow_matching"])
def test_a_signal_before_or_after_training_ends_at_once(number, moment, trained, tmp_path):
    flags = [CONFIG, f"--workdir={tmp_path / 'run'}"]
    if moment == "preparing":
        flags += ["--config.data.synthetic_counts=(200000, 24, 8)"]
        flags += [f"--config.data.cache_dir={tmp_path / 'cache'}"]
    else:
        shutil.copytree(trained, tmp_path / "run")
        shutil.rmtree(tmp_path / "run" / "priors")
        flags += ["--config.prior.fitted=('flow_matching',)"]
    process = start("main", *flags)
    assert _wait_for(process, moment)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "run the same command to go on" in err and "Traceback" not in err


def test_two_processes_cannot_train_in_one_place(tmp_path):
    with claim(tmp_path, tiny()):
        assert_one_line(
            command("main", CONFIG, f"--workdir={tmp_path}"), "another process is training"
        )


def test_killed_at_random_it_ends_as_if_it_never_was(tmp_path):
    """`kill -9` at random moments after training began; nothing but time may be lost."""
    changes = ("--config.train.steps=240", "--config.train.eval_every=60",
               "--config.train.save_every=20", "--config.train.log_every=10")  # fmt: skip
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert command("main", CONFIG, f"--workdir={whole}", *changes).returncode == 0
    rng, kills = random.Random(0), 0
    while kills < 3:
        process = start("main", CONFIG, f"--workdir={torn}", *changes)
        if _wait_for(process, "first step done"):
            try:
                process.communicate(timeout=rng.uniform(0.0, 2.0))
            except TimeoutExpired:
                kills += 1
        process.kill()
        process.communicate()
        if process.returncode == 0:
            break  # it ended between two kills: what is left to tear is nothing
    assert kills >= 2, "the run was too short to be torn"
    assert command("main", CONFIG, f"--workdir={torn}", *changes).returncode == 0
    config = tiny(train={"steps": 240, "eval_every": 60, "save_every": 20, "log_every": 10})
    assert_same(final_state(whole, config), final_state(torn, config))
    assert metrics(whole) == metrics(torn)


MISTAKES = {
    "no config": ([], "--config is missing"),
    "missing file": (["--config=configs/nothing.py"], "configs/nothing.py"),
    "unknown flag": ([CONFIG, "--wrokdir=x"], "wrokdir"),
    "bare word": ([CONFIG, "workdir=x"], "'workdir=x' is not a flag"),
    "unknown key": ([CONFIG, "--config.train.batchsize=4"], "config.train.batch_size?"),
    "unknown section": ([CONFIG, "--config.trian.steps=4"], "did you mean config.train.steps?"),
    "not a number": ([CONFIG, "--config.train.steps=ten"], "ten"),
    "wrong choice": ([CONFIG, "--config.data.crop=nvae149"], "did you mean nvae148?"),
    "no path": ([CONFIG, "--config.data.source=folder"], "config.data.path"),
    "path is not there": (
        [CONFIG, "--config.data.source=folder", "--config.data.path=/nowhere"], "/nowhere",
    ),
    "workdir is a file": ([CONFIG, "--workdir={tmp}/text.npy"], "text.npy"),
    "no workdir": ([CONFIG, "--workdir="], "--workdir= is empty"),
    "a path for procedural faces": ([CONFIG, "--config.data.path=x"], "is not read by"),
    "another run's workdir": ([CONFIG, "--workdir={trained}", "--config.train.seed=9"], "0 -> 9"),
    "batch and devices": ([CONFIG, "--config.train.batch_size=9"], "a multiple of 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_clear_line(name, trained, tmp_path):
    flags, said = MISTAKES[name]
    (tmp_path / "text.npy").write_text("no array")
    places = {"tmp": tmp_path, "trained": trained}
    flags = [flag.format(**places) for flag in flags]
    if not any("workdir=" in flag for flag in flags):
        flags.append(f"--workdir={tmp_path / 'run'}")
    assert_one_line(command("main", *flags, devices=2), said.format(**places))


OTHER_MISTAKES = {
    "sample without a run": ("sample", ["--workdir={tmp}"], "holds no run"),
    "sample without a workdir": ("sample", [], "--workdir is missing"),
    "unknown prior": ("sample", ["--workdir={trained}", "--prior=gausian"], "is none of model"),
    "empty workdir": ("sample", ["--workdir="], "--workdir= is empty"),
    "empty data path": ("evaluate", ["--workdir={trained}", "--data_path="], "--data_path= is"),
    "a WebP too large": (
        "sample",
        ["--workdir={trained}", "--count=40000", "--out={tmp}/x.webp"],
        "takes 16383 a side",
    ),
    "more than memory": (
        "sample",
        ["--workdir={trained}", "--prior=gaussian", "--count=1000000000000"],
        "GB of memory",
    ),
    "prior not fitted": ("sample", ["--workdir={trained}", "--prior=flow_matching"], "vaejax.fit"),
    "no such checkpoint": ("sample", ["--workdir={trained}", "--checkpoint=7"], "best, latest"),
    "no faces": ("sample", ["--workdir={trained}", "--count=0"], "count"),
    "negative temperature": ("sample", ["--workdir={trained}", "--temperature=-1"], "temperature"),
    "no temperature": ("sample", ["--workdir={trained}", "--temperature="], "name one"),
    "unknown split": ("evaluate", ["--workdir={trained}", "--split=val"], "valid"),
    "unknown prior to fit": ("fit", ["--workdir={trained}", "--prior=vamp"], "gaussian"),
    "config torn": ("sample", ["--workdir={tmp}/torn"], "config.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_MISTAKES)
def test_a_mistake_after_training_gets_one_clear_line(name, trained, tmp_path):
    module, flags, said = OTHER_MISTAKES[name]
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_text('{"data": ')
    flags = [flag.format(tmp=tmp_path, trained=trained) for flag in flags]
    assert_one_line(command(module, *flags), said)


def assert_one_line(result, said):
    assert result.returncode == 2, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and said in errors[0], result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1] == errors[0]


@pytest.mark.parametrize("module", ["main", "sample", "evaluate", "fit", "prepare"])
def test_help_is_there(module):
    result = command(module, "--help")
    assert result.returncode in (0, 1)  # absl's own status for --help
    assert "--workdir" in result.stdout or "--config" in result.stdout


def picture(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def _wait_for(process, words: str) -> bool:
    """Reads the process's words until `words` come; False if it ended without them."""
    return any(words in line for line in process.stderr)
