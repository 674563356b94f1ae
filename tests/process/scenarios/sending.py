"""An application that sends its tasks to a server: whichever world it is, threads, forks."""

from __future__ import annotations

import os

import gevent
from worlds import children_of

import gtaskman
from scenarios import stage, tasks, work
from scenarios.control import fate
from scenarios.stage import PATIENCE
from scenarios.threads import Thread, native_sleep


def the_module(url=None):
    """All calls of the module; what the hub did meanwhile."""
    if url is not None:
        gtaskman.configure(url=url)
    ticks = []
    ticker = gevent.spawn(lambda: [ticks.append(gevent.sleep(0.001)) for _ in range(10_000)])
    assert gtaskman.submit(work.rest, 0.2).get(timeout=PATIENCE)
    ticked = len(ticks)
    ticker.kill()
    handles = [gtaskman.submit(tasks.double, each) for each in range(50)]
    assert [each.get(timeout=PATIENCE) for each in handles] == [2 * each for each in range(50)]
    assert list(gtaskman.map(tasks.double, range(20), chunksize=3)) == list(range(0, 40, 2))
    unwanted = gtaskman.submit(work.nap)
    assert gtaskman.cancel(unwanted.id, "enough")
    assert fate(unwanted).reason == "enough"
    assert fate(tasks.fail.submit("on purpose")).message == "on purpose"
    assert gtaskman.report(unwanted.id).message == "enough"
    stats = gtaskman.stats()["pool"]
    gtaskman.shutdown()
    return {
        "ticked": ticked,
        "ended": [stats[f"{how}_tasks"] for how in ("completed", "failed", "cancelled")],
        "children": len(children_of(os.getpid())),
    }


def many_greenlets(url):
    """Each waits for its own task; nobody holds up the others."""
    with gtaskman.Client(url) as client:
        waiters = [gevent.spawn(_send_and_wait, client, each) for each in range(200)]
        gevent.joinall(waiters, timeout=PATIENCE, raise_error=True)
        return [each.value for each in waiters] == [2 * each for each in range(200)]


def _send_and_wait(client, number):
    return client.submit(tasks.double, number).get(timeout=PATIENCE)


def native_threads(url):
    """They have no gevent of their own: they send, and wait, as with any library."""
    client = gtaskman.Client(url)

    def use(number):
        handles = client.submit_many(tasks.double.task(each) for each in range(number, number + 30))
        return [each.get(timeout=PATIENCE) for each in handles]

    threads = [Thread(use, number) for number in range(8)]
    values = [each.join() for each in threads]
    assert values == [[2 * each for each in range(n, n + 30)] for n in range(8)]

    # One sends and sleeps, without its hub; others wait for what it sent.
    made, woken = [], []

    def send_and_sleep():
        made.append(client.submit(tasks.double, 21))
        while not woken:
            native_sleep(0.005)
        return made[0].get(timeout=PATIENCE)

    sender = Thread(send_and_sleep)
    stage.wait_until(lambda: made)
    assert Thread(lambda: made[0].get(timeout=PATIENCE)).join() == 42
    assert made[0].get(timeout=PATIENCE) == 42
    woken.append(True)
    assert sender.join() == 42
    client.close()
    return True


def a_fork(url, fork):
    """A client goes with the fork, and disturbs that of its parent in nothing."""
    gtaskman.configure(url=url)
    client = gtaskman.Client(url)
    running = client.submit(tasks.rest, 0.5)
    assert gtaskman.submit(tasks.double, 1).get(timeout=PATIENCE) == 2
    waiter = gevent.spawn(running.get, PATIENCE)
    gevent.sleep(0)
    pid = {"os": os.fork, "gevent": gevent.fork}[fork]()
    if pid == 0:
        if stage.gunicorn_worker is not None:
            # Its greenlets go on in here, and end a process whose parent is not the arbiter.
            type(stage.gunicorn_worker).notify = lambda _self: None
        try:
            stage.tell("fork", values=_in_the_fork(client, running))
        except BaseException as error:
            stage.tell("fork", values=repr(error))
        os._exit(0)
    values = [client.submit(tasks.double, each).get(timeout=PATIENCE) for each in range(20)]
    assert values == list(range(0, 40, 2))
    assert waiter.get(timeout=PATIENCE)
    assert gtaskman.submit(tasks.double, 2).get(timeout=PATIENCE) == 4
    stage.wait_until(lambda: _reaped(pid))
    gtaskman.shutdown()
    client.close()
    return True


def _in_the_fork(client, running):
    values = [client.submit(tasks.double, each).get(timeout=PATIENCE) for each in range(20)]
    values.append(gtaskman.submit(tasks.double, 20).get(timeout=PATIENCE))
    assert running.get(timeout=PATIENCE)
    return values


def _reaped(pid):
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
