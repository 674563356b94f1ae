"""The figures: each is measured on a manager of its own, and every answer is checked."""

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import gevent

import gtaskman
from benchmarks.services.acts import Idle, Web
from benchmarks.services.load import Load

PATIENCE = 60.0  # seconds


@dataclass(frozen=True)
class Figure:
    """One number, in a unit, and the target: at most, or at least, so much."""

    name: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


def restart(quick: bool) -> Iterator[Figure]:
    """Crash a service: how long until another process of it is ready, beside the back-off."""
    wait = 0.05
    options = gtaskman.ServiceOptions(backoff=gtaskman.Backoff(first=wait, factor=1, jitter=0))
    took = []
    with gtaskman.ServiceManager() as services:
        status = services.add(Idle(id="idle"), options)
        status.started.get(timeout=PATIENCE)
        for _ in range(10 if quick else 30):
            pid, down = status.pid, status.stopped
            assert pid is not None
            begin = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            down.get(timeout=PATIENCE)
            status.started.get(timeout=PATIENCE)
            took.append(time.perf_counter() - begin - wait)
    yield Figure("ready after a crash, beside the back-off: median", _ms(took), "ms", 50)
    yield Figure("the same: worst", max(took) * 1e3, "ms")


def calls(quick: bool) -> Iterator[Figure]:
    """Call a service: many at once, and one after the other."""
    count = 2000 if quick else 20_000
    with gtaskman.ServiceManager() as services:
        services.add(Idle(id="idle")).started.get(timeout=PATIENCE)
        idle = services["idle"]

        def burst() -> list[int]:
            return [each.get() for each in [idle.double(at) for at in range(count)]]

        def one_by_one() -> list[int]:
            return [idle.double(at).get() for at in range(count // 4)]

        for name, work in (("at once", burst), ("one after the other", one_by_one)):
            begin = time.perf_counter()
            answers = work()
            seconds = time.perf_counter() - begin
            assert answers == [2 * at for at in range(len(answers))]
            yield Figure(f"calls {name}", len(answers) / seconds, "calls/s", 5000, at_least=True)


def hundred(quick: bool) -> Iterator[Figure]:
    """Start a hundred services, and let them be."""
    count, seconds = 100, 2.0 if quick else 5.0
    services = gtaskman.ServiceManager()
    statuses = [services.add(Idle(id=f"idle-{at}")) for at in range(count)]
    begin = time.perf_counter()
    with services:
        for status in statuses:
            status.started.get(timeout=PATIENCE)
        yield Figure("100 services are ready", time.perf_counter() - begin, "s", 3)
        pids = [os.getpid(), *(pid for status in statuses for pid in status.pids)]
        assert len(pids) == count + 1
        gevent.sleep(0.5)
        before = sum(map(_cpu, pids))
        gevent.sleep(seconds)
        share = (sum(map(_cpu, pids)) - before) / seconds
        yield Figure("they idle, with their manager: CPU of one core", share * 100, "%", 1)


def reload(quick: bool) -> Iterator[Figure]:
    """Reload a web service of two instances while clients ask it."""
    background = gtaskman.Configuration(background=True)
    options = gtaskman.ServiceOptions(sockets={"http": ("127.0.0.1", 0)}, instances=2)
    for keep_alive in (False, True):
        with gtaskman.ServiceManager(background) as services:
            status = services.add(Web(id="web"), options)
            status.started.get(timeout=PATIENCE)
            load = Load(status.sockets["http"], 16, keep_alive)
            took = []
            try:
                for _ in range(3 if quick else 10):
                    begin = time.perf_counter()
                    services.reload("web")
                    took.append(time.perf_counter() - begin)
                    enough = load.answered + (100 if quick else 500)
                    while load.answered < enough:
                        time.sleep(0.01)
            finally:
                load.stop()
            assert len(load.pids) > 2 * len(took), "not every process has answered"
        kind = "kept connections" if keep_alive else "a connection each"
        yield Figure(f"requests answered during reloads, {kind}", load.answered, "")
        yield Figure(f"requests lost, {kind}", load.lost, "", 0)
        yield Figure(f"a reload of two instances, {kind}: median", _ms(took), "ms")


FIGURES: dict[str, Callable[[bool], Iterator[Figure]]] = {
    each.__name__: each for each in (restart, calls, hundred, reload)
}


def _ms(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1e3


def _cpu(pid: int) -> float:
    """Seconds of processor time that a process has had."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
