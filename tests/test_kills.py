"""Kills and full disks do not change a run's result; how `same_run` compares two runs."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Collection

import jax
import numpy as np
import pytest
from benchmark_commands import benchmark
from commands import REPOSITORY, assert_one_line, without_tensorflow
from states import final_state
from tiny import CONFIG_FILE, LEAST, least

from benchmarks.attempts import why_no_mount
from benchmarks.phases import PHASES
from benchmarks.same_run import Place, differences
from vaejax.config import Config
from vaejax.records.checkpoints import Checkpoints
from vaejax.tasks.vae import NET
from vaejax.training.loop import Outcome, train
from vaejax.training.saved_state import to_items
from vaejax.training.state import Carry

pytestmark = pytest.mark.slow

CHANGES = ("steps=12", "log_every=3", "eval_every=6", "save_every=4")
# The phase in which a kill is most likely to do harm; the soak test has kills in all of them, and
# full disks. `test_full_disk.py` fills a disk with each run of the tests.
KILLED = ("checkpoint",)
# Variables by which `conftest.py` makes programs compile faster; users do not set them.
ONLY_IN_TESTS = ("JAX_DISABLE_MOST_OPTIMIZATIONS", "OPENBLAS_NUM_THREADS", "XLA_FLAGS")


def kill(out: pathlib.Path, *flags: str) -> dict[str, dict]:
    """Runs `python -m benchmarks.kills` and returns the rows of its table, by phase.

    The runs have the compiler flags of users: equal results after a restart must not depend on
    those of the tests.
    """
    changes = [f"--config.train.{change}" for change in CHANGES]
    inherited = {name: value for name, value in os.environ.items() if name not in ONLY_IN_TESTS}
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.kills", f"--config={CONFIG_FILE}", *LEAST, *changes,
         "--config.data.synthetic_counts=(64, 24, 8)", f"--out={out}", *flags],
        cwd=REPOSITORY,
        env={**inherited, **without_tensorflow(), "JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return {row["phase"]: row for row in json.loads(out.read_text())["rows"]}


def check_kills(rows: dict[str, dict], phases: Collection[str], ended: int) -> None:
    """Asserts that each phase was tried, and that all runs ended alike.

    Each phase is tried once before any is tried again. An attempt may end before it is killed, so
    that up to `ended` phases may be without a kill.
    """
    killed = {phase: row for phase, row in rows.items() if phase in phases and row["kills"]}
    assert sum(row["kills"] for row in killed.values()) == len(phases)
    assert len(killed) >= len(phases) - ended
    assert all(row["attempts that went on"] == row["kills"] for row in killed.values())
    assert not any(row["differences"] for row in rows.values())


def test_a_killed_run_finishes_with_the_same_result(tmp_path):
    flags = (f"--phases={','.join(KILLED)}", f"--kills={len(KILLED)}", "--full_disks=0")
    check_kills(kill(tmp_path / "kills.json", *flags), KILLED, ended=0)


@pytest.mark.soak
def test_after_a_kill_in_any_phase_and_a_full_disk_the_result_is_the_same(tmp_path):
    disks = int(not why_no_mount(tmp_path / "mount"))
    rows = kill(tmp_path / "kills.json", f"--kills={len(PHASES)}", f"--full_disks={disks}")
    check_kills(rows, PHASES, ended=2)
    disk = rows["full disk"]
    assert (disk["kills"], disk["attempts that went on"], disk["differences"]) == (disks, disks, 0)


@pytest.mark.parametrize(("phases", "named"), [("steps,lunch", "lunch"), ("", "")])
def test_an_unknown_phase_is_named(phases, named):
    done = benchmark("kills", f"--config={CONFIG_FILE}", f"--phases={phases}")
    assert_one_line(done, f"--phases={named} is none of start, pictures")


FOUR_STEPS = {"steps": 4, "eval_every": 4, "save_every": 4, "log_every": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Place:
    """Trains a run to its last step and returns its directories."""
    place = place_in(tmp_path_factory.mktemp("finished"))
    assert train(config(place), place.workdir) is Outcome.FINISHED
    return place


def place_in(directory: pathlib.Path) -> Place:
    return Place(directory / "run", directory / "cache", directory / "programs")


def config(place: Place) -> Config:
    return least(train=FOUR_STEPS, data={"cache_dir": str(place.cache)})


@pytest.fixture
def copy(finished, tmp_path) -> Place:
    """Returns a copy of the work directory and the picture cache of `finished`."""
    copied = place_in(tmp_path)
    shutil.copytree(finished.workdir, copied.workdir)
    shutil.copytree(finished.cache, copied.cache)
    return copied


def test_what_depends_on_the_clock_is_no_difference(finished, copy):
    metrics = copy.workdir / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    for line in lines:
        line["images_per_second"] = 1.0
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (copy.workdir / "goodput.jsonl").write_text("")
    (copy.workdir / "tensorboard" / "events.of.another.start").touch()
    assert differences(finished, copy) == []


def test_a_changed_or_missing_file_is_a_difference(finished, copy):
    for name in ("pictures/samples_00000004.png", "config.json"):
        path = copy.workdir / name
        path.write_bytes(path.read_bytes() + b" ")
    metrics = copy.workdir / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("4", "5"))
    (copy.workdir / "trained_on.json.gz").unlink()
    (pictures,) = copy.cache.glob("*/train.npy")
    pictures.write_bytes(pictures.read_bytes()[:-1] + b"?")
    assert differences(finished, copy) == [
        "trained_on.json.gz is missing",
        f"cache/{pictures.relative_to(copy.cache)} differs",
        "config.json differs",
        "metrics.jsonl differs",
        "pictures/samples_00000004.png differs",
    ]


def test_the_metrics_and_the_results_of_a_later_stage_are_compared(finished, copy):
    for place, bits in ((finished, 5.0), (copy, 6.0)):
        stage = place.workdir / "stages" / "finish_00000004"
        (stage / "checkpoints" / "00000002").mkdir(parents=True)
        line = {"split": "train", "bits": bits, "images_per_second": bits}
        (stage / "metrics.jsonl").write_text(json.dumps(line))
        (stage / "goodput.jsonl").write_text(str(bits))
    (finished.workdir / "decoders").mkdir()
    (finished.workdir / "decoders" / "finished.npz").touch()
    try:
        assert differences(finished, copy) == [
            "decoders is missing",
            "decoders/finished.npz is missing",
            "stages/finish_00000004/metrics.jsonl differs",
        ]
    finally:
        for name in ("stages", "decoders"):
            shutil.rmtree(finished.workdir / name)


def test_a_leftover_file_is_a_difference(finished, copy):
    (copy.workdir / "pictures" / ".samples_00000004.png.host.1").touch()
    (copy.workdir / "checkpoints" / "00000004.orbax-checkpoint-tmp").mkdir()
    (copy.cache / "0123.building").mkdir()
    assert differences(finished, copy) == [
        "cache/0123.building is left over",
        "checkpoints/00000004.orbax-checkpoint-tmp is left over",
        "pictures/.samples_00000004.png.host.1 is left over",
    ]


def test_the_last_bit_of_a_parameter_is_a_difference(finished, copy):
    state, net, window = final_state(copy.workdir, config(finished))
    leaves, structure = jax.tree.flatten(net.params)
    leaves[0] = np.nextafter(leaves[0], np.inf)
    changed = net.replace(params=jax.tree.unflatten(structure, leaves))
    items = to_items(Carry(state.replace(nets={NET: changed}), window))
    checkpoints = Checkpoints(copy.workdir / "checkpoints")
    checkpoints.save(4, items, checkpoints.meta(4), None)
    checkpoints.wait()  # until the new checkpoint has replaced the old one
    checkpoints.close()
    (found,) = differences(finished, copy)
    assert found.startswith("items['train']['nets']['vae']['params']") and found.endswith("differs")


def test_a_damaged_checkpoint_is_a_difference(finished, copy):
    for path in (copy.workdir / "checkpoints" / "00000004" / "train").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    (found,) = differences(finished, copy)
    assert "is damaged" in found
