"""Tests the search for the largest batch, and the remedies for a step that does not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny, tiny_ladder

from vaejax.cost.compiled_step import Estimate
from vaejax.cost.largest_batch import GRAIN, largest_batch, largest_step, remedies
from vaejax.cost.traffic import Traffic
from vaejax.errors import DoesNotFit
from vaejax.runtime.chips import CHIPS

ESTIMATE = Estimate(
    chip=None, devices=4, fsdp=1, pictures=1, updates=1, parameters=1, flops=1, memory=1,
    traffic=Traffic(1, 1), collectives=[], host_transfers=[], doubles=False, compile_seconds=1.0,
)  # fmt: skip


@given(
    st.integers(10**6, 10**12),
    st.floats(0, 1.5),
    st.floats(1e-7, 1),
    st.floats(0.7, 1.3),
    st.integers(1, 10**4),
)
def test_the_largest_batch_is_found_in_few_trials(room, state, picture, power, start):
    """The memory needed is a constant plus a term that grows nearly linearly with the batch."""
    tried = []

    def size(batch):
        return int(room * (state + picture * batch**power))

    def need(batch):
        tried.append(batch)
        return size(batch)

    found = largest_batch(need, room, start)
    assert (found % GRAIN == 0 and size(found) <= room) or found == 0
    assert size(found + 2 * max(GRAIN, found // 16)) > room or size(found) > room * 14 // 16
    assert len(set(tried)) == len(tried) <= 40


def test_a_jump_of_the_memory_is_found_to_one_grain():
    tried = []

    def need(batch):
        assert batch not in tried
        tried.append(batch)
        return 1 if batch <= 100 else 2 * 10**9

    assert largest_batch(need, 10**9, 64) == 96


def test_a_memory_linear_in_the_batch_takes_four_trials():
    tried = []

    def need(batch):
        tried.append(batch)
        return 5 * 10**7 + 10**6 * batch

    assert largest_batch(need, 16 * 10**9, 64) in range(15_000, 15_951)
    assert len(tried) <= 4


@pytest.mark.parametrize(("on_device", "room"), [("never", 16), ("auto", 12), ("always", 12)])
def test_the_largest_batch_leaves_room_for_the_pictures_on_the_device(on_device, room):
    """The step is simulated: it needs 1 GiB, and 16 MiB for each picture on a device."""

    def trial(config):
        need = 2**30 + config.train.batch_size // 4 * 2**24
        return ESTIMATE._replace(pictures=config.train.batch_size, memory=need)

    config = tiny(data={"on_device": on_device}, train={"batch_size": 64})
    found = largest_step(config, CHIPS["TPU v5 lite"], 4, trial)
    assert 15 / 16 * room * 2**30 < found.memory <= room * 2**30


def test_no_step_is_found_where_not_even_the_smallest_batch_fits():
    def trial(config):
        raise DoesNotFit(2**40, 2**34)

    assert largest_step(tiny(), CHIPS["TPU v5 lite"], 4, trial) is None


def fake_chips(memory):
    """Returns a trial of a simulated step: FSDP splits its state, accumulation its batch."""

    def trial(config):
        train = config.train
        size = 1 if config.model.dtype == "bfloat16" else 2
        need = 10 / max(train.fsdp, 1) + size * train.batch_size / 4 / train.accumulate
        need = round(need)
        if need > memory:
            raise DoesNotFit(need, memory)

    return trial


def fitting_changes(memory, **train):
    config, trial = tiny(train={"batch_size": 64, **train}), fake_chips(memory)
    with pytest.raises(DoesNotFit) as raised:
        trial(config)
    return [changes.popitem() for changes in remedies(config, 4, raised.value, trial)]


def test_each_remedy_would_fit():
    assert fitting_changes(27) == [
        ("train.accumulate", 2),
        ("model.dtype", "bfloat16"),
        ("train.batch_size", 32),
    ]
    assert fitting_changes(35) == [
        ("train.accumulate", 2),
        ("model.dtype", "bfloat16"),
        ("train.fsdp", 4),
        ("train.batch_size", 32),
    ]


def test_recomputing_activations_is_a_remedy_of_a_ladder():
    assert next(remedies(tiny_ladder(), 1, DoesNotFit(4, 2), lambda config: None)) == {
        "model.remat": True
    }


def test_no_remedy_is_named_where_none_would_fit():
    assert fitting_changes(1) == []


def test_the_remedies_of_a_stage_are_its_own_settings():
    config = tiny("spatial", train={"accumulate": 2})
    found = {
        stage: [name for changes in remedies(config, 2, DoesNotFit(4, 3), lambda _: None, stage)
                for name in changes]
        for stage in ("model", "flow", "finish")
    }  # fmt: skip
    assert found == {
        "model": ["train.accumulate", "model.dtype", "train.fsdp", "train.batch_size"],
        "flow": ["flow.remat", "flow.dtype", "train.fsdp", "flow.batch_size"],
        "finish": ["model.dtype", "train.fsdp", "finish.batch_size"],
    }


def test_the_batch_of_a_flow_has_all_memory_that_its_codes_leave():
    """They are counted with the step; pictures are not there."""

    def trial(config):
        return ESTIMATE._replace(memory=config.flow.batch_size * 2**24)

    found = largest_step(tiny("spatial"), CHIPS["TPU v5 lite"], 1, trial, "flow")
    assert 15 / 16 * 16 * 2**30 < found.memory <= 16 * 2**30
