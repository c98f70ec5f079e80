"""Tests of data that changes during a run: the run finishes, a resume names the changes."""

import gzip
import shutil
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from tiny import least, tiny

from vaejax.data import open_dataset
from vaejax.errors import UserError
from vaejax.records import progress
from vaejax.runtime.processes import ALONE
from vaejax.stages.concluding import conclude
from vaejax.stages.plan import planned_stages
from vaejax.stages.sequence import train_in_turn
from vaejax.training.loop import Outcome, train
from vaejax.training.same_data import FILE, check_same_data, remember_names


def photographs(folder, numbers):
    folder.mkdir(exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"p{number:02d}.png")


@pytest.fixture
def photos(tmp_path):
    photographs(tmp_path / "photos", range(20))
    return tmp_path / "photos"


@contextmanager
def after_the_first_step(action):
    """Calls `action` once, after the first step of the training in this block."""
    advance, done = progress.Training.advance, []

    def acting(self, at):
        advance(self, at)
        if not done:
            done.append(at)
            action()

    with mock.patch.object(progress.Training, "advance", acting):
        yield


@pytest.mark.slow
def test_a_photograph_added_during_a_run_stops_only_the_next_start(photos, tmp_path):
    def config(steps):
        train = {"steps": steps, "eval_every": 3, "save_every": 3}
        return least(data={"source": "folder", "path": str(photos)}, train=train)

    run = tmp_path / "run"
    with after_the_first_step(lambda: photographs(photos, [77])):
        outcome, dataset = train_in_turn(planned_stages(config(3), run, ALONE))
    assert outcome is Outcome.FINISHED
    assert (photos / "p77.png").exists()
    conclude(run, dataset)
    assert (run / "samples.png").exists() and (run / "priors" / "gaussian.npz").exists()
    with pytest.raises(UserError) as error:
        train(config(6), run)
    assert str(error.value) == (
        f"the data is not what {run} was trained on: 21 pictures, 20 were trained on; new: "
        "p77.png; make the data what it was, or choose a new --workdir to train on what it is now"
    )
    (photos / "p77.png").unlink()
    assert train(config(6), run) is Outcome.FINISHED


def opened(photos):
    return open_dataset(tiny(data={"source": "folder", "path": str(photos)}).data, progress=False)


@pytest.fixture
def trained_on(photos, tmp_path):
    dataset = opened(photos)
    remember_names(tmp_path, dataset)
    check_same_data(tmp_path, dataset.fingerprint, dataset, "mend it")
    return dataset.fingerprint


def test_new_and_missing_pictures_are_named_up_to_five(photos, trained_on, tmp_path):
    (photos / "p03.png").unlink()
    photographs(photos, range(50, 58))
    with pytest.raises(UserError) as error:
        check_same_data(tmp_path, trained_on, opened(photos), "mend it")
    assert "27 pictures, 20 were trained on; new: p50.png" in str(error.value)
    assert "and 3 more; gone: p03.png; mend it" in str(error.value)


def test_other_pixels_under_the_same_names_are_refused(photos, trained_on, tmp_path):
    shutil.copy(photos / "p03.png", photos / "p04.png")
    with pytest.raises(UserError, match="splits differ; mend it"):
        check_same_data(tmp_path, trained_on, opened(photos), "mend it")


def test_a_run_of_version_0_1_is_compared_without_names_and_labels(photos, trained_on, tmp_path):
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
    "cut off": NAMES[:20],
    "overwritten": NAMES[:12] + b"junk",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_list_of_names_does_not_hide_the_message(photos, trained_on, tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    photographs(photos, [77])
    with pytest.raises(UserError, match="21 pictures, 20 were trained on; mend it"):
        check_same_data(tmp_path, trained_on, opened(photos), "mend it")
