"""Tests that kills and full disks do not change a run's result, and the comparison of runs."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import jax
import numpy as np
import pytest
from commands import command, without_tensorflow
from states import final_state
from tiny import CONFIG_FILE, LEAST, tiny

from benchmarks.attempts import why_no_mount
from benchmarks.same_run import Place, differences
from vaejax.records.checkpoints import Checkpoints
from vaejax.tasks.vae import NET
from vaejax.training.saved_state import to_items
from vaejax.training.state import Carry

pytestmark = pytest.mark.slow

REPOSITORY = pathlib.Path(__file__).parents[1]
CHANGES = ("steps=12", "log_every=3", "eval_every=6", "save_every=4")


with tempfile.TemporaryDirectory() as directory:
    NO_MOUNT = why_no_mount(pathlib.Path(directory))


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[str, dict]:
    """Runs `python -m benchmarks.kills` and returns the rows of its table, by phase."""
    out = tmp_path_factory.mktemp("kills") / "kills.json"
    changes = [f"--config.train.{change}" for change in CHANGES]
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.kills", f"--config={CONFIG_FILE}", *LEAST, *changes,
         "--config.data.synthetic_counts=(64, 24, 8)", "--kills=6",
         f"--full_disks={int(not NO_MOUNT)}", f"--out={out}"],
        cwd=REPOSITORY,
        env={**os.environ, **without_tensorflow()},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return {row["phase"]: row for row in json.loads(out.read_text())["rows"]}


def test_killed_in_any_phase_a_run_ends_the_same(rows):
    torn = [row for phase, row in rows.items() if "disk" not in phase]
    assert sum(row["kills"] for row in torn) == 6
    assert all(row["attempts that went on"] == row["kills"] for row in torn)
    assert not any(row["differences"] for row in torn)


@pytest.mark.skipif(bool(NO_MOUNT), reason=NO_MOUNT)
def test_a_run_whose_disk_is_full_says_so_and_goes_on(rows):
    disk = rows["full disk"]
    assert (disk["kills"], disk["attempts that went on"], disk["differences"]) == (1, 1, 0)


COMPILE = """
import jax, jax.numpy as jnp
from vaejax.runtime.program_cache import keep_compiled_programs
keep_compiled_programs()
print(jax.jit(jnp.sin)(1.0))
"""


def test_a_torn_compiled_program_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    sizes = []
    for _ in range(2):
        line = [sys.executable, "-c", COMPILE]
        result = subprocess.run(line, capture_output=True, text=True, cwd=REPOSITORY, check=True)
        assert "Warning" not in result.stderr
        files = list(tmp_path.glob("jit_sin-*-cache"))
        sizes.append([path.stat().st_size for path in files])
        for path in files:
            os.truncate(path, 100)
    assert sizes[0] == sizes[1] and len(sizes[0]) == 1


FOUR_STEPS = {"steps": 4, "eval_every": 4, "save_every": 4, "log_every": 2}


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> Place:
    """Trains a run to its last step and returns its directories."""
    top = tmp_path_factory.mktemp("ended")
    place = Place(top / "run", top / "cache", top / "programs")
    flags = [f"--config.train.{name}={value}" for name, value in FOUR_STEPS.items()]
    done = command("main", f"--config={CONFIG_FILE}", f"--workdir={place.workdir}",
                   f"--config.data.cache_dir={place.cache}", *flags)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place


def config(place: Place):
    return tiny(train=FOUR_STEPS, data={"cache_dir": str(place.cache)})


@pytest.fixture
def copy(ended, tmp_path) -> Place:
    """Returns a copy of the work directory and the picture cache of `ended`."""
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
    state, net, window = final_state(copy.workdir, config(ended))
    leaves, structure = jax.tree.flatten(net.params)
    leaves[0] = np.nextafter(leaves[0], np.inf)
    changed = net.replace(params=jax.tree.unflatten(structure, leaves))
    items = to_items(Carry(state.replace(nets={NET: changed}), window))
    checkpoints = Checkpoints(copy.workdir / "checkpoints")
    checkpoints.save(4, items, checkpoints.meta(4), None)
    checkpoints.wait()  # until the new checkpoint has replaced the old one
    checkpoints.close()
    (found,) = differences(ended, copy)
    assert found.startswith("items['train']['nets']['vae']['params']") and found.endswith("differs")


def test_a_damaged_checkpoint_is_a_difference(ended, copy):
    for path in (copy.workdir / "checkpoints" / "00000004" / "train").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    (found,) = differences(ended, copy)
    assert "is damaged" in found
