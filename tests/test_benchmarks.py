"""Runs benchmarks at their smallest size and checks what they report; no time is asserted."""

import json
import pathlib
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest
from commands import command
from tiny import CONFIG_FILE, LEAST, tiny_ladder

from benchmarks import stability, timing
from benchmarks.recipe import variants
from benchmarks.regression import compare
from vaejax.config import ladder_config
from vaejax.config.settings import resolve
from vaejax.data.feed.pipeline import feeds

pytestmark = pytest.mark.slow

REPOSITORY = pathlib.Path(__file__).parents[1]


def benchmark(name: str, *flags: str) -> subprocess.CompletedProcess:
    return command(f"benchmarks.{name}", *flags, cwd=REPOSITORY)


@pytest.fixture(scope="module")
def throughput(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmarks") / "step.json"
    result = benchmark(
        "step_throughput", f"--config={CONFIG_FILE}", *LEAST, "--sweep=batch_size", "--repeats=2",
        "--seconds=0.01", f"--out={out}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result, json.loads(out.read_text())


def test_step_throughput_measures_every_combination(throughput):
    result, kept = throughput
    assert [row["batch"] for row in kept["rows"]] == [4, 8, 16]
    for row in kept["rows"]:
        assert row["images/s"] > 0 and row["GFLOP/s"] > 0 and row["compile s"] > 0
        assert "MFU %" not in row, "the peak FLOP/s of a CPU are unknown"
    # FLOPs per picture do not depend on the batch size, except for a small part per batch.
    costs = [row["MFLOP/image"] for row in kept["rows"]]
    assert max(costs) < 1.01 * min(costs)
    assert len([line for line in result.stdout.splitlines() if line.startswith("|")]) == 2 + 3
    assert "large matrix product:" in result.stdout


def test_numbers_name_machine_versions_date_and_command(throughput):
    _, kept = throughput
    where = kept["environment"]
    assert where["command"].startswith("python -m benchmarks.step_throughput --config=")
    assert where["processor"] and where["cores"] >= 1 and where["date"]
    assert {"vaejax", "jax", "flax"} <= where["versions"].keys()


def test_an_unknown_sweep_is_named():
    result = benchmark("step_throughput", f"--config={CONFIG_FILE}", "--sweep=speed")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        "error: --sweep=speed is none of batch_size, width, dtype"
    )


def test_regression_says_what_became_slower(throughput, tmp_path):
    _, kept = throughput
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    for row in kept["rows"]:
        row["spread %"] = 1.0
    old.write_text(json.dumps(kept))
    kept["rows"][1]["images/s"] *= 0.8
    kept["rows"][2]["images/s"] *= 0.98
    new.write_text(json.dumps(kept))
    same = benchmark("regression", f"--old={old}", f"--new={old}")
    assert same.returncode == 0 and "WORSE" not in same.stdout
    worse = benchmark("regression", f"--old={old}", f"--new={new}")
    assert worse.returncode == 1
    (line,) = [line for line in worse.stdout.splitlines() if "WORSE" in line]
    assert "images/s" in line and "-20" in line


def test_rows_alike_are_compared_in_order_and_shares_by_their_difference():
    rows = [
        {"what": "the step alone", "images/s": 228.0},
        {"what": "a run", "images/s": 200.0, "wait %": 0.0},
        {"what": "the step alone", "images/s": 284.0},
    ]
    assert not any(row["verdict"] for row in compare(rows, rows, least=3.0))
    later = [rows[0], rows[1] | {"wait %": 40.0}, rows[2]]
    (worse,) = [row for row in compare(rows, later, least=3.0) if row["verdict"]]
    assert worse["what"] == "wait %" and worse["change %"] == 40.0


def test_files_without_a_common_row_are_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"rows": [{"of": "a", "images/s": 1.0}]}')
    (tmp_path / "b.json").write_text('{"rows": [{"of": "b", "images/s": 1.0}]}')
    result = benchmark("regression", f"--old={tmp_path / 'a.json'}", f"--new={tmp_path / 'b.json'}")
    assert result.returncode == 2 and "nothing in common" in result.stderr
    assert "Traceback" not in result.stderr


def test_startup_tells_where_the_seconds_go(tmp_path):
    out = tmp_path / "startup.json"
    result = benchmark("startup", f"--config={CONFIG_FILE}", *LEAST, "--repeats=1", f"--out={out}")
    assert result.returncode == 0, result.stderr
    cold, warm = json.loads(out.read_text())["rows"]
    assert (cold["cached"], warm["cached"]) == ("nothing", "everything")
    for row in (cold, warm):
        parts = ("imports and settings", "pictures", "compilation and first step")
        assert sum(row[part] for part in parts) == pytest.approx(row["seconds"])
    assert cold["pictures"] > 0 and warm["pictures"] == 0, "only the first start prepares pictures"


def test_a_start_that_fails_says_why():
    result = benchmark("startup", "--config=configs/folder.py")
    assert result.returncode == 2 and "config.data.path" in result.stderr


def test_input_throughput_follows_the_pictures_to_the_step(tmp_path):
    out = tmp_path / "input.json"
    result = benchmark(
        "input_throughput",
        f"--config={CONFIG_FILE}",
        *LEAST,
        "--seconds=0.1",
        "--steps=8",
        f"--out={out}",
    )
    assert result.returncode == 0, result.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [row["what"].split(",")[0] for row in rows] == [
        "decode", "build the cache", *["serve from the cache"] * 2 * len(feeds()),
        "the step alone", "a run of 8 steps", "the step alone",
    ]  # fmt: skip
    assert all(row["images/s"] > 0 for row in rows)
    assert 0 <= rows[-2]["wait %"] <= 100
    assert rows[-2]["of the step %"] > 0


def test_frey_puts_a_run_beside_published_ones(tmp_path):
    faces = np.random.default_rng(0).integers(0, 256, (80, 28, 20), np.uint8)
    np.savez(tmp_path / "faces.npz", faces=faces)
    result = benchmark(
        "frey", f"--config={CONFIG_FILE}", *LEAST, "--config.data.source=array",
        f"--config.data.path={tmp_path / 'faces.npz'}", "--config.data.image_size=(28, 20)",
        "--config.data.channels=1", "--config.data.holdout=(8, 8)", "--config.prior.fitted=()",
        "--seeds=1", f"--out={tmp_path / 'frey.json'}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (row,) = json.loads((tmp_path / "frey.json").read_text())["rows"]
    assert row["seed"] == 0 and row["best step"] in (6, 12)
    assert row["test, K = 64"] <= row["test"] and row["minutes to 4.39"] is None
    assert "VAE with FFJORD" in result.stdout and "vaejax: conv" in result.stdout


def test_frey_needs_test_faces():
    result = benchmark("frey", f"--config={CONFIG_FILE}")
    assert result.returncode == 2 and "config.data.holdout" in result.stderr.splitlines()[-1]


LADDER = f"--config={CONFIG_FILE}:ladder"


def test_ablation_takes_parts_out(tmp_path):
    out = tmp_path / "ablation.json"
    small = ("--config.data.image_size=(16, 16)", "--config.data.channels=1")
    flags = ("--only=nothing,widths", "--seconds=0.05", f"--out={out}", *small)
    result = benchmark("ablation", LADDER, *flags)
    assert result.returncode == 0, result.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [row["without"] for row in rows] == ["nothing", "widths"]
    assert all(row["of each seed"] == f"{row['bits/dim']:.3f}" for row in rows)
    found, worse = ([row[name] for row in rows] for name in ("bits/dim", "worse than the first by"))
    assert found[0] != found[1] and worse == [0, found[1] - found[0]]


def test_a_rate_has_the_median_ratio_to_the_first():
    # Both rates fall while the machine becomes slower; the pair (5.0, 0.1) is an outlier.
    pairs = {"twice": [(9.0, 18.0), (8.0, 16.0), (5.0, 0.1)], "half": [(4.0, 2.0), (2.0, 1.0)]}
    assert timing.rates_of(pairs) == (5.0, {"twice": 10.0, "half": 2.5})


def test_every_part_taken_out_is_another_run():
    settings = ladder_config()
    settings.model.blocks = (2, 2, 1)
    settings.objective.warmup_steps = 100
    found = variants(resolve(settings))
    assert found["nothing"] == resolve(settings) and "depth" in found and "balance" in found
    assert len(set(found.values())) == len(found)


def test_a_part_that_is_not_there_is_not_taken_out():
    settings = ladder_config()
    settings.model.blocks = (1, 1, 1)
    settings.objective.warmup_steps = 0
    settings.optimizer.guard = 0.0
    found = variants(resolve(settings))
    assert not {"depth", "balance", "guard"} & set(found) and "mixture" in found


def test_one_width_costs_as_much_as_several():
    settings = ladder_config()
    settings.model.widths, settings.model.blocks = (32, 64, 64), (2, 2, 2)
    settings.model.hidden = (32, 32, 16)
    widths = variants(resolve(settings))["widths"].model.widths

    # Multiply-adds of the 1 x 1 and 3 x 3 convolutions in residual branches, up to a factor.
    def cost(widths, hidden):
        return sum((2 * w * h + 18 * h * h) / 4**i for i, (w, h) in enumerate(zip(widths, hidden)))

    ratio = cost(widths, [w / 2 for w in widths]) / cost((32, 64, 64), (32, 32, 16))
    assert len(set(widths)) == 1 and abs(ratio - 1) < 0.03


def test_ablation_names_what_it_does_not_know():
    result = benchmark("ablation", LADDER, "--only=luck")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: --only=luck is none of nothing, ")
    result = benchmark("ablation", f"--config={CONFIG_FILE}")
    assert result.returncode == 2 and "only a ladder" in result.stderr.splitlines()[-1]
    result = benchmark("ablation", LADDER, "--config.data.synthetic_counts=(64, 0, 0)")
    assert result.returncode == 2 and "no validation" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("bits", "diverged"),
    [
        (np.linspace(8, 5, 50), False),
        # Jumps within the first tenth do not count.
        ([8, 9, 7, 12, 8, *np.linspace(8, 5, 45)], False),
        ([*np.linspace(8, 5, 45), 6.1, 5, 5, 5, 5], True),
        # The run never returns to the best value, which lies in the first tenth.
        ([8, 7, 6, 5.5, 5.4, *[8.0] * 45], True),
        (np.linspace(5, 8, 50), True),
        ([*np.linspace(8, 5, 45), *[np.nan] * 5], True),
    ],
)
def test_stability_knows_a_run_that_diverged(bits, diverged):
    line = {"kl_nats": 3.0, "rollbacks": 1, "skipped": 7}
    found = stability.verdict([line | {"elbo_bits_per_dim": value} for value in bits], steps=1000)
    assert found["diverged"] == diverged
    assert (found["rollbacks"], found["skipped"], found["kl"]) == (1, 7, 3.0)
    np.testing.assert_allclose([found["start"], found["end"]], [bits[0], np.mean(bits[-5:])])


def test_stability_knows_a_run_in_which_no_update_counted():
    found = stability.verdict([], steps=1000)
    assert found["diverged"] and found["skipped"] == 1000 and found["rollbacks"] > 0


def test_stability_counts_what_poison_does(monkeypatch):
    settings = {"steps": 100, "log_every": 10, "eval_every": 100, "save_every": 100}
    config = tiny_ladder(
        train=settings,
        data={"image_size": (16, 16), "channels": 1},
        model={"widths": (6,), "blocks": (1,)},
    )
    monkeypatch.setattr(stability, "POISONED", 10)
    result = stability.run(config, poisoned=True)
    assert not result["broke"] and not result["diverged"] and result["rollbacks"] == 0
    poison = stability.poison(100, stability.poison_seed(config))
    ruined = [at for at in range(100) if not np.isfinite(poison(config.objective, jnp.int32(at)))]
    assert result["skipped"] == len(ruined) > 0
