"""Runs the benchmarks at their smallest size and checks what they report; no time is asserted."""

import json

import numpy as np
import pytest
from benchmark_commands import benchmark
from commands import assert_one_line
from tiny import CONFIG_FILE

from vaejax.data.feed.pipeline import feeds
from vaejax.tasks.finish.metrics import RANKING

pytestmark = pytest.mark.slow

LEAST = [
    f"--config={CONFIG_FILE}:least", "--config.model.widths=(8,)", "--config.model.blocks=(0,)",
]  # fmt: skip
LADDER = [
    f"--config={CONFIG_FILE}:ladder", "--config.model.widths=(6,)", "--config.model.blocks=(1,)",
]  # fmt: skip


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> list[str]:
    """Returns the flags for a data set of noise: 24 pictures to train, 8 to validate, 8 to test.

    Its pixels have 64 different values, so that it cannot be coded in less than 6 bits for each.
    """
    path = tmp_path_factory.mktemp("data") / "faces.npz"
    np.savez(path, faces=np.random.default_rng(0).integers(96, 160, (40, 20, 16), np.uint8))
    return [
        "--config.data.source=array", f"--config.data.path={path}", "--config.data.channels=1",
        "--config.data.image_size=(20, 16)", "--config.data.holdout=(8, 8)",
    ]  # fmt: skip


@pytest.mark.soak
def test_finish_stability_tells_how_each_finish_ended(tmp_path):
    out = tmp_path / "finishes.json"
    result = benchmark(
        "finish_stability", f"--config={CONFIG_FILE}:least", "--config.finish.prior=gaussian",
        "--config.data.synthetic_counts=(40, 16, 8)", "--config.finish.steps=2",
        "--config.finish.validations=1", "--config.finish.batch_size=8",
        "--config.finish.widths=(4,)", "--seeds=1", "--rate=3", "--few=30", f"--out={out}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [row["setting"] for row in rows] == ["rates times 3", "30 pictures"]
    for row in rows:
        assert row["runs"] == row["better"] + row["unchanged"] + row["stopped"] == 1
        figures = (RANKING.metric, RANKING.factor)
        before, after = (
            RANKING.rank({name: row[f"{name}, {when}"] for name in figures})
            for when in ("before", "after")
        )
        assert after <= before


@pytest.fixture(scope="module")
def throughput(tmp_path_factory):
    """Returns the output of `step_throughput` for three batch sizes, and the file it kept."""
    out = tmp_path_factory.mktemp("benchmarks") / "step.json"
    result = benchmark(
        "step_throughput", *LEAST, "--config.data.image_size=(16, 16)", "--sweep=batch_size",
        "--repeats=1", "--seconds=0.01", f"--out={out}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout, json.loads(out.read_text())


def test_step_throughput_measures_every_combination(throughput):
    output, kept = throughput
    assert [row["batch"] for row in kept["rows"]] == [4, 8, 16]
    for row in kept["rows"]:
        assert row["images/s"] > 0 and row["compile s"] > 0 and row["of matmul %"] > 0
        assert row["images/s"] == pytest.approx(1e3 * row["batch"] / row["ms/step"])
        assert row["GFLOP/s"] == pytest.approx(row["MFLOP/image"] * row["images/s"] / 1e3)
        assert "MFU %" not in row, "the peak FLOP/s of a CPU are unknown"
    # FLOPs per picture do not depend on the batch size, except for a small part per batch.
    costs = [row["MFLOP/image"] for row in kept["rows"]]
    assert max(costs) < 1.01 * min(costs)
    assert len([line for line in output.splitlines() if line.startswith("|")]) == 2 + 3
    assert "large matrix product:" in output


def test_numbers_name_machine_versions_date_and_command(throughput):
    _, kept = throughput
    where = kept["environment"]
    assert where["command"].startswith("python -m benchmarks.step_throughput --config=")
    assert where["processor"] and where["cores"] >= 1 and where["date"]
    assert {"vaejax", "jax", "flax"} <= where["versions"].keys()


def test_regression_reports_what_became_slower(throughput, tmp_path):
    _, kept = throughput
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    for row in kept["rows"]:
        row["spread %"] = 1.0
    old.write_text(json.dumps(kept))
    slower = json.loads(old.read_text())
    slower["rows"][1]["images/s"] *= 0.8
    slower["rows"][2]["images/s"] *= 0.98
    new.write_text(json.dumps(slower))
    same = benchmark("regression", f"--old={old}", f"--new={old}")
    assert same.returncode == 0 and "WORSE" not in same.stdout
    worse = benchmark("regression", f"--old={old}", f"--new={new}")
    assert worse.returncode == 1
    (line,) = [line for line in worse.stdout.splitlines() if "WORSE" in line]
    assert "images/s" in line and "-20" in line


def test_startup_divides_the_seconds_among_the_parts_of_a_start(noise, tmp_path):
    out = tmp_path / "startup.json"
    result = benchmark("startup", *LEAST, *noise, "--repeats=1", f"--out={out}")
    assert result.returncode == 0, result.stderr
    cold, warm = json.loads(out.read_text())["rows"]
    assert (cold["cached"], warm["cached"]) == ("nothing", "everything")
    for row in (cold, warm):
        parts = ("imports and settings", "pictures", "compilation and first step")
        assert sum(row[part] for part in parts) == pytest.approx(row["seconds"])
    assert cold["pictures"] > 0 and warm["pictures"] == 0, "only the first start prepares pictures"


def test_startup_reports_why_a_start_failed():
    result = benchmark("startup", "--config=configs/folder.py")
    assert_one_line(result, "error: the run failed: config.data.path")


def test_input_throughput_measures_each_stage_from_the_file_to_the_step(noise, tmp_path):
    out = tmp_path / "input.json"
    result = benchmark(
        "input_throughput", *LEAST, *noise, "--config.data.holdout=(0, 0)", "--seconds=0.02",
        "--steps=8", f"--out={out}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [row["what"].split(",")[0] for row in rows] == [
        "decode", "build the cache", *["serve from the cache"] * 2 * len(feeds()),
        "the step alone", "a run of 8 steps", "the step alone",
    ]  # fmt: skip
    assert all(row["images/s"] > 0 for row in rows)
    *_, before, run, after = rows
    assert 0 <= run["wait %"] <= 100
    alone = (before["images/s"] + after["images/s"]) / 2
    assert run["of the step %"] == pytest.approx(100 * run["images/s"] / alone)


def test_frey_compares_a_run_with_published_ones(noise, tmp_path):
    out = tmp_path / "frey.json"
    result = benchmark(
        "frey", *LEAST, *noise, "--config.train.eval_every=1", "--seeds=1", f"--out={out}"
    )
    assert result.returncode == 0, result.stderr
    (row,) = json.loads(out.read_text())["rows"]
    assert row["seed"] == 0 and row["best step"] in (1, 2)
    assert row["test, K = 64"] <= row["test"] and row["minutes to 4.39"] is None
    assert all(6 < row[name] < 10 for name in ("train", "valid", "test", "test, K = 64"))
    assert "VAE with FFJORD" in result.stdout and "vaejax: conv" in result.stdout


def test_frey_needs_test_faces():
    assert_one_line(benchmark("frey", *LEAST), "leaves no validation or no test faces")


def test_ablation_trains_without_the_named_parts(noise, tmp_path):
    out = tmp_path / "ablation.json"
    flags = ("--only=nothing,AdamW", "--seconds=0.01", f"--out={out}")
    result = benchmark("ablation", *LADDER, *noise, *flags)
    assert result.returncode == 0, result.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [row["without"] for row in rows] == ["nothing", "AdamW"]
    assert all(row["of each seed"] == f"{row['bits/dim']:.3f}" for row in rows)
    found, worse = ([row[name] for row in rows] for name in ("bits/dim", "worse than the first by"))
    assert found[0] != found[1] and worse == [0, found[1] - found[0]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([*LADDER, "--only=luck"], "--only=luck is none of nothing, "),
        (LEAST, "only a ladder can be taken apart"),
        ([*LADDER, "--config.data.holdout=(0, 8)"], "no validation pictures"),
    ],
)
def test_ablation_refuses_what_it_cannot_compare(noise, flags, message):
    assert_one_line(benchmark("ablation", *noise, *flags), message)
