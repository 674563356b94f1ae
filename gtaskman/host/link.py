"""``Link``: this process's way to the manager of its host, over one connection after another.

::

    AWAY --somebody wants to--> OPENING --welcome--> open --CLOSING--> fading --> closed
                                   ^                  |                             |
                                   '-- tasks left ----+--------- it has gone -------'

It lives on the hub of the main thread if it was first used there, else on one of its own native
thread; other threads hand their calls over. Should the manager go, what had not ended is asked for
at the next one, if that has it: the same manager still, or one with the same queue on a server.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import random
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import gevent

from gtaskman.backoff import Backoff
from gtaskman.distant import RemoteHandle
from gtaskman.errors import (
    AccessRefused,
    GTaskmanError,
    ManagerStopped,
    ServerUnavailable,
)
from gtaskman.home import Home
from gtaskman.host import messages
from gtaskman.host.address import SocketAddress
from gtaskman.host.connection import Answer, Connection, NotThere
from gtaskman.host.handle import HostHandle
from gtaskman.host.messages import Hello, Welcome
from gtaskman.latch import Latch
from gtaskman.process import in_main_thread
from gtaskman.report import Report
from gtaskman.wire.payload import Payload

log = logging.getLogger(__name__)

T = TypeVar("T")

_GREETING = 5.0  # seconds that a manager has to say welcome
_BACKOFF = Backoff(first=0.01, factor=2.0, maximum=0.5, jitter=0.5)
_LAST_WORDS = 10.0  # seconds that a manager has to take what was sent, when the link is closed
_LOOK = 0.002
_REST = 0.05  # seconds after which a link with nothing to do keeps no loop alive


class Opener(Protocol):
    """Who can read results in envelopes."""

    def open_sealed(self, report: Report, data: bytes, queue: str) -> Any:
        """The value of one. Raises :class:`PayloadError`."""


class Link:
    """One process's way to one manager. Nothing is opened before the first call."""

    def __init__(self, address: SocketAddress, patience: float | None, owner: Opener) -> None:
        self.address = address
        self.settled = Latch()
        self.pid = os.getpid()
        self.forked = False  # this is a fork of the process whose it is
        self.patience = patience
        self.connection: Connection | None = None  # the newest one
        self.nonce = os.urandom(8).hex()
        self._fading: set[Connection] = set()  # older ones, with tasks that have not ended
        self._owner = owner
        self._numbers = itertools.count(1)
        self._home = Home("this link to a manager, and every task that was sent over it,")
        self._news = Latch()  # opens when an attempt to connect came to something
        self._opening: gevent.Greenlet | None = None
        self._wanted_until = 0.0  # the monotonic time until which somebody waits for a connection
        self._reason = "the hub of the thread that used it first does not run"
        self._absent = False  # nobody listened when it was tried last
        self._refusal: GTaskmanError | None = None  # why trying again is of no use
        self._recoveries: dict[gevent.Greenlet, list[HostHandle]] = {}
        self._closed = False
        self._left_over: list[HostHandle] = []  # that had not ended when it was closed
        self._resting: Any = None  # a timer, while there is nothing to do

    def settle(self) -> None:
        """Begin to live; once, by who has made it."""
        try:
            if in_main_thread():
                self._home.settle()
            else:
                self._home.settle_apart(_nothing)
            _links.add(self)
        finally:
            self.settled.open()

    @property
    def hub(self) -> Any:
        """The hub that it lives on."""
        return self._home.hub

    def number(self) -> int:
        """A number for one more task, or question."""
        return next(self._numbers)

    def ask_home(self, function: Callable[[], T]) -> T:
        """What ``function`` gives on our hub."""
        return self._home.ask(function)

    # --- having a connection

    def connect(self, patience: float | None, closing: bool = False) -> Connection:
        """The connection, opened if need be; ``closing`` is whether one will do over which no
        more tasks are taken.

        Raises :class:`ServerUnavailable` after ``patience`` seconds, :class:`ManagerStopped` if
        the manager is stopping and there is no other, and :class:`AccessRefused`.
        """
        end = None if patience is None else time.monotonic() + patience
        while True:
            found = self.connection
            if found is not None and not found.closed and (closing or not found.closing):
                return found
            news = self._news
            left = float("inf") if end is None else end - time.monotonic()
            self._home.post(self._want, time.monotonic() + left)
            if left <= 0 or not news.wait(None if end is None else left):
                raise self._unavailable()
            if self._refusal is not None:
                raise self._refusal

    def _unavailable(self) -> ServerUnavailable:
        return ServerUnavailable(
            f"the manager at {self.address} cannot be reached: {self._reason}. It was tried for"
            f" {self.patience:g} s. If it does not run, start it: gtaskman run --bind"
            f" unix:{self.address.path} MODULE"
        )

    def _want(self, until: float) -> None:
        """Have a connection opened; on our hub."""
        self._wanted_until = max(self._wanted_until, until)
        if self._opening is None:
            self._opening = gevent.spawn(self._open)

    def _open(self) -> None:
        try:
            for attempt in itertools.count(1):
                self._refusal, self._absent = None, False
                came_to_something = self._attempt()
                news, self._news = self._news, Latch()
                news.open()
                wait = _BACKOFF.delay(attempt, random.random())
                if came_to_something or time.monotonic() + wait > self._wanted_until:
                    return
                gevent.sleep(wait)
        finally:
            self._opening = None
            self._wanted_until = 0.0

    def _attempt(self) -> bool:
        """Try to connect once; whether trying again is of no use."""
        try:
            made = self._made()
        except NotThere as error:
            self._reason, self._absent = str(error), error.absent
            if not (error.absent and self._is_stopping()) or self._awaits_successor():
                return False
            self._refusal = self._stopping()
        except AccessRefused as error:
            self._refusal = AccessRefused(
                f"the manager at {self.address} does not let us in: {error}"
            )
        except GTaskmanError as error:
            self._refusal = error
        except Exception as error:
            # Whoever waits must be told: it is tried again, as when nothing listens.
            log.exception("the manager at %s cannot be connected to", self.address)
            self._reason = f"{type(error).__name__}: {error}"
            return False
        else:
            if made.closing and made.has_successor and self._connections():
                made.close()  # the one that there is will do, until the successor listens
                return False
            self._replace(made)
            if made.closing and made.has_successor:
                return False
            if made.closing:
                self._refusal = self._stopping()
        return True

    def _made(self) -> Connection:
        title = os.path.basename(sys.argv[0] if sys.argv else "") or "python"
        made = Connection(self.address, self._home.loop, self)
        made.greet(Hello(messages.VERSION, os.getpid(), title, self.nonce), _GREETING)
        return made

    def _replace(self, made: Connection) -> None:
        old, self.connection = self.connection, made
        if old is not None and not old.closed:
            if old.idle:
                old.close()
            else:
                self._fading.add(old)

    def _is_stopping(self) -> bool:
        return self.connection is not None and self.connection.closing

    def _awaits_successor(self) -> bool:
        return self.connection is not None and self.connection.has_successor

    def _stopping(self) -> ManagerStopped:
        return ManagerStopped(
            f"the manager at {self.address} is stopping and takes no more tasks, and no other one"
            " has taken its place"
        )

    # --- asking

    def ask(self, name: str, *args: Any, task_id: str | None = None) -> Any:
        """The manager's answer to a question, asked again if the connection goes meanwhile.

        One about the task ``task_id`` goes to the manager that has it. Raises what
        :meth:`connect` raises, and what the manager does.
        """
        end = None if self.patience is None else time.monotonic() + self.patience
        question = messages.pack_question(name, list(args))
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            connection = self._connection_of(task_id) or self.connect(left, closing=True)
            answer = Answer()
            self._home.post(self._ask, connection, answer, question)
            left = None if end is None else max(0.0, end - time.monotonic())
            if not answer.wait(left):
                raise ServerUnavailable(
                    f"the manager at {self.address} has not answered within {self.patience:g} s"
                )
            if answer.error is not None:
                raise answer.error
            if not answer.lost:
                return answer.value

    def _ask(self, connection: Connection, answer: Answer, question: bytes) -> None:
        self._home.keep_alive()
        connection.ask(self.number(), answer, question)

    def _connection_of(self, task_id: str | None) -> Connection | None:
        for connection in self._fading:
            if task_id in connection.ids:
                return connection
        return None

    # --- tasks

    def submit(
        self, connection: Connection, handle: HostHandle, flags: int, body: bytes, payload: Payload
    ) -> None:
        """Send a task that was claimed; from any thread."""
        if not self._home.is_here():
            self._home.post(self.submit, connection, handle, flags, body, payload)
            return
        if not self._home.kept_alive:
            self._home.keep_alive()
        connection.submit(handle, flags, body, payload)

    def on_back(
        self,
        old: Connection,
        handle: HostHandle,
        flags: int,
        body: bytes,
        payload: Payload,
    ) -> None:
        """A task came too late for a manager that stops: whoever has taken its place gets it."""
        self._home.keep_alive()
        gevent.spawn(self._send_back, old, handle, flags, body, payload)

    def _send_back(
        self,
        old: Connection,
        handle: HostHandle,
        flags: int,
        body: bytes,
        payload: Payload,
    ) -> None:
        try:
            connection = self.connect(self.patience)
            handle.number = self.number()
            if handle.word is not None:
                connection.answers[handle.number] = handle.word
            connection.claim(handle)
            connection.submit(handle, flags, old.translated(body, connection), payload)
        except GTaskmanError as error:
            if handle.refuse(error):
                handle.wake()
            if handle.word is not None:
                handle.word.give(error=error)
            self.on_idle()

    def resend(self, handle: HostHandle, flags: int, body: bytes, payload: Payload) -> None:
        """Send a task in an envelope again, over the connection that there is now."""
        connection = self.connection
        if connection is None or connection.closed or handle.done():
            return
        if handle.word is not None:
            connection.answers[handle.number] = handle.word
        connection.claim(handle)
        connection.submit(handle, flags | messages.AGAIN, body, payload)

    def attend(self, handle: RemoteHandle, progress: bool = False) -> None:
        """Have a handle told how its task ends, and how far it is; returns at once."""
        assert isinstance(handle, HostHandle)
        self._home.post(self._attend, handle, progress)

    def _attend(self, handle: HostHandle, progress: bool) -> None:
        for connection in self._connections():
            if connection.tasks.get(handle.number) is handle:
                if progress:
                    connection.follow(handle)
                return
        self._home.keep_alive()
        gevent.spawn(self._attach, handle, progress)

    def _attach(self, handle: HostHandle, progress: bool) -> None:
        try:
            connection = self.connect(self.patience, closing=True)
        except GTaskmanError as error:
            if not handle.done() and handle.lose(f"it cannot be asked for: {error}"):
                handle.wake()
            self.on_idle()
            return
        if not handle.done():
            handle.number = self.number()
            connection.attach(handle, progress)

    def _connections(self) -> list[Connection]:
        newest = [] if self.connection is None else [self.connection]
        return [each for each in (*newest, *self._fading) if not each.closed]

    # --- when the manager goes

    def on_closing(self, connection: Connection) -> None:
        """The manager takes no more tasks: the next one goes to whoever has taken its place."""
        if connection is self.connection:
            log.info("the manager at %s is stopping", self.address)

    def on_closed(self, connection: Connection, why: str) -> None:
        """A connection has ended: what had not ended is asked for elsewhere, or lost."""
        if connection is self.connection:
            self.connection = None
        self._fading.discard(connection)
        tasks = list(connection.tasks.values())
        connection.tasks.clear()
        connection.ids.clear()
        if self._closed:
            self._left_over += tasks
        elif tasks:
            recovery = gevent.spawn(self._recover, connection.welcome, tasks, why)
            self._recoveries[recovery] = tasks
            recovery.rawlink(self._recovered)
        else:
            self.on_idle()

    def _recovered(self, recovery: gevent.Greenlet) -> None:
        self._recoveries.pop(recovery, None)

    def on_idle(self) -> None:
        """Nothing is on its way over a connection: the loop need not go on for it."""
        if self._resting is None and not self._closed:
            # Not at once: as a rule the next task follows.
            self._resting = self._home.loop.timer(_REST, ref=False)
            self._resting.start(self._rest)

    def _rest(self) -> None:
        self._stop_resting()
        for connection in list(self._fading):
            if connection.idle:
                connection.close()
        if all(connection.idle for connection in self._connections()):
            self._home.let_go()

    def _stop_resting(self) -> None:
        if self._resting is not None:
            self._resting.stop()
            self._resting.close()
            self._resting = None

    def open_sealed(self, report: Report, data: bytes, queue: str) -> Any:
        """The value of a result in an envelope. Raises :class:`PayloadError`."""
        return self._owner.open_sealed(report, data, queue)

    def _recover(self, welcome: Welcome, tasks: list[HostHandle], why: str) -> None:
        """Ask for tasks at the next manager, or say that they are lost."""
        found = self._successor(welcome)
        if found is None:
            self._lose(tasks, welcome, why)
            return
        log.info("%d tasks are asked for again at %s", len(tasks), self.address)
        for handle in tasks:
            if handle.resend is not None:
                handle.resend()
            else:
                found.attach(handle, handle.is_followed)

    def _successor(self, welcome: Welcome) -> Connection | None:
        """A connection to a manager that knows what the one of this welcome knew."""
        patience = _GREETING if not welcome.durable else self.patience
        end = None if patience is None else time.monotonic() + patience
        while True:
            news = self._news
            left = float("inf") if end is None else end - time.monotonic()
            self._want(time.monotonic() + left)
            if left <= 0 or not news.wait(None if end is None else left):
                return None
            found = self.connection
            if found is not None and not found.closed:
                same = found.welcome.instance == welcome.instance
                return found if same or (welcome.durable and found.welcome.durable) else None
            if self._refusal is not None or (self._absent and not welcome.durable):
                return None

    def _lose(self, tasks: list[HostHandle], welcome: Welcome, why: str) -> None:
        who = f"the manager at {self.address} (process {welcome.pid}) {why}"
        if welcome.durable:
            text = (
                f"{who}, and has not come back: the task waits, or runs, all the same, and a"
                " client's report(id), or handle(id), says how it went once there is one again"
            )
        else:
            text = (
                f"{who}, and what it had in its memory is lost: whether this task has run is not"
                " known. Submit it again if it may run twice, or give the manager a queue that"
                " outlives it: gtaskman run --bind ... --url embedded:PATH"
            )
        log.error("%d tasks are lost: %s", len(tasks), text)
        woken = [handle for handle in tasks if not handle.done() and handle.lose(text)]
        for handle in woken:
            handle.wake()
        self.on_idle()

    # --- the end

    def close(self) -> list[HostHandle]:
        """Let go of the manager, when it has taken what was sent to it.

        Gives the handles that are still waited for.
        """
        if self._closed or self.forked:
            return []
        done = Latch()
        self._home.post(gevent.spawn, self._close, done)
        done.wait()
        self._home.await_left()
        return [handle for handle in self._left_over if handle.is_awaited]

    def _close(self, done: Latch) -> None:
        end = time.monotonic() + _LAST_WORDS
        while any(each.unsent for each in self._connections()) and time.monotonic() < end:
            gevent.sleep(_LOOK)
        self._closed = True
        self._stop_resting()
        if self._opening is not None:
            self._opening.kill(block=False)
        for recovery, tasks in list(self._recoveries.items()):
            recovery.kill(block=False)
            self._left_over += tasks
        for connection in self._connections():
            connection.close()
        _links.discard(self)
        done.open()
        self._home.leave()

    def forget(self) -> None:
        """In a fork of the process: be a mere copy, and leave the connections alone."""
        self.forked = True
        self._stop_resting()
        self._home.forget()
        for connection in self._connections():
            connection.forget()
        self._fading.clear()
        self.connection = None

    # --- other threads

    def warn_if_stalled(self, task_id: str) -> None:
        """A native thread waits: say so if the hub that must serve it does not run."""
        if self._home.is_stalled():
            log.warning(
                "task %s: this thread waits for a link whose hub does not run. The thread that"
                " used it first must run its hub (wait cooperatively)",
                task_id,
            )

    def __repr__(self) -> str:
        return f"<Link {self.address} {self.connection!r}>"


def _nothing() -> None:
    pass


_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _after_fork() -> None:
    for link in list(_links):
        link.forget()
    _links.clear()


def _at_exit() -> None:
    """What was submitted is sent before the interpreter ends, and its threads have gone."""
    for link in list(_links):
        link.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
