"""Without TensorFlow, training works, and a `tfds:` source fails with what to install.

`.ci/without_tensorflow` runs these tests in a separate environment.
"""

import importlib.util

import pytest
from commands import REPOSITORY, command
from picture_trees import jpeg
from states import assert_same, final_state
from stops import stopped_at
from tiny import CONFIG_FILE, LEAST, least, metrics

if importlib.util.find_spec("tensorflow") is not None:
    pytest.skip("TensorFlow is installed", allow_module_level=True)

SHORT = [
    "--config.train.steps=40", "--config.train.eval_every=40", "--config.train.save_every=40",
    "--config.train.log_every=10", "--config.train.batch_size=16",
    "--config.model.widths=(8, 8)", "--config.model.blocks=(1, 1)", "--config.model.latent_size=4",
    "--config.eval.importance_samples=2", "--config.eval.grid=4", "--config.prior.fitted=()",
]  # fmt: skip


def test_a_run_on_a_folder_of_pictures_does_not_mention_tensorflow(tmp_path):
    photos, workdir = tmp_path / "photos", tmp_path / "run"
    photos.mkdir()
    for number in range(120):
        (photos / f"{number}.jpg").write_bytes(jpeg(number, 70 + number, 90))
    flags = [f"--config={REPOSITORY / 'configs' / 'folder.py'}", f"--config.data.path={photos}"]
    done = command("main", *flags, f"--workdir={workdir}", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "TensorFlow" not in done.stderr
    bits = [line["elbo_bits_per_dim"] for line in metrics(workdir) if line["split"] == "train"]
    assert len(bits) == 4 and bits[-1] < bits[0]


def test_a_resumed_run_ends_like_an_uninterrupted_run(tmp_path):
    flags = [f"--config={CONFIG_FILE}", *LEAST, "--config.prior.fitted=()"]
    interrupted, uninterrupted = (tmp_path / "interrupted", tmp_path / "uninterrupted")
    stopped = stopped_at("first step done", "main", *flags, f"--workdir={interrupted}")
    assert stopped.returncode == 75, stopped.stderr
    for workdir in (interrupted, uninterrupted):
        done = command("main", *flags, f"--workdir={workdir}")
        assert done.returncode == 0, done.stderr
    assert_same(final_state(uninterrupted, least()), final_state(interrupted, least()))
    assert metrics(uninterrupted) == metrics(interrupted)


@pytest.mark.parametrize("module", ["main", "prepare"])
def test_a_tfds_source_fails_with_what_to_install(module, tmp_path):
    done = command(
        module, f"--config={CONFIG_FILE}", "--config.data.source=tfds:celeb_a",
        f"--config.data.path={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "needs TensorFlow and TensorFlow Datasets" in line
    assert "pip install 'vaejax[tfds]' with Python 3.13 or older" in line
