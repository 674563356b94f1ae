"""The services of these tests. Every process imports this; it does nothing when imported."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer

import gtaskman


class Odd(Exception):
    """An exception of our own, with attributes."""

    def __init__(self, code, text):
        super().__init__(code, text)
        self.code = code


class Unportable(Exception):
    """Cannot be built again from what it says of itself."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Actor(gtaskman.ServiceTask):
    """Waits, and does what it is told by calls."""

    factor: int = 2
    notes = 0

    def run(self, progress):
        self.told = Event()
        progress.update(1, target=2, message="waiting")
        self.told.wait()

    def stop(self):
        self.told.set()

    @gtaskman.remote
    def whoami(self):
        return os.getpid()

    @gtaskman.remote
    def times(self, number, *, again=1):
        return number * self.factor * again

    @gtaskman.remote
    def set_factor(self, factor):
        self.factor = factor

    @gtaskman.remote
    def echo(self, value):
        return value

    @gtaskman.remote
    def nap(self, seconds):
        gevent.sleep(seconds)
        return seconds

    @gtaskman.remote
    def fail(self, code):
        raise Odd(code, "as asked")

    @gtaskman.remote
    def fail_unportably(self):
        raise Unportable(1, 2)

    @gtaskman.remote
    def leave(self):
        raise gevent.GreenletExit

    @gtaskman.remote
    def useless(self):
        return threading.Lock()

    @gtaskman.remote
    def die(self, number):
        os.kill(os.getpid(), number)
        time.sleep(60)

    @gtaskman.remote
    def exit(self, code):
        os._exit(code)

    @gtaskman.remote
    def end(self):
        self.told.set()

    @gtaskman.remote
    def place(self):
        return self.instance

    @gtaskman.remote
    def task_id(self):
        return gtaskman.current().id

    @gtaskman.remote
    def tell(self, name, payload):
        self.emit(name, payload)

    @gtaskman.remote
    def tell_useless(self):
        self.emit("useless", threading.Lock())

    @gtaskman.remote
    def tell_of_its_own(self):
        made = type("Own", (), {"__module__": __name__})
        globals()["Own"] = made
        self.emit("own", made())

    @gtaskman.remote
    def tell_from_thread(self, name):
        gevent.get_hub().threadpool.apply(self.emit, (name, "from a thread"))

    @gtaskman.remote
    def grow(self, size):
        self.held = b"x" * size

    @gtaskman.remote
    def spin(self):
        while True:
            pass

    @gtaskman.remote
    def ask_parent(self, number):
        return self.parent.note(number)

    @gtaskman.remote
    def ask_parent_by_name(self, method, *args):
        return self.parent.call(method, *args)

    @gtaskman.remote
    def ask_parent_from_thread(self, number):
        return gevent.get_hub().threadpool.apply(self.parent.note, (number,))

    @gtaskman.remote(parent=True)
    def note(self, number):
        self.notes += number
        return self.notes, os.getpid()

    @gtaskman.remote(parent=True)
    def refuse(self):
        raise Odd(7, "not in here")

    def secret(self):
        return "never told"


class Short(gtaskman.ServiceTask):
    """Ends by itself, as its options say."""

    how: str
    after: float = 0.0

    def run(self, _progress):
        gevent.sleep(self.after)
        if self.how == "raises":
            raise Odd(3, "by itself")
        if self.how == "exits":
            os._exit(3)
        if self.how == "leaves":
            raise SystemExit(0)
        if self.how == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(60)


class Computing(gtaskman.ServiceTask):
    """Computes without a pause; what ends is left to the default."""

    mark: str

    def run(self, _progress):
        Path(self.mark).touch()
        try:
            while True:
                pass
        finally:
            Path(self.mark).unlink()


class Stubborn(gtaskman.ServiceTask):
    """Does not end when it is asked, nor by SIGTERM if it is ``deaf``."""

    deaf: bool = False

    def run(self, _progress):
        if self.deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Event().wait()

    def stop(self):
        pass


class Awkward(gtaskman.ServiceTask):
    """Its ``stop`` raises."""

    def run(self, _progress):
        Event().wait()

    def stop(self):
        raise Odd(1, "while it was to stop")


class Slow(gtaskman.ServiceTask, notify=True):
    """Is ready when the file ``gate`` is there; fails if that says so."""

    gate: str

    def run(self, _progress):
        while not os.path.exists(self.gate):
            gevent.sleep(0.005)
        if Path(self.gate).read_text() == "fail":
            raise Odd(4, "not this time")
        self.ready()
        self.told = Event()
        self.told.wait()

    def stop(self):
        self.told.set()

    @gtaskman.remote
    def whoami(self):
        return os.getpid()


class Uneven(gtaskman.ServiceTask):
    """Only the first of its instances lives."""

    def run(self, _progress):
        if self.instance:
            raise Odd(5, "one is enough")
        Event().wait()


class Sick(gtaskman.ServiceTask):
    """Its health is what the file ``mark`` says."""

    mark: str

    def run(self, _progress):
        Event().wait()

    @gtaskman.remote
    def check(self):
        health = Path(self.mark).read_text()
        if health == "raises":
            raise Odd(2, "unwell")
        if health == "hangs":
            gevent.sleep(60)
        if health == "spins":
            while True:
                pass
        return health != "false"


class Web(gtaskman.ServiceTask):
    """A web server that drains: it answers what is under way, and lets nobody stay."""

    greeting: str
    pause: float = 0.0

    def run(self, _progress):
        self.draining = False
        self.server = WSGIServer(self.sockets["http"], self.answer, log=None, spawn=Pool(1000))
        self.server.serve_forever(stop_timeout=4)

    def answer(self, _environ, start_response):
        if self.pause:
            gevent.sleep(self.pause)
        body = f"{self.greeting} from {os.getpid()}".encode()
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
        if self.draining:
            headers.append(("Connection", "close"))
        start_response("200 OK", headers)
        return [body]

    def stop(self):
        self.draining = True
        self.server.stop(timeout=4)

    @gtaskman.remote
    def set_greeting(self, greeting):
        self.greeting = greeting
