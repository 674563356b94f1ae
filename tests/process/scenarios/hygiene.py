"""Applications that are full of life, and what of it must not reach their workers."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import socket as standard_socket
from pathlib import Path

import gevent
import gevent.event
import gevent.socket
from gevent import monkey
from gevent.pywsgi import WSGIServer
from worlds import descriptors, parent_of

import gtaskman
from scenarios import stage, tasks

start_new_thread = monkey.get_original("_thread", "start_new_thread")
allocate_lock = monkey.get_original("_thread", "allocate_lock")
native_sleep = monkey.get_original("time", "sleep")


# --- everything that an application may have -----------------------------------------------------


class Diary:
    """A file to which every process appends whole lines: what has run, and in which process."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._mine = os.getpid()

    def note(self, what):
        os.write(self._file, f"{os.getpid()} {what}\n".encode())

    def note_strangers(self, what):
        """For what happens often: here it is taken for granted."""
        if os.getpid() != self._mine:
            self.note(what)


def greenlet_of_the_application(diary, number):
    diary.note("greenlet began")
    try:
        while True:
            gevent.sleep(0.01 + number / 10000)
            diary.note_strangers("greenlet step")
    finally:
        diary.note("finally")


def thread_of_the_application(diary, ended):
    diary.note("thread began")
    while not ended:
        native_sleep(0.01)
        diary.note_strangers("thread step")


def web_application(_environ, start_response):
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def signals():
    """Those that this world leaves to the application."""
    chosen = [signal.SIGUSR2, signal.SIGALRM, signal.SIGWINCH]
    if stage.world() != "gunicorn":
        chosen += [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1]
    return chosen


class Life:
    """100 greenlets with ``finally``, threads, a held lock, handlers, hooks, a server, clients."""

    def __init__(self, diary):
        self.diary = diary
        self.ended = []
        self.greenlets = [
            gevent.spawn(greenlet_of_the_application, diary, number) for number in range(100)
        ]
        for _ in range(3):
            start_new_thread(thread_of_the_application, (diary, self.ended))
        for number in signals():
            signal.signal(number, lambda number, _frame: diary.note(f"signal {number}"))
        atexit.register(diary.note, "atexit")
        self.server = WSGIServer(("127.0.0.1", 0), web_application, log=None)
        self.server.start()
        # The server's part of a connection is kept open by a client of our own.
        self.client = gevent.socket.create_connection(("127.0.0.1", self.server.server_port))
        self.client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        assert b"200 OK" in self.client.recv(1000)
        gevent.get_hub().threadpool.apply(int)

    def end(self):
        self.ended.append(True)
        gevent.killall(self.greenlets)
        self.client.close()
        self.server.stop()
        for number in signals():
            signal.signal(number, signal.SIG_DFL)


# --- scenarios -----------------------------------------------------------------------------------


@gtaskman.task
def look_around():
    """Live in a worker for a while, in every way that could wake what was inherited."""
    gevent.sleep(0.2)
    assert gevent.spawn(lambda: 42).get() == 42
    assert gevent.get_hub().threadpool.apply(lambda: 42) == 42
    gc.collect()
    gevent.sleep(0.05)
    return os.getpid()


@gtaskman.task(kind="async")
def look_around_too():
    gevent.sleep(0.1)
    return os.getpid()


def an_application_full_of_life(path, **config):
    """Workers come, work, and go in every way there is."""
    life = Life(Diary(path))
    gevent.sleep(0.05)
    pids = []
    with stage.manager(max_processes=3, **config) as manager:
        handles = [manager.submit(look_around) for _ in range(2)]
        handles += [manager.submit(look_around_too) for _ in range(10)]
        pids += [handle.get(timeout=stage.PATIENCE) for handle in handles]
        # One ends by itself, one is killed by what the application handles.
        try:
            manager.submit(tasks.die, 3).get(timeout=stage.PATIENCE)
        except gtaskman.WorkerCrashed as crash:
            codes = [crash.exitcode]
        names = []
        for number in signals()[:1] + signals()[3:4]:
            resting = manager.submit(tasks.rest, 60)
            stage.wait_until(lambda handle=resting: handle.report.worker)
            os.kill(resting.report.worker, number)
            try:
                resting.get(timeout=stage.PATIENCE)
            except gtaskman.WorkerCrashed as crash:
                names.append(crash.signal)
        pids += [manager.submit(tasks.where).get(timeout=stage.PATIENCE)]
    life.end()
    return {"pid": os.getpid(), "workers": sorted(set(pids)), "codes": codes, "signals": names}


def an_application_with_sockets(peer, **config):
    """Holds, with an idle and a blocked worker; then closes its client, and holds again."""
    life = Life(Diary(os.devnull))
    sockets = [
        gevent.socket.create_connection(("127.0.0.1", peer)),
        standard_socket.create_connection(("127.0.0.1", peer)),
    ]
    pair = standard_socket.socketpair()
    manager = stage.manager(min_processes=2, max_processes=2, **config).start()
    blocked = manager.submit(tasks.spin_for_ever)
    stage.wait_until(lambda: blocked.report.worker)
    idle = manager.submit(tasks.where).get(timeout=stage.PATIENCE)
    stage.tell(
        "ready",
        pid=os.getpid(),
        port=life.server.server_port,
        blocked=blocked.report.worker,
        idle=idle,
        mother=parent_of(idle),
    )
    stage.hold("sockets are looked at")
    for each in sockets:
        each.close()
    stage.tell("closed")
    stage.hold("requests are made")
    for each in pair:
        each.close()
    manager.stop(timeout=0)
    life.end()
    return blocked.report.status.value


def workers_at_work(**config):
    """Holds with workers of each state; starts many more when told to."""
    config = {"min_processes": 3, "max_processes": 30, **config}
    manager = stage.manager(**config).start()
    blocked = manager.submit(tasks.spin_for_ever)
    stage.wait_until(lambda: blocked.report.worker)
    stage.wait_until(lambda: len(manager.pids()) >= config["min_processes"])
    idle = next(pid for pid in manager.pids() if pid != blocked.report.worker)
    stage.tell(
        "ready", pid=os.getpid(), workers=manager.pids(), blocked=blocked.report.worker, idle=idle
    )
    stage.hold("burst")
    for _ in range(25):
        manager.submit(tasks.spin_for_ever)
    stage.tell("starting")
    stage.hold()


def workers_just_born(**config):
    """Holds as soon as the first children of the manager have been started."""
    stage.manager(min_processes=2, **config).start()
    stage.tell("ready")
    stage.hold()


def a_template_that_takes_its_time(path, **config):
    """Holds while the template, or the first worker, imports the application."""
    os.environ["SLOW_IMPORT"] = path
    manager = stage.manager(preload=("apps.slow",), **config).start()
    stage.wait_until(lambda: os.path.exists(path))
    stage.tell("ready", importing=int(Path(path).read_text()), pids=manager.pids())
    stage.hold()


def the_template_dies(**config):
    """The zygote is killed under a blocked, a starting and an idle worker: another one follows."""
    crashes = []
    with stage.manager(min_processes=2, max_processes=3, **config) as manager:
        blocked = manager.submit(tasks.spin_for_ever)
        stage.wait_until(lambda: blocked.report.worker)
        idle = manager.submit(tasks.where).get(timeout=stage.PATIENCE)
        first = parent_of(idle)
        before = manager.pids()
        stage.tell("ready", template=first, workers=before)
        try:
            blocked.get(timeout=stage.PATIENCE)
        except gtaskman.WorkerCrashed as crash:
            crashes.append(str(crash))
        after = manager.submit(tasks.where).get(timeout=stage.PATIENCE)
        second = parent_of(after)
        handles = [manager.submit(tasks.double, number) for number in range(50)]
        doubled = [handle.get(timeout=stage.PATIENCE) for handle in handles]
        return {
            "crashes": crashes,
            "templates": [first, second],
            "before": before,
            "after": after,
            "doubled": doubled == [2 * number for number in range(50)],
            "stats": manager.stats()["pool"],
        }


def many_forks(count, **config):
    """Every task has a worker of its own; the template is looked at on the way."""
    pids = []
    with stage.manager(max_processes=2, max_tasks_per_process=1, **config) as manager:
        mother = manager.submit(tasks.lineage).get(timeout=stage.PATIENCE)[1]
        # The application itself has one, too: that it is found there shows that we can see it.
        hub = any("eventpoll" in what for what in descriptors().values())
        for number in range(count):
            pids.append(manager.submit(tasks.where).get(timeout=stage.PATIENCE))
            if number % max(1, count // 10) == 0:
                stage.tell("look", at=number, **_look_at(mother))
        # Let the last ones end before the last look.
        stage.wait_until(lambda: manager.stats()["pool"]["current_processes"] <= 2)
        stage.tell("forked", template=mother, own=os.getpid())
        stage.hold()
    return {"workers": len(set(pids)), "hub": hub, "template": mother}


def _look_at(pid):
    with open(f"/proc/{pid}/statm") as statm:
        resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    what = list(descriptors(pid).values())
    return {
        "resident": resident,
        "threads": len(os.listdir(f"/proc/{pid}/task")),
        "descriptors": len(what),
        "hub": any("eventpoll" in each for each in what),
    }
