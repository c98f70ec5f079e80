"""The figures of the benchmarks: what is varied, timed, compared, and counted as divergence."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import get_config, least

from benchmarks import finish_verdict, regression, stability, sweep, timing
from benchmarks.recipe import variants
from benchmarks.regression import compare
from vaejax.config import ladder_config
from vaejax.config.settings import resolve
from vaejax.errors import UserError

# What is varied and timed


def test_a_sweep_varies_the_config_in_all_combinations():
    found = sweep.variants(get_config("least"), ["batch_size", "width", "dtype"])
    values = [(one.train.batch_size, one.model.widths, one.model.dtype) for one in found]
    assert values == [
        (batch, widths, dtype)
        for batch in (4, 8, 16)
        for widths in ((4, 8), (8, 16), (16, 32))
        for dtype in ("float32", "bfloat16")
    ]
    assert sweep.variants(get_config("least"), []) == [resolve(get_config("least"))]


def test_an_unknown_sweep_is_named():
    message = r"--sweep=speed is none of batch_size, width, dtype"
    with pytest.raises(UserError, match=message):
        sweep.variants(get_config("least"), ["width", "speed"])


def test_programs_are_timed_in_alternating_turns():
    calls = []
    programs = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = timing.in_turn(programs, repeats=2, seconds=0.0)
    assert "".join(calls) == "ab" + "abab", "each runs once before it is timed"
    assert [len(times[name]) for name in "ab"] == [2, 2]


def test_spread_is_half_the_interquartile_range_over_the_median():
    assert timing.spread([float(value) for value in range(1, 8)]) == (6 - 2) / 2 / 4
    assert timing.spread([3.0]) == 0.0


def test_a_rate_has_the_median_ratio_to_the_first():
    # Both rates fall while the machine becomes slower; the pair (5.0, 0.1) is an outlier.
    pairs = {"twice": [(9.0, 18.0), (8.0, 16.0), (5.0, 0.1)], "half": [(4.0, 2.0), (2.0, 1.0)]}
    assert timing.rates_of(pairs) == (5.0, {"twice": 10.0, "half": 2.5})


# Comparison of two measurements


def test_equal_rows_are_compared_in_order_and_shares_by_their_difference():
    rows = [
        {"what": "the step alone", "images/s": 228.0},
        {"what": "a run", "images/s": 200.0, "wait %": 0.0},
        {"what": "the step alone", "images/s": 284.0},
    ]
    assert not any(row["verdict"] for row in compare(rows, rows, least=3.0))
    later = [rows[0], rows[1] | {"wait %": 40.0}, rows[2]]
    (worse,) = [row for row in compare(rows, later, least=3.0) if row["verdict"]]
    assert worse["what"] == "wait %" and worse["change %"] == 40.0


@pytest.mark.parametrize(
    ("row", "name", "limit"),
    [
        ({"images/s": 100.0}, "images/s", 97.0),
        ({"images/s": 100.0, "spread %": 5.0}, "images/s", 80.0),
        ({"ms/step": 100.0}, "ms/step", 103.0),
        ({"compile s": 100.0}, "compile s", 150.0),
        ({"seconds": 100.0, "starts": 1}, "seconds", 150.0),
        ({"seconds": 100.0, "starts": 3}, "seconds", 103.0),
    ],
)
def test_a_change_is_worse_where_it_exceeds_the_noise(row, name, limit):
    beyond = limit + (1.0 if limit > 100 else -1.0)
    for value, verdict in ((200.0 - beyond, ""), (limit, ""), (beyond, "WORSE")):
        (found,) = compare([row], [row | {name: value}], least=3.0)
        assert found["verdict"] == verdict, value


def test_files_without_a_common_row_are_refused():
    with pytest.raises(UserError, match="nothing in common"):
        compare([{"of": "a", "images/s": 1.0}], [{"of": "b", "images/s": 1.0}], least=3.0)


@pytest.mark.parametrize("content", ["no JSON", '{"columns": []}', "[]"])
def test_a_file_that_no_benchmark_kept_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=r"a\.json is no file that a benchmark kept with --out"):
        regression._rows(str(tmp_path / "a.json"))


# The recipe of a ladder


def test_each_variant_is_another_run():
    settings = ladder_config()
    settings.model.blocks = (2, 2, 1)
    settings.objective.warmup_steps = 100
    found = variants(resolve(settings))
    assert found["nothing"] == resolve(settings) and "depth" in found and "balance" in found
    assert len(set(found.values())) == len(found)


def test_a_part_that_the_recipe_lacks_has_no_variant():
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


# Stability


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
def test_stability_finds_a_run_that_diverged(bits, diverged):
    line = {"kl_nats": 3.0, "rollbacks": 1, "skipped": 7}
    found = stability.verdict([line | {"elbo_bits_per_dim": value} for value in bits], steps=1000)
    assert found["diverged"] == diverged
    assert (found["rollbacks"], found["skipped"], found["kl"]) == (1, 7, 3.0)
    np.testing.assert_allclose([found["start"], found["end"]], [bits[0], np.mean(bits[-5:])])


@pytest.mark.parametrize(
    ("distances", "lines", "said", "end", "kept"),
    [
        ([2.0, 1.0, 3.0], [], "", "better", 1.0),
        ([2.0, 3.0], ["the finish has made samples no better; the decoder stays"], "",
         "unchanged", 2.0),
        ([2.0, 3.0], [], "", "worse", 2.0),
        ([2.0, 1.0], [], "the run failed: the finish has diverged", "stopped", 2.0),
    ],
)  # fmt: skip
def test_the_verdict_of_a_finish_tells_a_silent_failure_from_others(
    distances, lines, said, end, kept
):
    validations = [dict.fromkeys(finish_verdict.FIGURES, value) for value in distances]
    found = finish_verdict.verdict(validations, lines, said)
    assert (found.end, found.said) == (end, said)
    name = finish_verdict.RANKING.metric
    assert (found.before[name], found.after[name]) == (2.0, kept)


@pytest.mark.parametrize(("raised", "end"), [(1.2, "better"), (1.3, "worse")])
def test_a_finish_may_hardly_raise_the_distance_of_thumbnails(raised, end):
    """It has no part in the choice of the decoder."""
    first = dict.fromkeys(finish_verdict.FIGURES, 2.0)
    last = dict.fromkeys(finish_verdict.FIGURES, 1.0)
    last["thumbnail_frechet_samples"] = 2.0 * raised
    assert finish_verdict.verdict([first, last], [], "").end == end


def test_a_finish_is_judged_by_the_figure_that_ranks_decoders():
    with pytest.raises(UserError, match="pip install"):
        finish_verdict.verdict([{"psnr": 20.0}], [], "")


def test_stability_finds_a_run_without_an_applied_update():
    found = stability.verdict([], steps=1000)
    assert found["diverged"] and found["skipped"] == 1000 and found["rollbacks"] > 0


def test_stability_counts_the_updates_that_poison_makes_not_finite(monkeypatch):
    steps = 50
    config = least(
        train={name: steps for name in ("steps", "eval_every", "save_every")} | {"log_every": 10},
        data={"image_size": (16, 16), "channels": 1, "synthetic_counts": (64, 0, 0)},
        model={"widths": (8,), "blocks": (0,)},
    )
    monkeypatch.setattr(stability, "POISONED", 10)
    result = stability.run(config, poisoned=True)
    assert not result["broke"] and not result["diverged"] and result["rollbacks"] == 0
    poison = stability.poison(steps, stability.poison_seed(config))
    ruined = [at for at in range(steps) if not np.isfinite(poison(config.objective, jnp.int32(at)))]
    assert result["skipped"] == len(ruined) > 0
