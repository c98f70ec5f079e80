"""Runs that are killed anywhere, or whose disk runs full, end as if nothing had been."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import jax
import numpy as np
import pytest
from states import final_state
from tiny import CONFIG_FILE, tiny

from benchmarks.attempts import small_disk
from benchmarks.same_run import Place, differences
from vaejax.checkpoints import Checkpoints
from vaejax.errors import UserError
from vaejax.training import train

REPOSITORY = pathlib.Path(__file__).parents[1]
CHANGES = ("steps=12", "log_every=3", "eval_every=6", "save_every=4")


def benchmark(*flags: str) -> subprocess.CompletedProcess:
    """Runs `python -m benchmarks.kills` with the tiny config."""
    changes = [f"--config.train.{change}" for change in CHANGES]
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.kills", f"--config={CONFIG_FILE}", *changes,
         "--config.data.synthetic_counts=(64, 24, 8)", *flags],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )  # fmt: skip


def may_mount() -> bool:
    """Whether this user may mount a small disk."""
    try:
        with tempfile.TemporaryDirectory() as top, small_disk(pathlib.Path(top, "disk"), 4096):
            return True
    except UserError:
        return False


def test_killed_in_any_phase_a_run_ends_the_same(tmp_path):
    out = tmp_path / "kills.json"
    result = benchmark("--kills=6", "--full_disks=0", f"--out={out}")
    assert result.returncode == 0, result.stderr
    rows = json.loads(out.read_text())["rows"]
    assert sum(row["kills"] for row in rows) == 6
    assert all(row["attempts that went on"] == row["kills"] for row in rows)
    assert not any(row["differences"] for row in rows)
    assert "has come to the same end" in result.stderr


@pytest.mark.skipif(not may_mount(), reason="this user may not mount a small disk")
def test_a_run_whose_disk_is_full_says_so_and_goes_on(tmp_path):
    out = tmp_path / "disks.json"
    result = benchmark("--kills=0", "--full_disks=1", f"--out={out}")
    assert result.returncode == 0, result.stderr
    (row,) = [row for row in json.loads(out.read_text())["rows"] if row["phase"] == "full disk"]
    assert (row["kills"], row["attempts that went on"], row["differences"]) == (1, 1, 0)


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> Place:
    """A run of four steps that was trained to its end."""
    top = tmp_path_factory.mktemp("ended")
    place = Place(top / "run", top / "cache", top / "programs")
    train(config(place), place.workdir)
    return place


def config(place: Place):
    settings = {"steps": 4, "eval_every": 4, "save_every": 4, "log_every": 2}
    return tiny(train=settings, data={"cache_dir": str(place.cache)})


@pytest.fixture
def copy(ended, tmp_path) -> Place:
    """Another run, with all that the first has left."""
    copied = Place(tmp_path / "run", tmp_path / "cache", tmp_path / "programs")
    shutil.copytree(ended.workdir, copied.workdir)
    shutil.copytree(ended.cache, copied.cache)
    return copied


def test_a_copy_differs_in_nothing_but_what_the_clock_decides(ended, copy):
    metrics = copy.workdir / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    for line in lines:
        line["images_per_second"] = 1.0
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (copy.workdir / "goodput.jsonl").write_text("")
    (copy.workdir / "tensorboard" / "events.of.another.start").touch()
    assert differences(ended, copy) == []


def test_every_file_is_compared(ended, copy):
    for name in ("pictures/samples_00000004.png", "config.json"):
        path = copy.workdir / name
        path.write_bytes(path.read_bytes() + b" ")
    metrics = copy.workdir / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("4", "5"))
    (copy.workdir / "trained_on.json.gz").unlink()
    (pictures,) = copy.cache.glob("*/train.npy")
    pictures.write_bytes(pictures.read_bytes()[:-1] + b"?")
    assert differences(ended, copy) == [
        "trained_on.json.gz is missing",
        f"cache/{pictures.relative_to(copy.cache)} differs",
        "config.json differs",
        "metrics.jsonl differs",
        "pictures/samples_00000004.png differs",
    ]


def test_what_was_left_over_is_found(ended, copy):
    (copy.workdir / "pictures" / ".samples_00000004.png.host.1").touch()
    (copy.workdir / "checkpoints" / "00000004.orbax-checkpoint-tmp").mkdir()
    (copy.cache / "0123.building").mkdir()
    assert differences(ended, copy) == [
        "cache/0123.building is left over",
        "checkpoints/00000004.orbax-checkpoint-tmp is left over",
        "pictures/.samples_00000004.png.host.1 is left over",
    ]


def test_the_last_bit_of_a_parameter_counts(ended, copy):
    state = final_state(copy.workdir, config(ended))
    leaves, structure = jax.tree.flatten(state.params)
    leaves[0] = np.nextafter(leaves[0], np.inf)
    changed = state.replace(params=jax.tree.unflatten(structure, leaves))
    checkpoints = Checkpoints(copy.workdir / "checkpoints")
    checkpoints.save(4, changed, checkpoints.meta(4), None)
    checkpoints.wait()  # until it has replaced the first
    checkpoints.close()
    (found,) = differences(ended, copy)
    assert found.startswith("state.params") and found.endswith("differs")


def test_a_damaged_checkpoint_is_a_difference(ended, copy):
    for path in (copy.workdir / "checkpoints" / "00000004" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    (found,) = differences(ended, copy)
    assert "is damaged" in found
