"""Any value over a real server: refused in clear words, or it ends once, and others go on.

``GTASKMAN_EXAMPLES=2000`` plays so many examples for each test instead of a few.
"""

from __future__ import annotations

import contextlib

import pytest
import sharing
import strategies
from hypothesis import given
from hypothesis import strategies as st
from scenarios.control import fate
from scene import Scene
from servers import RunningServer, any_kind
from strategies import alike, spelled
from worlds import PATIENCE

import gtaskman
from gtaskman.envelope import RESULT_LIMIT, TASK_LIMIT

KEYS = gtaskman.Keyring({"one": b"k" * 32})
CODECS = ("json", "msgpack", "pickle")
some = strategies.bounded(25)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with RunningServer(any_kind()) as running, Scene(running) as made:
        made.manager(queue=made.queue(keyring=KEYS, accept="jmp"), max_processes=1)
        yield made


@pytest.fixture(params=CODECS)
def client(request, scene):
    return scene.client(codec=request.param, keyring=KEYS)


@pytest.fixture(params=CODECS)
def storage(request, scene):
    made = gtaskman.RedisTaskStorage(
        scene.running.url, f"of-{request.param}", codec=request.param[0], keyring=KEYS
    )
    yield made
    made.close()


def end_of(send):
    """What came of a call that sends a task: an error that names what is wrong, or its end."""
    try:
        handle = send()
    except (gtaskman.GTaskmanError, TypeError) as error:
        return error
    try:
        return handle.get(PATIENCE)
    except gtaskman.WaitTimeout:
        raise
    except gtaskman.GTaskmanError as error:
        return error
    finally:
        assert handle.report.status.finished


def check_neighbours(client):
    """Whatever came before, the manager goes on, and so does the client."""
    assert client.submit(sharing.double, 21).get(PATIENCE) == 42


def check_same(value, end):
    """It came back as it was, unless it was refused; a tuple comes back as a list."""
    if not isinstance(end, Exception) and not alike(end, value):
        assert alike(end, _as_lists(value)), f"{spelled(value)} came back as {spelled(end)}"


def _as_lists(value):
    if isinstance(value, (list, tuple)):
        return [_as_lists(each) for each in value]
    if isinstance(value, dict):
        return {key: _as_lists(each) for key, each in value.items()}
    return value


@some
@given(value=strategies.values())
def test_a_value_comes_back_or_is_refused(client, value):
    check_same(value, end_of(lambda: client.submit(sharing.whatever, value)))
    check_neighbours(client)


@some
@given(depth=strategies.depths())
def test_a_deep_value_comes_back_or_is_refused(client, depth):
    value = strategies.nested(depth)
    end = end_of(lambda: client.submit(sharing.whatever, value))
    assert isinstance(end, Exception) or alike(end, value)
    check_neighbours(client)


@some
@given(size=strategies.sizes_near(TASK_LIMIT, 8192))
def test_a_task_near_the_limit_comes_through_or_is_refused(client, size):
    text = "x" * size
    end = end_of(lambda: client.submit(sharing.whatever, text))
    assert isinstance(end, gtaskman.PayloadError) if size > TASK_LIMIT else True
    check_same(text, end)
    check_neighbours(client)


@some
@given(size=strategies.sizes_near(RESULT_LIMIT, 8192))
def test_a_result_near_the_limit_comes_back_or_fails(client, size):
    end = end_of(lambda: client.submit(sharing.text, size))
    if size > RESULT_LIMIT:
        assert isinstance(end, gtaskman.TaskFailed), spelled(end)
        assert end.exc_type == "gtaskman.errors.PayloadError"
    check_same("x" * size, end)
    check_neighbours(client)


@some
@given(text=strategies.texts())
def test_an_error_of_any_text_fails_its_task(client, text):
    end = end_of(lambda: client.submit(sharing.complain, text))
    expected = (gtaskman.PayloadError, gtaskman.TaskFailed)
    assert isinstance(end, expected), spelled(end)
    check_neighbours(client)


@some
@given(strategies.numbers(), strategies.numbers(), strategies.texts())
def test_any_progress_leaves_the_task_its_end(client, completed, target, message):
    end = end_of(lambda: client.submit(sharing.mutter, completed, target, message))
    assert isinstance(end, Exception) or end == "said"
    check_neighbours(client)


@some
@given(id=strategies.ids())
def test_any_id_is_taken_or_refused(client, id):
    end = end_of(lambda: client.submit(sharing.whatever.with_id(id, 1)))
    if isinstance(end, Exception):
        assert isinstance(end, (gtaskman.TaskOptionError, TypeError)), spelled(end)
    elif id is not None:
        assert client.report(id).result == 1
        assert client.delete(id)
    check_neighbours(client)


@some
@given(id=strategies.texts())
def test_asking_for_an_id_that_is_none_finds_nothing(client, id):
    assert client.report(id) is client.handle(id) is client.retry(id) is None
    assert not client.cancel(id)
    assert not client.delete(id)


@some
@given(key=strategies.texts())
def test_any_unique_key_is_held_once(client, key):
    def send():
        return client.submit(sharing.whatever.with_options(unique=key, delay=60), 1)

    with contextlib.suppress(gtaskman.GTaskmanError):
        first = send()
        with pytest.raises(gtaskman.DuplicateTaskError):
            send()
        assert first.cancel()
        assert isinstance(fate(first), gtaskman.TaskCancelled)
        again = send()
        assert again.cancel()
    check_neighbours(client)


@some
@given(reason=strategies.texts())
def test_any_reason_cancels(client, reason):
    handle = client.submit(sharing.whatever.with_options(delay=60), 1)
    assert handle.cancel(reason)
    assert isinstance(fate(handle), gtaskman.TaskCancelled)
    check_neighbours(client)


@some
@given(options=st.one_of(strategies.terms(), strategies.limits()))
def test_any_options_are_taken_or_refused(client, options):
    options.pop("queue", None)  # no manager serves another one
    end = end_of(lambda: client.submit(sharing.whatever.with_options(**options), 1))
    assert isinstance(end, Exception) or end == 1
    check_neighbours(client)


@some
@given(name=strategies.texts())
def test_any_name_of_a_queue_is_taken_or_refused(client, name):
    with contextlib.suppress(gtaskman.GTaskmanError):
        assert client.submit(sharing.whatever.with_options(queue=name), 1).cancel()
    check_neighbours(client)


@some
@given(name=strategies.texts())
def test_a_task_of_an_unknown_name_is_refused(client, name):
    with pytest.raises(gtaskman.GTaskmanError):
        client.send(name, 1)


@pytest.mark.parametrize("length", [64, 65, 100])
def test_a_queue_whose_name_is_accepted_can_be_sent_to(client, length):
    name = "q" * length
    assert client.submit(sharing.whatever.with_options(queue=name), 1).cancel()


@some
@given(strategies.texts(), strategies.numbers(), strategies.values())
def test_a_storage_keeps_any_report(storage, text, number, value):
    failure = gtaskman.Failure(gtaskman.FailureKind.ERROR, text, text, text)
    failed = gtaskman.Report(
        "failed", "name", "sync", gtaskman.TaskStatus.FAILED, 1.0, text, error=failure
    )
    storage.insert(failed)
    escaped = text.encode(errors="backslashreplace").decode()
    kept = storage.report("failed")
    assert (kept.message, kept.error.message, kept.traceback) == (escaped, escaped, escaped)
    if number == number:
        running = gtaskman.Report(
            "running", "name", "sync", gtaskman.TaskStatus.PROCESSING, 1.0, text, number, number
        )
        storage.insert(running)
        assert storage.report("running").completed == storage.report("running").target
    completed = gtaskman.Report(
        "completed", "name", "sync", gtaskman.TaskStatus.COMPLETED, 1.0, result=value
    )
    storage.insert(completed)
    kept = storage.report("completed").result
    assert kept is None or alike(kept, value) or alike(kept, _as_lists(value))
