"""Without TensorFlow, training works, and a `tfds:` source fails with what to install.

`.ci/without_tensorflow` runs these tests in a separate environment.
"""

import importlib.util
import pathlib

import pytest
from commands import command
from picture_trees import celeba_records, jpeg, write_celeba
from states import assert_same, final_state
from stopping import stopped_at
from tiny import CONFIG_FILE, metrics, tiny

if importlib.util.find_spec("tensorflow") is not None:
    pytest.skip("TensorFlow is installed", allow_module_level=True)

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
SHORT = [
    "--config.train.steps=40", "--config.train.eval_every=40", "--config.train.save_every=40",
    "--config.train.log_every=10", "--config.train.batch_size=16",
    "--config.model.widths=(8, 8)", "--config.model.blocks=(1, 1)", "--config.model.latent_size=4",
    "--config.eval.importance_samples=2", "--config.eval.grid=4", "--config.prior.fitted=()",
]  # fmt: skip


def trains(config, workdir, *flags):
    """Trains a preset; asserts that bits/dim fall and that stderr does not mention TensorFlow."""
    done = command("main", f"--config={CONFIGS / config}", f"--workdir={workdir}", *SHORT, *flags)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "TensorFlow" not in done.stderr
    bits = [line["elbo_bits_per_dim"] for line in metrics(workdir) if line["split"] == "train"]
    assert len(bits) == 4 and bits[-1] < bits[0]


def test_quickstart(tmp_path):
    trains("quickstart.py", tmp_path, "--config.data.synthetic_counts=(320, 32, 32)")


def test_folder(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(120):
        (photos / f"{number}.jpg").write_bytes(jpeg(number, 70 + number, 90))
    trains("folder.py", tmp_path / "run", f"--config.data.path={photos}")


def test_celeba(tmp_path):
    root = write_celeba(tmp_path / "celeba", celeba_records(120))
    trains("celeba.py", tmp_path / "run", f"--config.data.path={root}")


def test_stopped_and_gone_on_it_ends_as_if_it_never_stopped(tmp_path):
    flags = [f"--config={CONFIG_FILE}", "--config.prior.fitted=()"]
    torn, whole = (f"--workdir={tmp_path / name}" for name in ("torn", "whole"))
    stopped = stopped_at("first step done", "main", *flags, torn)
    assert stopped.returncode == 75, stopped.stderr
    for workdir in (torn, whole):
        done = command("main", *flags, workdir)
        assert done.returncode == 0, done.stderr
    assert_same(final_state(tmp_path / "whole", tiny()), final_state(tmp_path / "torn", tiny()))
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "torn")


@pytest.mark.parametrize("module", ["main", "prepare"])
def test_tfds_says_what_to_install(module, tmp_path):
    done = command(
        module, f"--config={CONFIG_FILE}", "--config.data.source=tfds:celeb_a",
        f"--config.data.path={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "needs TensorFlow and TensorFlow Datasets" in line
    assert "pip install 'vaejax[tfds]' with Python 3.13 or older" in line
