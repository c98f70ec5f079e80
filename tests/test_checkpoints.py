"""Checkpoints: restoring returns exactly what was saved, or reports the damage."""

import gc
import shutil
from contextlib import closing
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from commands import command
from tiny import CONFIG_FILE, metrics, tiny

import vaejax
from vaejax.errors import DamagedCheckpoint, UserError
from vaejax.records.checkpoints import Checkpoints
from vaejax.runtime import quiet
from vaejax.runtime.mesh import make_mesh
from vaejax.runtime.processes import ALONE
from vaejax.runtime.shards import state_shardings
from vaejax.trained import loading
from vaejax.training.loop import train
from vaejax.training.resuming import open_checkpoints

ITEMS = {
    "train": {"step": np.int32(3)},
    "model": {"layer": {"kernel": np.linspace(-1, 1, 60, dtype=np.float32).reshape(5, 12)}},
}
META = {"config": {"train": {"steps": 3}}, "evaluation_due": False}


def flip(path):
    """Flips one bit in the middle of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


DAMAGES = (flip, truncate, empty, remove)


@pytest.fixture(autouse=True)
def late_complaints(monkeypatch):
    """Hides the output of libraries during each test.

    When one read of a checkpoint fails, others may still run. On a busy machine they may fail only
    after the package has reported the error and shows the output of libraries again. So the package
    need not wait for them.
    """
    monkeypatch.setattr(quiet, "_SETTLING_SECONDS", 0.0)
    with quiet.quiet_libraries():
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoints")
    checkpoints = Checkpoints(directory)
    save(checkpoints, META)
    checkpoints.close()
    return directory


def save(checkpoints, meta, step=3, bits_per_dim=5.0):
    items = jax.tree.map(jnp.asarray, ITEMS)
    checkpoints.save(step, items, meta, {"elbo_bits_per_dim": bits_per_dim})


def read(directory, like=ITEMS):
    """Restores and verifies the only checkpoint; returns its items and metadata."""
    shardings = state_shardings(make_mesh(1, devices=jax.devices()[:1]), like)
    checkpoints = Checkpoints(directory, read_only=True)
    try:
        items = checkpoints.restore(3, like, shardings)
        checkpoints.verify(3, items)
        return items, checkpoints.meta(3)
    finally:
        checkpoints.close()


def test_what_is_saved_is_read(saved):
    items, meta = read(saved)
    jax.tree.map(np.testing.assert_array_equal, items, ITEMS)
    assert meta == META


def test_an_item_is_read_without_the_others(saved):
    items, _ = read(saved, {"model": ITEMS["model"]})
    assert list(items) == ["model"]
    jax.tree.map(np.testing.assert_array_equal, items["model"], ITEMS["model"])
    checkpoints = Checkpoints(saved, read_only=True)
    assert sorted(checkpoints.items(3)) == ["model", "train"]
    assert checkpoints.fits(3, "model", ITEMS["model"])
    assert not checkpoints.fits(3, "model", ITEMS["train"])
    assert not checkpoints.fits(3, "window", ITEMS["train"])
    checkpoints.close()


def test_a_validation_that_is_not_finite_is_never_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path, best_by="elbo_bits_per_dim", keep=1)
    for step, bits in enumerate((4.5, np.nan, 4.6, 4.7)):
        save(checkpoints, META, step, float(bits))
    checkpoints.wait()
    assert checkpoints.best_step() == 0 and checkpoints.steps() == [0, 3]
    checkpoints.close()


def test_a_state_of_other_names_is_not_called_damaged(saved):
    with pytest.raises(UserError, match="another version of vaejax") as raised:
        read(saved, {"model": {"renamed": ITEMS["model"]["layer"]}})
    assert not isinstance(raised.value, DamagedCheckpoint)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.slow
def test_no_damaged_file_gives_other_numbers(saved, tmp_path, damage):
    """Damages one file at a time: restoring must fail, or return exactly what was saved.

    Damage to some files has no effect, because they are copies or logs that are not read.
    """
    files = [path.relative_to(saved) for path in saved.rglob("*") if path.is_file()]
    refused = 0
    for number, name in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(saved, copy)
        # An empty file has no bit to flip and nothing to cut off.
        if damage is not remove and not (copy / name).stat().st_size:
            continue
        damage(copy / name)
        try:
            items, meta = read(copy)
        except DamagedCheckpoint as error:
            assert str(copy) in str(error)
            refused += 1
        else:
            jax.tree.map(np.testing.assert_array_equal, items, ITEMS)
            assert meta == META
    assert refused >= 3


def test_no_changed_bit_of_the_metadata_is_overlooked(saved, tmp_path):
    """The result may still be valid JSON, with another key or a value of another type."""
    run = shutil.copytree(saved, tmp_path / "run")
    file = run / "00000003" / "meta" / "metadata"
    content, items = file.read_bytes(), jax.tree.map(jnp.asarray, ITEMS)
    changed = [
        content[:at] + bytes([content[at] ^ 1 << at % 7]) + content[at + 1 :]
        for at in range(len(content))
    ]
    renamed = content.replace(b'"digests": {', b'"another": {')
    with closing(Checkpoints(run, read_only=True)) as checkpoints:
        for damaged in (*changed, b"[]", b"3", b'{"step": 3}', renamed):
            file.write_bytes(damaged)
            with pytest.raises(DamagedCheckpoint):
                checkpoints.meta(3)
                checkpoints.verify(3, items)
        file.write_bytes(content)
        assert checkpoints.meta(3) == META
        checkpoints.verify(3, items)


def largest(folder):
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )


def test_what_a_killed_save_left_is_no_checkpoint_and_goes_with_the_next_start(saved, tmp_path):
    checkpoints = shutil.copytree(saved, tmp_path / "checkpoints")
    left = checkpoints / f"00000005{ocp.utils.TMP_DIR_SUFFIX}" / "metrics" / "metrics"
    left.parent.mkdir(parents=True)
    empty(left)
    items, _ = read(checkpoints)
    jax.tree.map(np.testing.assert_array_equal, items, ITEMS)
    open_checkpoints(tmp_path, "elbo_bits_per_dim", 1, ALONE).close()
    assert [path.name for path in checkpoints.iterdir()] == ["00000003"]


def test_one_that_is_saved_again_is_never_missing(saved, tmp_path, monkeypatch):
    """If a save that replaces a checkpoint is interrupted, the next start restores the old one."""
    shutil.copytree(saved, tmp_path / "checkpoints")
    checkpoints = open_checkpoints(tmp_path, "elbo_bits_per_dim", 1, ALONE)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints._manager, "save", Mock(side_effect=KeyboardInterrupt))
        save(checkpoints, {"again": True})
    assert checkpoints.steps() == []
    checkpoints.close()
    checkpoints = open_checkpoints(tmp_path, "elbo_bits_per_dim", 1, ALONE)
    assert checkpoints.steps() == [3] and checkpoints.meta(3) == META
    save(checkpoints, {"again": True})
    checkpoints.wait()
    assert checkpoints.meta(3) == {"again": True}
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["00000003"]
    checkpoints.close()


@pytest.mark.parametrize("damage", [flip, remove])
def test_a_run_goes_on_from_the_one_before(trained, tmp_path, damage):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    damage(largest(tmp_path / "checkpoints" / "00000012"))
    done = command("main", f"--config={CONFIG_FILE}", f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "00000012 is damaged" in done.stderr and "training from step 8 to 12" in done.stderr
    assert (tmp_path / "damaged" / "00000012.0").is_dir()
    assert metrics(tmp_path) == metrics(trained)


def test_with_none_left_nothing_is_overwritten(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    for folder in (tmp_path / "checkpoints").glob("[0-9]*"):
        empty(largest(folder))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="choose another --workdir to begin anew"):
        train(tiny(), tmp_path)
    assert before == {path: path.read_bytes() for path in before}


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


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.slow
def test_no_damaged_file_loads_another_model(trained, tmp_path, damage):
    params = vaejax.load(trained, checkpoint=12).params
    refused = 0
    checkpoint = trained / "checkpoints" / "00000012"
    # Loading a model does not read the items `train` and `window`.
    files = [path for path in checkpoint.rglob("*") if path.is_file()
             and path.relative_to(checkpoint).parts[0] not in ("train", "window")]  # fmt: skip
    for file in files:
        run = shutil.copytree(trained, tmp_path / "run")
        damage(run / file.relative_to(trained))
        try:
            loaded = vaejax.load(run, checkpoint=12).params
        except UserError:
            refused += 1
        else:
            jax.tree.map(np.testing.assert_array_equal, loaded, params)
        shutil.rmtree(run)
    assert refused >= 3
