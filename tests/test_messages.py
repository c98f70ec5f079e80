"""Messages between the processes of a run: those that are not well formed are rejected."""

import json

import hypothesis.strategies as st
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

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
well = st.integers(2, 10**6).flatmap(
    lambda count: st.builds(
        Greeting,
        process=st.integers(1, count - 1),
        processes=st.just(count),
        host=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=255),
    )
)
known_words = st.sampled_from(["goodbye", "gone", "status", "words", "all", "welcome"])


@given(well)
def test_a_greeting_is_what_was_said(words):
    assert greeting(words.line()) == words


@given(st.binary())
@example(b"[" * 4000 + b"\n")
@example(b"9" * 4000 + b"\n")
@example(b"\xff\xfe{\x00}\x00\n\x00")
@example(b"\n")
@example(b"")
def test_no_bytes_raise(line):
    assert isinstance(decode(line), dict)
    assert greeting(line) is None


@given(anything)
@example([1, 2])
@example("host")
def test_no_other_value_is_a_greeting(value):
    assert greeting(json.dumps(value).encode() + b"\n") is None


@given(well, st.sampled_from(["process", "processes", "host"]), anything)
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
def test_one_wrong_value_spoils_a_greeting_or_is_right(words, name, value):
    found = greeting(encode({**vars(words), name: value}))
    if found is not None:
        assert type(found.process) is int and type(found.processes) is int
        assert 0 < found.process < found.processes
        assert found.host.isprintable() and len(found.host) <= 255
        assert vars(found) == {**vars(words), name: value}


@given(well, st.text(min_size=1), anything)
def test_a_greeting_says_nothing_else(words, name, value):
    if name not in vars(words):
        assert greeting(encode({**vars(words), name: value})) is None


@given(well)
def test_a_greeting_is_one_whole_short_line(words):
    line = words.line()
    assert greeting(line[:-1]) is None, "a line without a newline is incomplete"
    assert greeting(line + line) is None
    assert greeting(line[:-1] + b" " * LONGEST_GREETING + b"\n") is None


@given(st.dictionaries(known_words | st.text(max_size=3), anything, max_size=3), st.booleans())
@example({"gone": "process 1", "status": True}, True)
@example({"gone": "process 1", "status": 0}, True)
@example({"gone": "process 1", "status": 2**64}, False)
@example({"goodbye": True, "gone": 1}, True)
@example({"all": ["a"]}, False)
def test_what_is_known_has_what_it_is_asked_for(message, to_coordinator):
    """Checks that an accepted message has the fields that its receiver reads, of valid types."""
    if is_known(message, 2, to_coordinator=to_coordinator) and message != GOODBYE:
        if "gone" in message:
            assert isinstance(message["gone"], str)
            assert type(message["status"]) is int and 1 <= message["status"] <= 255
        elif to_coordinator:
            assert isinstance(message["words"], str)
        else:
            assert len(message["all"]) == 2 and all(isinstance(one, str) for one in message["all"])


def test_all_that_is_said_is_known():
    assert is_known({"words": "no data"}, 2, to_coordinator=True)
    assert is_known({"all": ["", "no data"]}, 2, to_coordinator=False)
    for to_coordinator in (True, False):
        assert is_known(GOODBYE, 2, to_coordinator=to_coordinator)
        gone = {"gone": "process 1 (node)", "status": 75}
        assert is_known(decode(encode(gone)), 2, to_coordinator=to_coordinator)
