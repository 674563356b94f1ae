"""Signed envelopes: nobody without a key makes one, changes one, or moves one elsewhere."""

from __future__ import annotations

import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtaskman.envelope import (
    Keyring,
    arguments_of,
    read_result,
    read_task,
    seal_result,
    seal_task,
    sign_result,
)
from gtaskman.envelope.cover import Purpose
from gtaskman.errors import ConfigurationError, EnvelopeError, PayloadError

pytestmark = pytest.mark.quick

OLD, NEW = b"old key, 32 random bytes in life", b"new key, 32 random bytes in life"
CODECS = ["j", "m", "p"]
ring = Keyring({"2025": NEW})


def seal(codec="j", keyring=ring, queue="app:default", task_id="id"):
    head = (task_id, "app.work", "sync", (1, "a"), {}, 1.5, {})
    return seal_task(*head, codec=codec, keyring=keyring, queue=queue)


def read(data, keyring=ring, queue="app:default", task_id="id"):
    return read_task(data, accept="jmp", keyring=keyring, queue=queue, task_id=task_id)


def sign(value=(1,), codec="j", keyring=ring, **whose):
    return sign_result(seal_result(value, codec=codec), keyring, **(WHOSE | whose))


def read_signed(data, keyring=ring, **whose):
    return read_result(data, accept="jmp", keyring=keyring, **(WHOSE | whose))


WHOSE = {"queue": "app:default", "task_id": "id", "name": "app.work"}


class Bomb:
    """Raises an alarm when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled before it was verified",))


@pytest.mark.parametrize("codec", CODECS)
def test_what_was_signed_is_read(codec):
    data = seal(codec)
    assert read(data).name == "app.work"
    assert arguments_of(data) == ((1, "a"), {})
    assert arguments_of(memoryview(data)) == ((1, "a"), {})
    assert list(read_signed(sign(codec=codec))) == [1]


@pytest.mark.parametrize("codec", CODECS)
def test_no_byte_may_be_changed(codec):
    data, result = seal(codec), sign(codec=codec)
    for place in range(max(len(data), len(result))):
        for byte in (0, 1, 0x20, 0x2E, 0x30, 0x41, 0x61, 0x6A, 0x80, 0xFF):
            for good, opened in ((data, read), (result, read_signed)):
                bad = good[:place] + bytes([byte]) + good[place + 1 :]
                if bad[: len(good)] != good:
                    with pytest.raises(EnvelopeError):
                        opened(bad[: len(good)])


@pytest.mark.parametrize("codec", CODECS)
def test_nothing_may_be_cut_off_or_added(codec):
    data = seal(codec)
    for length in range(len(data)):
        with pytest.raises(EnvelopeError):
            read(data[:length])
    with pytest.raises(EnvelopeError, match="signature is wrong"):
        read(data + b" ")


@given(tail=st.binary(), key_id=st.sampled_from([b"2025.", b"2024.", b".", b""]))
def test_no_garbage_is_let_in(tail, key_id):
    for head in (b"", b"g1j", b"g1J", b"g1M", b"g1P"):
        for opened in (read, read_signed):
            with pytest.raises(EnvelopeError):
                opened(head + key_id + tail)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("elsewhere", [{"queue": "app:other"}, {"task_id": "other"}])
def test_a_task_is_good_for_its_own_queue_and_id_only(codec, elsewhere):
    with pytest.raises(EnvelopeError, match=r"for another queue|is of the task 'id'"):
        read(seal(codec), **elsewhere)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "elsewhere", [{"queue": "app:other"}, {"task_id": "other"}, {"name": "app.pay"}]
)
def test_a_result_is_good_for_its_own_task_only(codec, elsewhere):
    with pytest.raises(EnvelopeError, match="for another queue or task"):
        read_signed(sign(codec=codec), **elsewhere)


@pytest.mark.parametrize("codec", CODECS)
def test_a_task_is_no_result_and_a_result_no_task(codec):
    with pytest.raises(EnvelopeError, match="signature is wrong for this result"):
        read_signed(seal(codec))
    with pytest.raises(EnvelopeError, match="signature is wrong for this task"):
        read(sign(codec=codec))


def test_a_body_cannot_be_told_to_be_of_another_codec():
    data = seal("p")
    with pytest.raises(EnvelopeError, match="signature is wrong"):
        read(data.replace(b"g1P", b"g1M", 1))
    with pytest.raises(EnvelopeError, match="signature is wrong"):
        read(seal("m").replace(b"g1M", b"g1P", 1))


def test_the_parts_that_are_signed_do_not_run_into_each_other():
    signed = {
        Purpose(*parts).with_body(letter, "1", b"x")
        for letter in "jm"
        for parts in [("task", "a", "b", "c"), ("task", "ab", "", "c"), ("task", "a,1:b", "", "c")]
    }
    assert len(signed) == 6


# --- keys ----------------------------------------------------------------------------------------


def test_keys_are_changed_while_tasks_wait():
    before = Keyring({"2024": OLD})
    learning = Keyring({"2024": OLD, "2025": NEW}, sign_with="2024")
    turned = Keyring({"2024": OLD, "2025": NEW}, sign_with="2025")
    after = Keyring({"2025": NEW})
    steps = [before, learning, turned, after]
    for sender, receiver in itertools.pairwise(steps):
        # While a step is made some have made it and others have not: both directions are read.
        assert read(seal(keyring=receiver), keyring=sender if receiver is not after else turned)
        assert read(seal(keyring=sender), keyring=receiver)
    with pytest.raises(EnvelopeError, match="the key '2024', which is not in the keyring here"):
        read(seal(keyring=before), keyring=after)


def test_another_key_by_the_same_id_is_not_enough():
    with pytest.raises(EnvelopeError, match="signature is wrong"):
        read(seal(keyring=Keyring({"2025": OLD})))


def test_where_signatures_are_required_nothing_else_is_let_in():
    with pytest.raises(EnvelopeError, match="not signed, and signatures are required"):
        read(seal(keyring=None))
    with pytest.raises(EnvelopeError, match="not signed, and signatures are required"):
        read_signed(sign(keyring=None))


def test_where_they_are_not_required_yet_unsigned_ones_are_let_in_but_no_pickles():
    lenient = Keyring({"2025": NEW}, required=False)
    assert read(seal(keyring=None), keyring=lenient)
    assert read(seal(), keyring=lenient)
    with pytest.raises(EnvelopeError, match="signature is wrong"):
        read(seal(keyring=Keyring({"2025": OLD})), keyring=lenient)
    with pytest.raises(EnvelopeError, match="not signed"):
        read_signed(seal_result(1, codec="p"), keyring=lenient)


def test_whoever_has_no_keys_reads_nothing_that_is_signed():
    with pytest.raises(EnvelopeError, match="there is no keyring here"):
        read(seal(), keyring=None)


def test_pickles_travel_signed_only():
    with pytest.raises(PayloadError, match="pickle travels signed only"):
        seal("p", keyring=None)
    with pytest.raises(PayloadError, match="pickle travels signed only"):
        sign(codec="p", keyring=None)


def test_no_pickle_is_opened_before_it_is_verified():
    bomb = pickle.dumps(Bomb())
    for data in (b"g1p" + bomb, b"g1P2025." + b"0" * 64 + bomb):
        for keyring in (ring, None, Keyring({"2025": NEW}, required=False)):
            for opened in (read, read_signed):
                with pytest.raises(EnvelopeError):
                    opened(data, keyring=keyring)


@pytest.mark.parametrize(
    ("keys", "sign_with", "says"),
    [
        ({}, None, "at least one key"),
        ({"a": b"short"}, None, "secrets.token_bytes"),
        ({"a": "a text of enough characters"}, None, "secrets.token_bytes"),
        ({"a.b": NEW}, None, "a key's id takes"),
        ({"": NEW}, None, "a key's id takes"),
        ({"a" * 33: NEW}, None, "a key's id takes"),
        ({"a\n": NEW}, None, "a key's id takes"),
        ({1: NEW}, None, "a key's id takes"),
        ({"a": OLD, "b": NEW}, None, r"sign_with takes the id of one of the keys \(a, b\)"),
        ({"a": OLD}, "b", "sign_with takes"),
    ],
)
def test_a_keyring_that_makes_no_sense_is_refused(keys, sign_with, says):
    with pytest.raises(ConfigurationError, match=says) as raised:
        Keyring(keys, sign_with)
    assert "short" not in str(raised.value)


def test_a_keyring_shows_no_key():
    assert repr(ring) == "<Keyring 2025; signs with 2025>"
