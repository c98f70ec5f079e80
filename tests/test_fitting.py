"""What fits: the search, and the ways out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny

from vaejax.errors import DoesNotFit
from vaejax.fitting import GRAIN, largest_batch, remedies


@given(st.integers(0, 10**6), st.integers(1, 10**5))
def test_the_largest_batch_is_found_in_few_looks(limit, start):
    asked = []

    def fits(batch):
        asked.append(batch)
        return batch <= limit

    found = largest_batch(fits, start)
    assert found % GRAIN == 0 and found <= limit
    assert limit < found + 2 * max(GRAIN, found // 16)
    assert len(asked) <= 40 and len(set(asked)) == len(asked)


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
    return list(remedies(config, 4, raised.value, trial))


def test_every_remedy_would_fit():
    assert ways_out(27) == [
        "--config.train.accumulate=2",
        "--config.model.dtype=bfloat16",
        "--config.train.batch_size=32",
    ]
    assert ways_out(35) == [
        "--config.train.accumulate=2",
        "--config.model.dtype=bfloat16",
        "--config.train.fsdp=4",
        "--config.train.batch_size=32",
    ]


def test_where_nothing_would_fit_nothing_is_named():
    assert ways_out(1) == []
