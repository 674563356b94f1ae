"""One manager and many threads; forks of the application; a main thread that never yields."""

from __future__ import annotations

import os
import time

import gevent
from gevent import monkey
from gevent._hub_local import get_hub_if_exists
from worlds import parent_of

import gtaskman
from scenarios import stage, tasks

start_new_thread = monkey.get_original("_thread", "start_new_thread")
native_sleep = monkey.get_original("time", "sleep")


class Thread:
    """A real native thread, patched or not, whose end can be waited for cooperatively."""

    def __init__(self, function, *arguments):
        self.value = self.error = None
        self.ended = False
        self._call = (function, arguments)
        start_new_thread(self._run, ())

    def _run(self):
        function, arguments = self._call
        try:
            self.value = function(*arguments)
        except BaseException as error:
            self.error = error
        self.ended = True

    def join(self):
        stage.wait_until(lambda: self.ended)
        if self.error is not None:
            raise self.error
        return self.value


def _natively(manager, number):
    handles = [manager.submit(tasks.double, number * 100 + each) for each in range(20)]
    values = [handle.get(timeout=stage.PATIENCE) for handle in handles]
    assert get_hub_if_exists() is None, "waiting has made a hub in this thread"
    return values


def _cooperatively(manager, number):
    handles = [manager.submit(tasks.double, number * 100 + each) for each in range(20)]
    getters = [gevent.spawn(handle.get, stage.PATIENCE) for handle in handles]
    ticks = []
    ticker = gevent.spawn(lambda: [ticks.append(gevent.sleep(0.001)) for _ in range(10_000)])
    done = gevent.wait(handles, timeout=stage.PATIENCE)
    assert len(done) == 20
    values = [getter.get() for getter in getters]
    ticker.kill()
    gevent.get_hub().destroy(destroy_loop=True)
    return values


def many_threads(how, **config):
    """Eight threads submit to one manager at once, and wait natively or cooperatively."""
    wait = {"natively": _natively, "cooperatively": _cooperatively}
    with stage.manager(**config) as manager:
        threads = [
            Thread(wait[how] if how in wait else wait[sorted(wait)[number % 2]], manager, number)
            for number in range(8)
        ]
        values = [thread.join() for thread in threads]
        right = [[2 * (number * 100 + each) for each in range(20)] for number in range(8)]
        return {"right": values == right, "stats": manager.stats()["pool"]}


def default_manager_for_several_at_once():
    """Its start waits for a thread of its own, and meanwhile others want it too."""
    gtaskman.configure(background=True)

    def double(number):
        return gtaskman.submit(tasks.double, number).get(stage.PATIENCE)

    greenlets = [gevent.spawn(double, each) for each in range(3)]
    natives = [Thread(double, each) for each in range(2)]
    gevent.joinall(greenlets, raise_error=True, timeout=stage.PATIENCE)
    values = [each.value for each in greenlets] + [each.join() for each in natives]
    workers = len(gtaskman.default.manager().pids())
    gtaskman.shutdown()
    return {"values": values, "workers": workers}


def default_manager_from_a_thread():
    """First used in a native thread, which ends; then by others."""
    first = Thread(lambda: gtaskman.submit(tasks.where).get(stage.PATIENCE)).join()
    second = Thread(lambda: gtaskman.submit(tasks.where).get(stage.PATIENCE)).join()
    third = gtaskman.submit(tasks.where).get(stage.PATIENCE)
    natives = [Thread(_natively, gtaskman, number) for number in range(4)]
    values = [thread.join() for thread in natives]
    gtaskman.shutdown()
    return {
        "own": os.getpid(),
        "workers": [first, second, third],
        "right": values == [[2 * (n * 100 + each) for each in range(20)] for n in range(4)],
    }


def a_main_thread_that_never_yields(**config):
    """With background=True tasks are handed out and end though nobody here waits for anything."""
    manager = stage.manager(background=True, **config).start()
    handles = [manager.submit(tasks.double, number) for number in range(20)]
    end = time.monotonic() + stage.PATIENCE
    computed = 0
    while not all(handle.done() for handle in handles):
        computed += sum(range(1000))
        if time.monotonic() > end:
            raise AssertionError("tasks do not move")
    values = [handle.get() for handle in handles]
    failing = manager.submit(tasks.fail, "in the background")
    while not failing.done():
        native_sleep(0.001)
    report = failing.report
    # With a hub in this thread that has nothing else to wait for.
    gevent.get_hub()
    assert manager.submit(tasks.double, 3).get() == 6
    manager.stop()
    return {"values": values, "error": report.error.message, "pids": manager.pids()}


def _attempt(function, *arguments):
    try:
        return f"no error but {function(*arguments)!r}"
    except BaseException as error:
        return type(error).__name__


def a_fork_of_the_application(fork, **config):
    """The fork makes a default manager of its own, and is refused what is its parent's."""
    gtaskman.configure(max_processes=2, **config)
    explicit = stage.manager(**config).start()
    running = explicit.submit(tasks.rest, 600)
    ended = explicit.submit(tasks.double, 4)
    assert ended.get(stage.PATIENCE) == 8
    own = gtaskman.submit(tasks.lineage).get(stage.PATIENCE)
    stage.wait_until(lambda: running.report.worker)
    pid = {"os": os.fork, "gevent": gevent.fork}[fork]()
    if pid == 0:
        if stage.gunicorn_worker is not None:
            # Its greenlets go on in here, and end a process whose parent is not the arbiter.
            type(stage.gunicorn_worker).notify = lambda _self: None
        try:
            _in_the_fork(explicit, running, ended)
        except BaseException as error:
            stage.tell("fork", error=repr(error))
        os._exit(0)
    facts = {}
    # The parent is disturbed in nothing.
    facts["double"] = explicit.submit(tasks.double, 8).get(stage.PATIENCE)
    facts["own"] = own
    facts["again"] = gtaskman.submit(tasks.lineage).get(stage.PATIENCE)
    facts["workers"] = [*explicit.pids(), *gtaskman.default.manager().pids()]
    facts["templates"] = sorted({parent_of(each) for each in facts["workers"]})
    stage.tell("parent", pid=os.getpid(), fork=pid, **facts)
    stage.hold()
    stage.wait_until(lambda: _reaped(pid))
    explicit.stop(timeout=0)
    gtaskman.shutdown()
    return True


def _reaped(pid):
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _in_the_fork(explicit, running, ended):
    refused = {
        "submit": _attempt(explicit.submit, tasks.double, 1),
        "get": _attempt(running.get, 1),
        "wait": _attempt(running.wait, 1),
    }
    # What has ended is known here as well.
    known = ended.get()
    mine = gtaskman.submit(tasks.lineage).get(stage.PATIENCE)
    pids = gtaskman.default.manager().pids()
    stage.tell("fork", pid=os.getpid(), refused=refused, known=known, lineage=mine, workers=pids)
    stage.hold()
    gtaskman.shutdown()
