"""What fits: the search, and the ways out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny, tiny_ladder

from vaejax.errors import DoesNotFit
from vaejax.fitting import GRAIN, largest_batch, remedies


@given(
    st.integers(10**6, 10**12),
    st.floats(0, 1.5),
    st.floats(1e-7, 1),
    st.floats(0.7, 1.3),
    st.integers(1, 10**4),
)
def test_the_largest_batch_is_found_in_few_looks(room, state, picture, power, start):
    """For needs that are nearly a straight line above what does not depend on the batch."""
    asked = []

    def size(batch):
        return int(room * (state + picture * batch**power))

    def need(batch):
        asked.append(batch)
        return size(batch)

    found = largest_batch(need, room, start)
    assert (found % GRAIN == 0 and size(found) <= room) or found == 0
    assert size(found + 2 * max(GRAIN, found // 16)) > room or size(found) > room * 14 // 16
    assert len(set(asked)) == len(asked) <= 40


def test_a_straight_line_takes_four_looks():
    asked = []

    def need(batch):
        asked.append(batch)
        return 5 * 10**7 + 10**6 * batch

    assert largest_batch(need, 16 * 10**9, 64) in range(15_000, 15_951)
    assert len(asked) <= 4


def fake_chips(memory):
    """A step whose need is a fixed state and a share for every picture at once."""

    def trial(config):
        train = config.train
        size = 1 if config.model.dtype == "bfloat16" else 2
        need = 10 / max(train.fsdp, 1) + size * train.batch_size / 4 / train.accumulate
        need = round(need)
        if need > memory:
            raise DoesNotFit(need, memory)

    return trial


def ways_out(memory, **train):
    config, trial = tiny(train={"batch_size": 64, **train}), fake_chips(memory)
    with pytest.raises(DoesNotFit) as raised:
        trial(config)
    return [changes.popitem() for changes in remedies(config, 4, raised.value, trial)]


def test_every_remedy_would_fit():
    assert ways_out(27) == [
        ("train.accumulate", 2),
        ("model.dtype", "bfloat16"),
        ("train.batch_size", 32),
    ]
    assert ways_out(35) == [
        ("train.accumulate", 2),
        ("model.dtype", "bfloat16"),
        ("train.fsdp", 4),
        ("train.batch_size", 32),
    ]


def test_a_ladder_may_compute_its_activations_again():
    assert next(remedies(tiny_ladder(), 1, DoesNotFit(4, 2), lambda config: None)) == {
        "ladder.remat": True
    }


def test_where_nothing_would_fit_nothing_is_named():
    assert ways_out(1) == []
