"""Temperatures that are fitted to a ladder: how they are searched for, their file, mistakes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vaejax
from vaejax.errors import UserError
from vaejax.stages.fitting import check_priors
from vaejax.stages.temperatures import minimum
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


def test_temperatures_are_those_of_their_checkpoint(tmp_path, capsys):
    origin = Origin(tmp_path, 7, 123, {})
    assert load_temperatures(origin) is None
    save_temperatures(origin, (0.9, 0.5))
    assert load_temperatures(origin) == (0.9, 0.5)
    assert not capsys.readouterr().err
    for other in (origin._replace(step=8), origin._replace(digest=124)):
        assert load_temperatures(other) is None
        assert "were fitted to step 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"temperatures": [], "step": 7, "model": 123}',
                '{"temperatures": [-1], "step": 7, "model": 123}',
                '{"temperatures": [NaN], "step": 7, "model": 123}'],
)  # fmt: skip
def test_a_damaged_file_of_temperatures_is_one_line(content, tmp_path):
    origin = Origin(tmp_path, 7, 123, {})
    save_temperatures(origin, (0.9, 0.5))
    temperatures_path(origin).write_text(content)
    with pytest.raises(
        UserError, match=r"temperatures\.json is damaged; remove it, or .*vaejax.fit"
    ):
        load_temperatures(origin)


def test_temperatures_are_for_ladders(trained):
    with pytest.raises(UserError, match="--prior=temperatures is for a ladder"):
        check_priors(vaejax.load(trained), ["temperatures"])
