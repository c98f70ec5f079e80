"""Tests of data that changes during a run: the run finishes, a resume names the changes."""

import gzip
import shutil

import numpy as np
import pytest
from commands import command, start
from PIL import Image
from tiny import CONFIG_FILE, LEAST, tiny

from vaejax.data import open_dataset
from vaejax.errors import UserError
from vaejax.training.same_data import FILE, check_same_data, remember_names

pytestmark = pytest.mark.slow

CONFIG = f"--config={CONFIG_FILE}"


def photographs(folder, numbers):
    folder.mkdir(exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"p{number:02d}.png")


@pytest.fixture
def photos(tmp_path):
    photographs(tmp_path / "photos", range(20))
    return tmp_path / "photos"


def flags(photos, workdir, **train):
    train = {"eval_every": 120, "save_every": 120, **train}
    changes = [f"--config.train.{key}={value}" for key, value in train.items()]
    return [
        CONFIG, *LEAST, "--config.data.source=folder", f"--config.data.path={photos}",
        f"--workdir={workdir}", *changes,
    ]  # fmt: skip


def test_a_photograph_that_arrives_meanwhile_does_not_matter_until_the_run_goes_on(
    photos, tmp_path
):
    run = tmp_path / "run"
    process = start("main", *flags(photos, run, steps=240))
    assert any("first step done" in line for line in process.stderr)
    photographs(photos, [77])
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert (run / "samples.png").exists() and (run / "priors" / "gaussian.npz").exists()
    assert command("sample", f"--workdir={run}", "--count=2").returncode == 0
    result = command("main", *flags(photos, run, steps=300))
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        f"error: the data is not what {run} was trained on: 21 pictures, 20 were trained on; new: "
        "p77.png; make the data what it was, or choose a new --workdir to train on what it is now"
    )
    (photos / "p77.png").unlink()
    assert command("main", *flags(photos, run, steps=300)).returncode == 0


def opened(photos):
    return open_dataset(tiny(data={"source": "folder", "path": str(photos)}).data, progress=False)


@pytest.fixture
def trained_on(photos, tmp_path):
    dataset = opened(photos)
    remember_names(tmp_path, dataset)
    check_same_data(tmp_path, dataset.fingerprint, dataset, "mend it")
    return dataset.fingerprint


def test_what_is_gone_is_named_and_much_is_counted(photos, trained_on, tmp_path):
    (photos / "p03.png").unlink()
    photographs(photos, range(50, 58))
    with pytest.raises(UserError) as error:
        check_same_data(tmp_path, trained_on, opened(photos), "mend it")
    assert "27 pictures, 20 were trained on; new: p50.png" in str(error.value)
    assert "and 3 more; gone: p03.png; mend it" in str(error.value)


def test_other_pixels_under_the_same_names_are_noticed(photos, trained_on, tmp_path):
    shutil.copy(photos / "p03.png", photos / "p04.png")
    with pytest.raises(UserError, match="splits differ; mend it"):
        check_same_data(tmp_path, trained_on, opened(photos), "mend it")


def test_a_run_of_before_that_kept_no_names_and_no_labels_is_compared_as_far_as_it_goes(
    photos, trained_on, tmp_path
):
    old = {key: value for key, value in trained_on.items() if key != "labels"}
    old["splits"] = {
        name: {key: value for key, value in split.items() if key != "labels"}
        for name, split in old["splits"].items()
    }
    check_same_data(tmp_path / "elsewhere", old, opened(photos), "mend it")
    photographs(photos, [77])
    with pytest.raises(UserError, match="21 pictures, 20 were trained on; mend it"):
        check_same_data(tmp_path / "elsewhere", old, opened(photos), "mend it")


NAMES = gzip.compress(b'{"train": [1, 2]}', mtime=0)
DAMAGED = {
    "empty": b"",
    "junk": b"junk",
    "of another kind": NAMES,
    "torn": NAMES[:20],
    "overwritten": NAMES[:12] + b"junk",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_list_of_names_stops_no_message(photos, trained_on, tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    photographs(photos, [77])
    with pytest.raises(UserError, match="21 pictures, 20 were trained on; mend it"):
        check_same_data(tmp_path, trained_on, opened(photos), "mend it")
