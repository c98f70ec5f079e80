"""Damaged checkpoints are reported, and give neither other arrays nor another model."""

import gc
import json
import shutil
from contextlib import closing

import jax
import jax.numpy as jnp
import pytest
from commands import command
from small_checkpoints import BEST_BY, ITEMS, META, STEP, read, save
from states import assert_same
from tiny import CONFIG_FILE, metrics, tiny

import vaejax
from vaejax.data import Dataset
from vaejax.errors import DamagedCheckpoint, UserError
from vaejax.records.checkpoints import Checkpoints
from vaejax.runtime import quiet
from vaejax.runtime.mesh import make_mesh, replicated, single_device_mesh
from vaejax.runtime.processes import ALONE
from vaejax.runtime.shards import state_shardings
from vaejax.tasks.vae import NET, vae_task
from vaejax.training.loop import train
from vaejax.training.resuming import open_checkpoints, restore_newest
from vaejax.training.saved_state import restore_averages
from vaejax.training.state import shapes


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


def change_digest(checkpoint):
    """Changes the digest of an item in the metadata: all files can be read, the arrays differ."""
    path = checkpoint / "meta" / "metadata"
    meta = json.loads(path.read_bytes())
    meta["digests"]["train"] ^= 1
    path.write_text(json.dumps(meta))


def remove_largest(checkpoint):
    remove(largest(checkpoint))


def largest(folder):
    return max(files_in(folder), key=lambda path: path.stat().st_size)


def files_in(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(autouse=True, scope="module")
def cheap_collections():
    """Makes the garbage collection after each failed read ignore all objects that exist by now."""
    gc.collect()
    gc.freeze()


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
    with closing(Checkpoints(directory)) as checkpoints:
        save(checkpoints)
    return directory


def count_refusals(files, damage, load, assert_unchanged):
    """Damages one file after the other, and mends it again.

    Each time `load` must raise DamagedCheckpoint, or `assert_unchanged` accepts what it returns:
    some files are copies or logs that are not read. Returns how often `load` raised.
    """
    refused = 0
    for file in files:
        content = file.read_bytes()
        # An empty file has no bit to flip and nothing to cut off.
        if damage is not remove and not content:
            continue
        damage(file)
        try:
            found = load()
        except DamagedCheckpoint as error:
            assert "is damaged" in str(error) and "\n" not in str(error)
            refused += 1
        else:
            assert_unchanged(found)
        file.write_bytes(content)
    return refused


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, truncate, empty, remove])
def test_no_damaged_file_gives_other_arrays(saved, tmp_path, damage):
    def assert_unchanged(found):
        assert_same(found[0], ITEMS)
        assert found[1] == META

    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    assert count_refusals(files_in(folder), damage, lambda: read(folder), assert_unchanged) >= 3


def test_no_changed_bit_of_the_metadata_is_overlooked(saved, tmp_path):
    """The result may still be valid JSON, with another key or a value of another type."""
    run = shutil.copytree(saved, tmp_path / "run")
    file = run / f"{STEP:08d}" / "meta" / "metadata"
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
                checkpoints.meta(STEP)
                checkpoints.verify(STEP, items)
        file.write_bytes(content)
        assert checkpoints.meta(STEP) == META
        checkpoints.verify(STEP, items)


def test_a_run_whose_newest_checkpoint_is_damaged_continues_from_the_one_before(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    flip(largest(tmp_path / "checkpoints" / "00000012"))
    result = command("main", f"--config={CONFIG_FILE}", f"--workdir={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert "00000012 is damaged" in result.stderr
    assert "training from step 8 to 12" in result.stderr
    assert (tmp_path / "damaged" / "00000012.0").is_dir()
    assert metrics(tmp_path) == metrics(trained)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(change_digest, "its train is not what was saved"), (remove_largest, "")],
)
def test_the_newest_checkpoint_without_damage_is_restored(
    trained, tmp_path, capsys, damage, reason
):
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    damage(tmp_path / "checkpoints" / "00000012")
    config = tiny()
    like = shapes(vae_task(config))
    with closing(open_checkpoints(tmp_path, BEST_BY, 1, ALONE)) as checkpoints:
        (state, _), meta = restore_newest(
            checkpoints,
            like,
            state_shardings(make_mesh(config.train.batch_size), like),
            config=config,
            builds_on={},
            dataset=Dataset({}, checkpoints.meta(8)["data"], {}),
            workdir=tmp_path,
            group=ALONE,
        )
        assert checkpoints.steps() == [8] and meta == checkpoints.meta(8)
    assert state.step == 8
    assert f"00000012 is damaged ({reason}" in capsys.readouterr().err
    assert (tmp_path / "damaged" / "00000012.0").is_dir()


def test_a_run_without_an_undamaged_checkpoint_changes_no_file(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    for folder in (tmp_path / "checkpoints").glob("[0-9]*"):
        empty(largest(folder))
    before = {path: path.read_bytes() for path in files_in(tmp_path)}
    with pytest.raises(UserError, match="choose another --workdir to begin anew"):
        train(tiny(), tmp_path)
    assert before == {path: path.read_bytes() for path in before}


def test_loading_a_damaged_checkpoint_names_the_others(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    empty(largest(tmp_path / "checkpoints" / "00000012" / "model"))
    with pytest.raises(DamagedCheckpoint, match=r"00000012 is damaged .*checkpoint: 8$"):
        vaejax.load(tmp_path, checkpoint=12)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, remove])
def test_no_damaged_file_loads_another_model(trained, tmp_path, damage):
    wanted = vaejax.load(trained, checkpoint=12).params
    directory = shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    checkpoint = directory / "00000012"
    like, place = shapes(vae_task(tiny())), replicated(single_device_mesh())

    def load():
        with closing(Checkpoints(directory, best_by=BEST_BY, read_only=True)) as checkpoints:
            return restore_averages(checkpoints, 12, like, place)[NET]

    # Loading a model does not read the items `train` and `window`.
    files = [file for file in files_in(checkpoint)
             if file.relative_to(checkpoint).parts[0] not in ("train", "window")]  # fmt: skip
    refused = count_refusals(files, damage, load, lambda found: assert_same(found, wanted))
    assert refused >= 3
