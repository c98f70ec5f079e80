"""Temperatures that are fitted to a ladder: how they are searched for, their file, mistakes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vaejax
from vaejax.errors import UserError
from vaejax.stages.fitting import check_priors
from vaejax.stages.temperatures import minimum
from vaejax.trained.arguments import recorded_temperature
from vaejax.trained.decoder_files import FinishedDecoder
from vaejax.trained.prior_files import Origin
from vaejax.trained.temperature_files import (
    load_temperatures,
    save_temperatures,
    temperatures_path,
)

TENTHS = st.integers(1, 12).map(lambda tenths: tenths / 10)


@given(st.lists(TENTHS, min_size=1, max_size=4))
def test_the_minimum_of_a_bowl_is_found_and_no_point_is_computed_twice(lowest):
    seen = []

    def distance(values):
        seen.append(values)
        return sum((one - other) ** 2 for one, other in zip(values, lowest, strict=True))

    assert minimum(distance, (1.0,) * len(lowest)) == tuple(lowest)
    assert len(set(seen)) == len(seen) <= 12 * len(lowest)
    assert all(0.1 <= value <= 1.2 for values in seen for value in values)


def test_temperatures_that_depend_on_each_other_are_found_together():
    def distance(values):
        coarse, fine = values
        return (coarse - 0.6) ** 2 + (fine - coarse / 2) ** 2

    assert minimum(distance, (1.0, 1.0)) == (0.6, 0.3)


def test_temperatures_are_those_of_their_checkpoint_and_decoder(tmp_path, capsys):
    origin, decoder = Origin(tmp_path, 7, 123, {}), FinishedDecoder({"w": np.ones(3)}, "model", 5)
    assert load_temperatures(origin, None) is None
    for finished in (None, decoder):
        save_temperatures(origin, finished, (0.9, 0.5))
        assert load_temperatures(origin, finished) == (0.9, 0.5)
    assert not capsys.readouterr().err
    later, changed = origin._replace(step=8), decoder._replace(params={"w": np.zeros(3)})
    for other, finished, said in (
        (later, decoder, "were fitted to step 7, and this is step 8: they are not used"),
        (later, decoder, "--prior=temperatures --checkpoint=8"),
        (origin._replace(digest=124), decoder, "were fitted to another model than this"),
        (origin, None, "were fitted to another decoder than this"),
        (origin, changed, "were fitted to another decoder than this"),
    ):
        assert load_temperatures(other, finished) is None
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "values", ["", "[]", "[-1]", "[NaN]", '["high"]', "0.9"]
)  # fmt: skip
def test_a_damaged_file_of_temperatures_is_one_line(values, tmp_path):
    origin = Origin(tmp_path, 7, 123, {})
    save_temperatures(origin, None, (0.9, 0.5))
    content = f'{{"temperatures": {values}, "step": 7, "model": 123, "decoder": 123}}'
    temperatures_path(origin).write_text(content)
    with pytest.raises(UserError, match=r"temperatures\.json is damaged; remove it, and fit"):
        load_temperatures(origin, None)


@pytest.mark.parametrize(
    ("given", "recorded"),
    [(0.5, 0.5), ([0.5], 0.5), ([0.5, 0.5], 0.5), ((0.9, 0.5), (0.9, 0.5)),
     ([0.5, 0.5, 0.25], (0.5, 0.5, 0.25))],
)  # fmt: skip
def test_equal_temperatures_are_recorded_as_one(given, recorded):
    assert recorded_temperature(given, ("1x1", "1x1", "4x4")) == recorded


def test_temperatures_are_for_ladders(trained):
    with pytest.raises(UserError, match="--prior=temperatures is for a ladder"):
        check_priors(vaejax.load(trained), ["temperatures"])
