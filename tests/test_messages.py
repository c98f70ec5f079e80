"""Messages between the processes of a run: those that are not well formed are rejected."""

import json

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from vaejax.runtime.messages import (
    GOODBYE,
    LONGEST_GREETING,
    Greeting,
    decode,
    encode,
    greeting,
    is_known,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
greetings = st.integers(2, 10**6).flatmap(
    lambda count: st.builds(
        Greeting,
        process=st.integers(1, count - 1),
        processes=st.just(count),
        host=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=255),
    )
)
keys = st.sampled_from(["goodbye", "gone", "status", "words", "all", "welcome"])


@given(greetings)
def test_a_greeting_is_decoded_from_its_line(sent):
    assert greeting(sent.line()) == sent


@given(st.binary())
@example(b"[" * 4000 + b"\n")
@example(b"9" * 4000 + b"\n")
@example(b"\xff\xfe{\x00}\x00\n\x00")
@example(b"\n")
@example(b"")
def test_any_bytes_are_decoded_without_an_exception(line):
    assert isinstance(decode(line), dict)
    assert greeting(line) is None


@given(json_values)
@example([1, 2])
@example("host")
def test_other_json_values_are_no_greetings(value):
    assert greeting(json.dumps(value).encode() + b"\n") is None


@given(greetings, st.sampled_from(["process", "processes", "host"]), json_values)
@example(Greeting(1, 2, "a"), "process", True)
@example(Greeting(1, 2, "a"), "process", 1.0)
@example(Greeting(1, 2, "a"), "process", -1)
@example(Greeting(1, 2, "a"), "process", 0)
@example(Greeting(1, 2, "a"), "process", 2)
@example(Greeting(1, 2, "a"), "process", float("nan"))
@example(Greeting(1, 2, "a"), "process", "1")
@example(Greeting(1, 2, "a"), "processes", 10**400)
@example(Greeting(1, 2, "a"), "host", "a\nb")
@example(Greeting(1, 2, "a"), "host", "\ud800")
@example(Greeting(1, 2, "a"), "host", "a" * 256)
def test_a_greeting_with_an_invalid_value_is_rejected(sent, name, value):
    found = greeting(encode({**vars(sent), name: value}))
    if found is not None:
        assert type(found.process) is int and type(found.processes) is int
        assert 0 < found.process < found.processes
        assert found.host.isprintable() and len(found.host) <= 255
        assert vars(found) == {**vars(sent), name: value}


@given(greetings, st.text(min_size=1), json_values)
def test_a_greeting_with_another_field_is_rejected(sent, name, value):
    if name not in vars(sent):
        assert greeting(encode({**vars(sent), name: value})) is None


@given(greetings)
def test_a_greeting_is_one_complete_line_of_limited_length(sent):
    line = sent.line()
    assert greeting(line[:-1]) is None, "a line without a newline is incomplete"
    assert greeting(line + line) is None
    padding = b" " * (LONGEST_GREETING - len(line))
    assert greeting(line[:-1] + padding + b"\n") == sent
    assert greeting(line[:-1] + padding + b" \n") is None


@given(st.dictionaries(keys | st.text(max_size=3), json_values, max_size=3), st.booleans())
@example({"gone": "process 1", "status": True}, True)
@example({"gone": "process 1", "status": 0}, True)
@example({"gone": "process 1", "status": 2**64}, False)
@example({"gone": "process 1", "status": 1, "words": ""}, True)
@example({"goodbye": True, "gone": 1}, True)
@example({"all": ["a"]}, False)
@example({"all": ["a", 1]}, False)
def test_known_messages_have_exactly_the_fields_that_their_receiver_reads(message, to_coordinator):
    if is_known(message, 2, to_coordinator=to_coordinator) and message != GOODBYE:
        if "gone" in message:
            assert message.keys() == {"gone", "status"} and isinstance(message["gone"], str)
            assert type(message["status"]) is int and 1 <= message["status"] <= 255
        elif to_coordinator:
            assert message.keys() == {"words"} and isinstance(message["words"], str)
        else:
            assert message.keys() == {"all"} and len(message["all"]) == 2
            assert all(isinstance(words, str) for words in message["all"])


@pytest.mark.parametrize("to_coordinator", [True, False])
def test_the_messages_of_a_run_are_known_to_their_receivers(to_coordinator):
    """The words of one process go to the coordinator, and the words of all come from it."""
    assert is_known({"words": "no data"}, 2, to_coordinator=to_coordinator) == to_coordinator
    words_of_all = {"all": ["", "no data"]}
    assert is_known(words_of_all, 2, to_coordinator=to_coordinator) != to_coordinator
    assert is_known(GOODBYE, 2, to_coordinator=to_coordinator)
    gone = {"gone": "process 1 (node)", "status": 75}
    assert is_known(decode(encode(gone)), 2, to_coordinator=to_coordinator)
