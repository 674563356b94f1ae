"""How services end, by themselves or asked to, and what follows."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import gevent
import pytest
from services import acting
from worlds import PATIENCE, alive, children_of, wait_until

from gtaskman import (
    Backoff,
    ServiceFailed,
    ServiceManager,
    ServiceOptions,
    ServiceState,
)
from gtaskman.report import FailureKind

ENDS = {  # how it ends by itself -> whether that is a failure, and what is told of it
    "returns": (False, "its run has returned"),
    "leaves": (False, "its run has returned"),
    "raises": (True, "it raised services.acting.Odd: (3, 'by itself')"),
    "exits": (True, "it ended with exit code 3"),
    "dies": (True, "it was killed by SIGSEGV"),
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("policy", ["always", "on-failure", "never"])
def test_each_end_under_each_policy(services, how, policy):
    failure, told = ENDS[how]
    restarts = {"always": True, "on-failure": failure, "never": False}[policy]
    options = ServiceOptions(restart=policy, backoff=0.01, max_restarts=2)
    status = services.add(acting.Short(id="short", how=how), options)

    wait_until(lambda: status.state in (ServiceState.STOPPED, ServiceState.FAILED))
    # (a restart that is allowed happens, until they are too many)
    assert status.started_times == (3 if restarts else 1)
    assert status.state is (ServiceState.FAILED if restarts or failure else ServiceState.STOPPED)
    assert [each.message.split(", having")[0] for each in status.history] == [told] * (
        status.started_times
    )
    assert all((each.failure is not None) == failure for each in status.history)
    assert not any(each.asked for each in status.history)
    with pytest.raises(ServiceFailed, match=r"has failed|is stopped") as caught:
        status.started.get(timeout=PATIENCE)
    assert caught.value.exit == status.last_exit
    assert status.pids == []


def test_what_it_raised_is_told_with_its_traceback(services):
    status = services.add(acting.Short(id="short", how="raises"), ServiceOptions(restart="never"))
    status.stopped.get(timeout=PATIENCE)
    failure = status.last_exit.failure
    assert failure.kind is FailureKind.ERROR
    assert failure.exc_type == "services.acting.Odd"
    assert 'raise Odd(3, "by itself")' in failure.traceback
    assert status.report.error == failure


def test_a_signal_and_an_exit_code_are_told(services):
    killed = services.add(acting.Actor(id="killed"), ServiceOptions(restart="never"))
    killed.started.get(timeout=PATIENCE)
    os.kill(killed.pid, signal.SIGKILL)
    killed.stopped.get(timeout=PATIENCE)
    assert (killed.last_exit.failure.signal, killed.last_exit.failure.exitcode) == ("SIGKILL", None)
    left = services.add(acting.Actor(id="left"), ServiceOptions(restart="on-failure"))
    left.started.get(timeout=PATIENCE)
    services["left"].exit(0)
    left.stopped.get(timeout=PATIENCE)
    # an exit with 0 is no failure
    assert (left.last_exit.failure, left.state) == (None, ServiceState.STOPPED)


def test_a_crash_loop_waits_longer_and_longer(services):
    delays, failed = [], []
    services.on("service-restarting", lambda event: delays.append(event.delay))
    services.on("service-failed", failed.append)
    backoff = Backoff(first=0.01, factor=2, maximum=0.04, jitter=0)
    options = ServiceOptions(backoff=backoff, max_restarts=4, window=60)
    status = services.add(acting.Short(id="short", how="dies"), options)
    wait_until(lambda: failed)
    assert delays == [0.01, 0.02, 0.04, 0.04]
    assert len(status.history) == 5
    with pytest.raises(ServiceFailed, match=r"SIGSEGV.* restarted 4 times within 60 s"):
        status.started.get(timeout=PATIENCE)
    # a restart by hand begins with a clean slate
    delays.clear()
    services.restart("short")
    wait_until(lambda: status.state is ServiceState.FAILED)
    assert delays[0] == 0.01


def test_who_ran_well_is_back_soon(services):
    delays = []
    services.on("service-restarting", lambda event: delays.append(event.delay))
    backoff = Backoff(first=0.01, factor=10, maximum=10, jitter=0)
    options = ServiceOptions(backoff=backoff, stable_after=0.05)
    services.add(acting.Short(id="short", how="returns", after=0.1), options)
    wait_until(lambda: len(delays) >= 3)
    assert delays[:3] == [0.01] * 3


def test_it_is_ready_again_soon_after_a_crash(services):
    status = services.add(acting.Actor(id="actor"), ServiceOptions(backoff=0))
    status.started.get(timeout=PATIENCE)
    took = []
    for _ in range(5):
        begin = time.monotonic()
        os.kill(status.pid, signal.SIGKILL)
        wait_until(lambda: status.stopped.done() or status.state is not ServiceState.RUNNING)
        status.started.get(timeout=PATIENCE)
        took.append(time.monotonic() - begin)
    print(f"ready again after {sorted(took)[2] * 1e3:.1f} ms")  # a figure; the machine is shared
    assert status.started_times == 6


def test_a_service_that_waits_to_be_restarted_can_be_stopped_or_restarted(services):
    status = services.add(acting.Short(id="short", how="raises"), ServiceOptions(backoff=60))
    wait_until(lambda: status.state is ServiceState.BACKOFF)
    [place] = status.instances
    assert 30 < place.restart_in <= 60
    first = status.started_times
    services.restart("short")
    wait_until(lambda: status.started_times > first)
    wait_until(lambda: status.state is ServiceState.BACKOFF)
    services.stop_service("short")
    assert status.state is ServiceState.STOPPED
    services.remove("short")


def test_one_instance_may_fail_beside_another(services):
    options = ServiceOptions(instances=2, restart="never")
    status = services.add(acting.Uneven(id="uneven"), options)
    wait_until(lambda: [e.state.name for e in status.instances] == ["RUNNING", "FAILED"])
    assert status.state is ServiceState.RUNNING
    # it is not said to have started, and nobody waits for that in vain
    with pytest.raises(ServiceFailed, match=r"'uneven' has failed: .*one is enough"):
        status.started.get()
    assert len(status.pids) == 1


def test_the_loop_ends_when_no_service_is_left():
    """In a thread: on this one's hub there may be what other tests have left."""
    told = []

    def live():
        hub = gevent.get_hub()
        with ServiceManager() as services:
            never, later = ServiceOptions(restart="never"), ServiceOptions(backoff=1000)
            gone = services.add(acting.Short(id="gone", how="returns"), never)
            waits = services.add(acting.Short(id="waits", how="raises"), later)
            wait_until(lambda: gone.last_exit and waits.state is ServiceState.BACKOFF)
            told.append(hub.join(timeout=0.1))  # one is yet to come back
            services.stop_service("waits")
            told.append(hub.join(timeout=PATIENCE))

    thread = threading.Thread(target=live)
    thread.start()
    thread.join(2 * PATIENCE)
    assert told == [False, True]


# --- being asked


def test_without_a_stop_of_its_own_it_is_cancelled_even_if_it_computes(services, tmp_path):
    mark = tmp_path / "mark"
    status = services.add(acting.Computing(id="computing", mark=str(mark)))
    status.started.get(timeout=PATIENCE)
    wait_until(mark.exists)
    services.remove("computing")
    assert not mark.exists()  # its finally has run
    assert (status.last_exit.asked, status.last_exit.failure) == (True, None)


def test_a_stop_that_raises_cancels(services, tmp_path):
    status = services.add(acting.Awkward(id="awkward"))
    status.started.get(timeout=PATIENCE)
    begin = time.monotonic()
    services.remove("awkward")
    assert time.monotonic() - begin < 4  # not its terminate_timeout
    assert (status.last_exit.asked, status.last_exit.failure) == (True, None)


LADDER = ServiceOptions(terminate_timeout=0.2, terminate_timeout_hard=0.5)


@pytest.mark.parametrize(
    ("deaf", "signal_name", "told"),
    [
        (False, "SIGTERM", "it did not end within 0.2 s of being asked"),
        (True, "SIGKILL", "it did not end within 0.5 s of being asked, and ignored SIGTERM"),
    ],
)
def test_who_does_not_end_is_terminated_and_then_killed(services, deaf, signal_name, told):
    status = services.add(acting.Stubborn(id="stubborn", deaf=deaf), LADDER)
    status.started.get(timeout=PATIENCE)
    begin = time.monotonic()
    services.remove("stubborn")
    assert time.monotonic() - begin >= (0.5 if deaf else 0.2)
    end = status.last_exit
    assert (end.asked, end.failure.signal) == (True, signal_name)
    assert told in end.message


def test_a_spinning_service_with_a_stop_of_its_own_is_terminated(services):
    status = services.add(acting.Actor(id="actor"), LADDER)
    status.started.get(timeout=PATIENCE)
    services["actor"].spin()
    services.remove("actor")
    assert status.last_exit.failure.signal == "SIGTERM"


# --- starts that fail


def test_who_is_not_ready_in_time_is_killed(services, tmp_path):
    options = ServiceOptions(restart="never", start_timeout=0.2)
    status = services.add(acting.Slow(id="slow", gate=str(tmp_path / "never")), options)
    with pytest.raises(ServiceFailed, match=r"was not ready within 0.2 s \(start_timeout\)"):
        status.started.get(timeout=PATIENCE)
    assert status.state is ServiceState.FAILED
    assert status.started_times == 0


def test_who_fails_before_it_is_ready_is_started_again(services, tmp_path):
    gate = tmp_path / "gate"
    gate.write_text("fail")
    status = services.add(acting.Slow(id="slow", gate=str(gate)), ServiceOptions(backoff=0.01))
    wait_until(lambda: len(status.history) > 2)
    assert status.started_times == 0
    gate.write_text("go")
    status.started.get(timeout=PATIENCE)
    assert status.started_times == 1


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
def test_code_that_cannot_be_imported_is_no_reason_to_try_again(
    make_services, start_method, tmp_path, monkeypatch
):
    # given a module that can be imported here, and nowhere else
    module = tmp_path / "only_here.py"
    module.write_text("import gtaskman\nclass Absent(gtaskman.ServiceTask): value: int = 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    absent = importlib.import_module("only_here").Absent(id="absent")
    module.write_text("raise RuntimeError('not in here')")
    services = make_services(start_method=start_method)

    status = services.add(absent)

    with pytest.raises(ServiceFailed, match="cannot be imported in its process: RuntimeError: not"):
        status.started.get(timeout=PATIENCE)
    assert status.state is ServiceState.FAILED
    assert len(status.history) == 1  # no storm
    assert "not in here" in status.last_exit.failure.traceback
    del sys.modules["only_here"]


def test_code_whose_import_does_not_end_is_given_up(make_services, tmp_path, monkeypatch):
    module = tmp_path / "endless.py"
    module.write_text("import gtaskman\nclass Endless(gtaskman.ServiceTask): value: int = 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    endless = importlib.import_module("endless").Endless(id="endless")
    module.write_text("import time\ntime.sleep(1000)")
    services = make_services(start_timeout=4 * PATIENCE)
    status = services.add(endless, ServiceOptions(backoff=0.01, start_timeout=4 * PATIENCE))
    starter = services._crew._starter
    wait_until(lambda: starter._current and starter._current.importing == "endless")
    assert starter._alarm.armed
    services.home.ask(lambda: starter._too_late(starter._current))
    with pytest.raises(ServiceFailed, match=r"importing 'endless' .* did not end within [\d.]+ s"):
        status.started.get(timeout=PATIENCE)
    assert status.state is ServiceState.FAILED
    # nor does another start make a process, for whose end somebody might wait in vain
    restarted = services.restart("endless")
    assert restarted.stopped.wait(PATIENCE)
    assert restarted.state is ServiceState.FAILED
    # others are not held up
    services.add(acting.Actor(id="actor")).started.get(timeout=PATIENCE)
    del sys.modules["endless"]


def test_who_is_not_even_born_in_time_is_not_waited_for(make_services, tmp_path, monkeypatch):
    # given a template that takes longer than the service may
    module = tmp_path / "lazy.py"
    module.write_text("import gtaskman\nclass Lazy(gtaskman.ServiceTask): value: int = 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    lazy = importlib.import_module("lazy").Lazy(id="lazy")
    module.write_text("import time\ntime.sleep(1000)")
    services = make_services()
    status = services.add(lazy, ServiceOptions(restart="never", start_timeout=0.2))
    with pytest.raises(ServiceFailed, match=r"was not ready within 0\.2 s"):
        status.started.get(timeout=PATIENCE)
    assert status.pids == []
    del sys.modules["lazy"]


# --- the template


def test_services_come_back_when_their_template_dies(services):
    statuses = [
        services.add(acting.Actor(id=f"actor-{at}"), ServiceOptions(backoff=0.01))
        for at in range(3)
    ]
    for status in statuses:
        status.started.get(timeout=PATIENCE)
    pids = [status.pid for status in statuses]
    [template] = [each.pid for each in children_of(os.getpid()) if "template" in each.title]
    os.kill(template, signal.SIGKILL)
    wait_until(lambda: not any(map(alive, pids)))
    wait_until(lambda: all(status.last_exit for status in statuses))
    for at, status in enumerate(statuses):
        status.started.get(timeout=PATIENCE)
        assert "template" in status.last_exit.message
        assert services[f"actor-{at}"].times(1).get(timeout=PATIENCE) == 2


def test_a_process_is_named_after_its_service(services):
    status = services.add(acting.Actor(id="my actor"))
    status.started.get(timeout=PATIENCE)
    title = Path(f"/proc/{status.pid}/cmdline").read_bytes().rstrip(b"\0").decode()
    assert title == "gtaskman: service my actor [0]"


def test_options_that_can_no_longer_travel_fail_as_its_policy_says_and_leave_no_process(services):
    task = acting.Actor(id="actor")
    status = services.add(task, ServiceOptions(restart="always", backoff=0.05))
    status.started.get(timeout=PATIENCE)
    (pid,) = status.pids
    arguments = task.arguments
    task.arguments = lambda: ((), {"depth": (each for each in ())})
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: status.last_exit is not None and status.last_exit.pid is None)
    assert not services._crew._instances

    task.arguments = arguments

    wait_until(lambda: status.state is ServiceState.RUNNING)
