"""Checkpoints: what is restored equals what was saved, and an interrupted save loses nothing."""

import gc
import shutil
from contextlib import closing
from unittest.mock import Mock

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from small_checkpoints import BEST_BY, ITEMS, META, read, save
from states import assert_same

import vaejax
from vaejax.errors import DamagedCheckpoint, UserError
from vaejax.records.checkpoints import Checkpoints
from vaejax.records.ranking import Ranking
from vaejax.runtime.processes import ALONE
from vaejax.trained import loading
from vaejax.training.resuming import open_checkpoints


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoints")
    with closing(Checkpoints(directory)) as checkpoints:
        save(checkpoints)
    return directory


def test_a_restored_checkpoint_equals_what_was_saved(saved):
    items, meta = read(saved)
    assert_same(items, ITEMS)
    assert meta == META


def test_an_item_is_read_without_the_others(saved):
    items, _ = read(saved, {"model": ITEMS["model"]})
    assert list(items) == ["model"]
    assert_same(items["model"], ITEMS["model"])
    with closing(Checkpoints(saved, read_only=True)) as checkpoints:
        assert sorted(checkpoints.items(3)) == ["model", "train"]
        assert checkpoints.fits(3, "model", ITEMS["model"])
        assert not checkpoints.fits(3, "model", ITEMS["train"])
        assert not checkpoints.fits(3, "window", ITEMS["train"])


def test_a_checkpoint_whose_validation_is_not_finite_is_never_the_best(tmp_path):
    with closing(Checkpoints(tmp_path, best_by=BEST_BY, keep=1)) as checkpoints:
        for step, bits in enumerate((4.5, np.nan, 4.6, 4.7)):
            save(checkpoints, META, step, float(bits))
        checkpoints.wait()
        assert checkpoints.best_step() == 0 and checkpoints.steps() == [0, 3]


def test_the_best_may_be_the_highest_and_was_measured(tmp_path):
    ranking = Ranking("precision", highest=True)
    with closing(Checkpoints(tmp_path, best_by=ranking, keep=1)) as checkpoints:
        for step, found in enumerate(({"precision": 0.4}, {"precision": 0.7}, {}, {"psnr": 20.0})):
            checkpoints.save(step, ITEMS, META, found)
        checkpoints.wait()
        assert checkpoints.best_step() == 1 and checkpoints.steps() == [1, 3]
    with closing(Checkpoints(tmp_path, best_by=ranking, read_only=True)) as checkpoints:
        assert checkpoints.best_step() == 1


def test_a_state_with_other_names_is_not_called_damaged(saved):
    with pytest.raises(UserError, match="another version of vaejax") as raised:
        read(saved, {"model": {"renamed": ITEMS["model"]["layer"]}})
    assert not isinstance(raised.value, DamagedCheckpoint)


def test_a_killed_save_leaves_no_checkpoint_and_the_next_start_removes_it(saved, tmp_path):
    checkpoints = shutil.copytree(saved, tmp_path / "checkpoints")
    unfinished = checkpoints / f"00000005{ocp.utils.TMP_DIR_SUFFIX}" / "metrics" / "metrics"
    unfinished.parent.mkdir(parents=True)
    unfinished.write_bytes(b"")
    items, _ = read(checkpoints)
    assert_same(items, ITEMS)
    open_checkpoints(tmp_path, BEST_BY, 1, ALONE).close()
    assert [path.name for path in checkpoints.iterdir()] == ["00000003"]


def test_an_interrupted_replacement_leaves_the_old_checkpoint(saved, tmp_path, monkeypatch):
    """If a save that replaces a checkpoint is interrupted, the next start restores the old one."""
    shutil.copytree(saved, tmp_path / "checkpoints")
    with closing(open_checkpoints(tmp_path, BEST_BY, 1, ALONE)) as checkpoints:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(checkpoints._manager, "save", Mock(side_effect=KeyboardInterrupt))
            save(checkpoints, {"again": True})
        assert checkpoints.steps() == []
    with closing(open_checkpoints(tmp_path, BEST_BY, 1, ALONE)) as checkpoints:
        assert checkpoints.steps() == [3] and checkpoints.meta(3) == META
        save(checkpoints, {"again": True})
        checkpoints.wait()
        assert checkpoints.meta(3) == {"again": True}
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["00000003"]


def test_a_model_is_loaded_without_the_rest_of_its_state(trained, monkeypatch):
    """Loading must not fill device memory with more than one copy of the parameters.

    A training state holds four: the parameters, their average, and two moments of the optimizer.
    """
    gc.collect()
    before = sum(array.nbytes for array in jax.live_arrays())
    held = []
    reader = loading.restore_averages

    def measured(*inputs):
        found = reader(*inputs)
        gc.collect()
        held.append(sum(array.nbytes for array in jax.live_arrays()) - before)
        return found

    monkeypatch.setattr(loading, "restore_averages", measured)
    model = vaejax.load(trained)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
    assert held[0] < 1.1 * size
