"""Services that are unwell, too large or too old."""

from __future__ import annotations

import pytest
from services import acting
from worlds import PATIENCE, wait_until

from gtaskman import ConfigurationError, ServiceOptions, ServiceState

MIB = 2**20
CHECK = ServiceOptions(
    health="check",
    health_every=0.02,
    health_timeout=0.2,
    health_failures=3,
    backoff=0.01,
    terminate_timeout=0.1,
    terminate_timeout_hard=0.3,
)


@pytest.fixture
def mark(tmp_path):
    mark = tmp_path / "health"
    mark.write_text("fine")
    return mark


@pytest.mark.parametrize(
    ("health", "told"),
    [
        ("false", "has answered False"),
        ("raises", "has raised Odd: (2, 'unwell')"),
        ("hangs", "has not answered within 0.2 s"),
        ("spins", "has not answered within 0.2 s"),
    ],
)
def test_who_is_unwell_is_restarted(services, mark, health, told):
    status = services.add(acting.Sick(id="sick", mark=str(mark)), CHECK)
    status.started.get(timeout=PATIENCE)
    pid = status.pid
    mark.write_text(health)
    wait_until(lambda: status.last_exit)
    mark.write_text("fine")
    status.started.get(timeout=PATIENCE)
    end = status.last_exit
    assert end.pid == pid
    assert not end.asked  # not by anybody: it counts as a failure
    assert end.message == f"its health check check() has failed 3 times in a row: it {told}"
    assert end.failure is not None
    assert status.state is ServiceState.RUNNING


def test_a_few_failures_are_no_reason(services, mark):
    options = CHECK.replace(health_failures=1000)
    status = services.add(acting.Sick(id="sick", mark=str(mark)), options)
    status.started.get(timeout=PATIENCE)
    mark.write_text("false")
    with pytest.raises(TimeoutError):
        status.stopped.get(timeout=0.3)
    assert status.state is ServiceState.RUNNING


def test_who_is_unwell_and_never_restarted_has_failed(services, mark):
    options = CHECK.replace(restart="never", health_failures=1)
    mark.write_text("false")
    status = services.add(acting.Sick(id="sick", mark=str(mark)), options)
    wait_until(lambda: status.state is ServiceState.FAILED)
    assert "has failed once" in status.last_exit.message


def test_a_restart_is_one_even_if_the_service_was_unwell(services, mark):
    mark.write_text("false")
    options = CHECK.replace(restart="never", health_failures=1)
    status = services.add(acting.Sick(id="sick", mark=str(mark)), options)
    # given one that is being ended for its health, under a policy that would leave it at that
    wait_until(lambda: status.state is ServiceState.STOPPING, every=0.0005)
    mark.write_text("true")
    services.restart("sick").started.get(timeout=PATIENCE)
    assert status.state is ServiceState.RUNNING
    assert status.last_exit.asked


@pytest.mark.parametrize("method", ["nothing", "run", "secret"])
def test_a_health_check_is_a_remote_method(services, method):
    with pytest.raises(ConfigurationError, match=f"health='{method}'.* no such remote method"):
        services.add(acting.Actor(), ServiceOptions(health=method))
    assert len(services) == 0


def test_who_is_too_large_is_replaced(services):
    status = services.add(acting.Actor(id="actor"), ServiceOptions(max_rss=150 * MIB))
    status.started.get(timeout=PATIENCE)
    old, started = status.pid, status.started
    services["actor"].grow(300 * MIB).get(timeout=PATIENCE)
    wait_until(lambda: status.started_times == 2)
    assert status.started is started  # without a moment in which there was none
    wait_until(lambda: old not in status.pids)
    assert status.last_exit.asked


def test_who_is_too_old_is_replaced(services):
    status = services.add(acting.Actor(id="actor"), ServiceOptions(max_age=0.15))
    status.started.get(timeout=PATIENCE)
    wait_until(lambda: status.started_times >= 3)
    assert all(each.asked for each in status.history)
    assert all(each.ran >= 0.14 for each in status.history)
