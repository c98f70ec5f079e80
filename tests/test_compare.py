"""Comparisons of evaluated runs: paired differences, refused protocols, pictures side by side."""

import json
import shutil

import numpy as np
import pytest
from commands import assert_one_line, command

import vaejax
from vaejax.errors import UserError
from vaejax.evaluation.choosing import Choice
from vaejax.trained import measuring
from vaejax.trained.comparing import compare, newest
from vaejax.trained.model import TrainedModel

CHOICE = Choice(("likelihood",))
PICTURES = np.arange(50)
HARDNESS = np.random.default_rng(0).normal(3.0, 1.0, 50)


def figure(name, value, spread, floor=None) -> dict:
    return {"name": name, "value": value, "spread": spread, "floor": floor, "floor_spread": None,
            "better": "lower"}  # fmt: skip


def write_run(directory, bits, distance, **protocol):
    """Writes an evaluation whose pictures are as hard as `HARDNESS`, plus `bits`."""
    evaluations = directory / "evaluations"
    evaluations.mkdir(parents=True)
    values = HARDNESS + bits
    evaluation = {
        "protocol": {"split": "valid", "crop": "center", "data": {"splits": 1}} | protocol,
        "figures": [
            figure("elbo_bits_per_dim", values.mean(), values.std() / np.sqrt(50)),
            figure("frechet_samples", distance, 3.0, floor=5.0),
        ],
    }
    (evaluations / "valid_model.json").write_text(json.dumps(evaluation))
    arrays = {"picture": PICTURES, "elbo_bits_per_dim": values}
    np.savez(evaluations / "valid_model.npz", **arrays)
    return directory


def test_likelihoods_are_compared_picture_by_picture(tmp_path, capsys):
    runs = [write_run(tmp_path / "a", 0.0, 30.0), write_run(tmp_path / "b", -0.25, 34.0)]
    elbo, frechet = compare(runs, "valid")
    # All pictures differ by as much, whereas the pictures themselves differ a lot.
    assert elbo["b - a"].startswith("−0.25") and float(elbo["b - a"].split(" ± ")[1]) < 1e-9
    spread = HARDNESS.std() / np.sqrt(50)
    assert float(elbo["a"].split(" ± ")[1]) == pytest.approx(spread, rel=0.05)
    assert frechet["b - a"] == "4.0 ± 4.2" and frechet["real faces"] == "5"
    table = capsys.readouterr().out
    assert "elbo_bits_per_dim" in table and "b - a" in table


def test_without_values_of_pictures_the_spreads_add_up(tmp_path):
    runs = [write_run(tmp_path / "a", 0.0, 30.0), write_run(tmp_path / "b", -0.25, 34.0)]
    (runs[1] / "evaluations" / "valid_model.npz").unlink()
    elbo, _ = compare(runs, "valid")
    difference, spread = elbo["b - a"].replace("−", "-").split(" ± ")
    assert float(difference) == -0.25
    assert float(spread) == pytest.approx(HARDNESS.std() / 5, rel=0.05)


@pytest.mark.parametrize(
    ("protocol", "part"),
    [({"crop": "nvae148"}, "crop"), ({"data": {"splits": 2}}, "data"), ({"more": 1}, "more")],
)
def test_unlike_protocols_are_refused_by_the_part_that_differs(tmp_path, protocol, part):
    runs = [write_run(tmp_path / "a", 0, 1.0), write_run(tmp_path / "b", 0, 1.0, **protocol)]
    with pytest.raises(UserError, match=rf"evaluations differ in '{part}' \(") as raised:
        compare(runs, "valid")
    assert "\n" not in str(raised.value)


def test_what_is_compared_may_differ(tmp_path):
    free = {"run": "b", "checkpoint_step": 9, "likelihood": "mixture", "date": "2020-01-01",
            "temperature": [0.8, 0.6]}  # fmt: skip
    runs = [write_run(tmp_path / "a", 0, 1.0), write_run(tmp_path / "b", 0, 1.0, **free)]
    assert len(compare(runs, "valid")) == 2


@pytest.mark.parametrize("content", ["", "{}", '{"figures": 3, "protocol": {}}', "[]"])
def test_a_damaged_evaluation_is_one_line(tmp_path, content):
    run = write_run(tmp_path / "a", 0, 1.0)
    (run / "evaluations" / "valid_model.json").write_text(content)
    with pytest.raises(UserError, match="cannot be read as an evaluation; run `python -m vaejax"):
        newest(run, "valid")


def test_a_run_without_an_evaluation_names_the_command(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(run / "evaluations", ignore_errors=True)
    assert_one_line(
        command("compare", str(run), str(run)), f"python -m vaejax.evaluate --workdir={run}"
    )
    assert_one_line(command("compare", str(run)), "name two runs or more")


@pytest.mark.slow
def test_the_report_shows_the_runs_side_by_side(trained, tmp_path):
    runs = [shutil.copytree(trained, tmp_path / name) for name in ("first", "second")]
    for run in runs:
        measuring.measure(vaejax.load(run), importance_samples=0, samples=0, choice=CHOICE)
    page = tmp_path / "comparison.html"
    result = command("compare", *map(str, runs), f"--report={page}")
    assert result.returncode == 0, result.stderr
    assert "second - first" in result.stdout
    html = page.read_text(encoding="utf-8")
    assert "Samples by first, second" in html and "elbo_bits_per_dim" in html


@pytest.mark.slow
def test_the_pictures_have_the_temperatures_of_the_figures(trained, tmp_path, monkeypatch):
    runs = [shutil.copytree(trained, tmp_path / name) for name in ("first", "second")]
    for run, spread in zip(runs, (0.5, None), strict=True):
        measuring.measure(
            vaejax.load(run), importance_samples=0, samples=2, temperature=spread, choice=CHOICE
        )
    drawn, sample = [], TrainedModel.sample

    def recorded(self, count, **options):
        drawn.append(options["temperature"])
        return sample(self, count, **options)

    monkeypatch.setattr(TrainedModel, "sample", recorded)
    compare(runs, "valid", tmp_path / "comparison.html")
    assert drawn == [0.5, 1.0]
