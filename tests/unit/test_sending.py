"""What a task is enqueued with on a server, and what the answers mean; no server needed."""

from __future__ import annotations

import time

import msgspec
import pytest

import gtaskman
from gtaskman.backoff import Backoff
from gtaskman.client import Client
from gtaskman.envelope import Keyring, arguments_of, read_task
from gtaskman.errors import (
    ConfigurationError,
    DuplicateTaskError,
    PayloadError,
    TaskDefinitionError,
    TaskTravelError,
)
from gtaskman.queues.redis import Reader, read_call
from gtaskman.queues.sending import MAX_LOSSES, RESULT_TTL, Call, Sealer, check_entered
from gtaskman.task import registry
from gtaskman.terms import DEFAULT

pytestmark = pytest.mark.quick


@gtaskman.task
def add(first: int, second: int = 0) -> int:
    return first + second


@gtaskman.task(kind="async", at_most_once=True, max_crashes=7)
def careful(value):
    return value


def call(function=add, *args, **values):
    """A call of ``function`` with nothing special about it but ``values``."""
    definition = function.definition
    plain = Call(
        "mine", definition.name, definition.kind, args, {}, {}, DEFAULT, "", definition
    )  # fmt: skip
    return plain._replace(**values)


# --- entries


def test_a_plain_task_is_entered_with_the_defaults():
    entry = Sealer().entry(call(add, 1, 2), "queue", "channel")
    assert (entry.id, entry.name, entry.kind) == ("mine", add.definition.name, "s")
    assert (entry.priority, entry.delay, entry.eta, entry.ttl) == (0, 0.0, 0.0, 0.0)
    assert (entry.result_ttl, entry.max_losses, entry.once) == (RESULT_TTL, MAX_LOSSES, False)
    assert (entry.unique, entry.reply) == ("", "channel")
    assert arguments_of(entry.envelope) == ((1, 2), {})


def test_terms_and_limits_are_in_the_entry():
    eta = time.time() + 100
    terms = DEFAULT.replace(priority=-5, eta=eta, ttl=3.5, result_ttl=0)
    entry = Sealer().entry(call(careful, 1, terms=terms, unique="key"), "queue", "")
    assert (entry.kind, entry.priority, entry.eta, entry.ttl) == ("a", -5, eta, 3.5)
    assert (entry.result_ttl, entry.max_losses, entry.once, entry.unique) == (0, 7, True, "key")
    entry = Sealer().entry(call(add, 1, terms=DEFAULT.replace(delay=2.5)), "queue", "")
    assert (entry.delay, entry.eta) == (2.5, 0.0)


def test_whoever_has_but_the_name_may_send_too():
    entry = Sealer().entry(call(add, 1, definition=None), "queue", "")
    assert (entry.max_losses, entry.once) == (MAX_LOSSES, False)
    assert read_task(entry.envelope).name == add.definition.name


def test_the_header_of_an_envelope_tells_what_a_manager_must_know():
    before = time.time()
    sealed = read_task(
        Sealer().entry(call(add, 1, options={"timeout": 5}), "queue", "").envelope, task_id="mine"
    )
    assert (sealed.id, sealed.kind, sealed.options) == ("mine", "sync", {"timeout": 5})
    assert before <= sealed.created <= time.time()


@pytest.mark.parametrize(("codec", "letter"), [("json", b"j"), ("msgpack", b"m"), ("pickle", b"p")])
def test_codecs_and_signatures(codec, letter):
    keyring = Keyring({"2026": b"k" * 32})
    entry = Sealer(codec, keyring).entry(call(add, 1), "queue", "")
    assert entry.envelope[2:3].lower() == letter
    read_task(entry.envelope, accept="jmp", keyring=keyring, queue="queue")
    with pytest.raises(PayloadError, match="signature"):
        read_task(entry.envelope, accept="jmp", keyring=keyring, queue="another")


@pytest.mark.parametrize("codec", ["yaml", "", "JSON", "pickle"])
def test_a_codec_that_makes_no_sense_is_refused(codec):
    with pytest.raises(ConfigurationError) as caught:
        Sealer(codec)
    assert caught.value.field == "codec"


def test_what_cannot_travel_is_named():
    with pytest.raises(PayloadError) as caught:
        Sealer().entry(call(careful, object()), "queue", "")
    assert careful.definition.name in str(caught.value)
    with pytest.raises(PayloadError, match="limit of 100"):
        Sealer(limit=100).entry(call(careful, "x" * 200), "queue", "")


# --- answers


def test_of_the_answers_the_first_refusal_is_raised():
    entries = [
        Sealer().entry(call(add, 1, id=each, unique=f"key of {each}"), "q", "") for each in "abc"
    ]
    check_entered(entries, [None, None, None])
    with pytest.raises(DuplicateTaskError) as caught:
        check_entered(entries, [None, "b", "c"])
    assert (caught.value.id, caught.value.key) == ("b", None)
    with pytest.raises(DuplicateTaskError) as caught:
        check_entered(entries, ["holder", None, None])
    assert (caught.value.id, caught.value.key) == ("holder", "key of a")


# --- what an owner reads


def read(function=add, *args, **values):
    envelope = Sealer().entry(call(function, *args, **values), "queue", "").envelope
    return Reader("jm", None, "queue", 10_000).read("mine", envelope)


def test_a_manager_finds_the_code_by_its_name():
    sealed, definition = read(add, 1)
    assert definition is add.definition
    assert sealed.name == definition.name


def test_the_limits_of_the_sender_count():
    backoff = Backoff(first=1, factor=3, jitter=0)
    options = {"timeout": 5, "retries": 2, "backoff": msgspec.structs.asdict(backoff)}
    _, definition = read(add, 1, options=options)
    assert (definition.timeout, definition.retries) == (5, 2)
    assert definition.backoff == backoff
    assert definition.target is add.definition.target


def test_the_same_limits_are_one_definition():
    envelope = Sealer().entry(call(add, 1, options={"timeout": 5}), "queue", "").envelope
    reader = Reader("jm", None, "queue", 10_000)
    assert reader.read("mine", envelope)[1] is reader.read("mine", envelope)[1]


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": -1},
        {"timeout": "x"},
        {"retries": 1.5},
        {"backoff": {"first": -1}},
        {"backoff": {"nonsense": 1}},
        {"backoff": 5},
        {"nonsense": 1},
        {"target": "os.system"},
    ],
)
def test_limits_that_make_no_sense_are_no_error_of_the_manager(options):
    assert "sender's limits" in read(add, 1, options=options)


@pytest.mark.parametrize(
    ("envelope", "words"),
    [
        (b"", "envelope"),
        (b"nonsense", "envelope"),
        (b"g1j[1,2,3]", "malformed"),
        (b"g1p" + b"x" * 10, "codec"),
        (b"x" * 10_001, "limit"),
    ],
)
def test_whatever_comes_is_no_error_of_the_manager(envelope, words):
    assert words in Reader("jm", None, "queue", 10_000).read("mine", envelope)


def test_an_unknown_name_is_told_and_not_imported(monkeypatch):
    assert "import the module" in read(add, 1, name="os.system")
    envelope = Sealer().entry(call(add, 1), "queue", "").envelope
    monkeypatch.delitem(registry, add.definition.name)
    assert add.definition.name in Reader("jm", None, "queue", 10_000).read("mine", envelope)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"w 3 0", None),
        (b"x 17 mine\nnot needed", ("mine", 17, "not needed")),
        (b"x 17 with blanks in it\n", ("with blanks in it", 17, "")),
        ("x 1 ü\nzwei\nZeilen".encode(), ("ü", 1, "zwei\nZeilen")),
    ],
)
def test_calls_to_an_owner(data, expected):
    assert read_call(data) == expected


# --- a client that is not connected yet


def test_a_client_opens_nothing_until_it_is_used():
    client = Client("redis://localhost:1/0?namespace=mine", queue="one")
    assert (client.namespace, client.queue) == ("mine", "one")
    assert Client("redis://localhost:1", namespace="other").namespace == "other"
    client.close()
    client.close()


@pytest.mark.parametrize("what", [lambda: 1, print, 5, None, "os.system", gtaskman.Task])
def test_only_tasks_are_sent(what):
    with pytest.raises(TaskTravelError, match=r"@gtaskman\.task"):
        Client("redis://localhost:1").submit(what)


def test_a_service_is_not_sent():
    definition = add.definition.replace()
    definition.kind = "service"
    service = add.with_options()
    service.definition = definition
    with pytest.raises(TaskDefinitionError, match="ServiceManager"):
        Client("redis://localhost:1").submit(service, 1)
