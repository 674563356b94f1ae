"""``Connection``: one connection of this process to a manager, and the tasks that went over it.

It lives on one hub: everything but :meth:`Connection.claim` is to be called there. What comes is
handled in a callback of the loop; waiters are woken when all of it is noted.
"""

from __future__ import annotations

import _socket
import errno
import functools
import os
import stat
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from gtaskman.distant import Reading
from gtaskman.errors import (
    ConfigurationError,
    FrameError,
    GTaskmanError,
    PayloadError,
    ServerUnavailable,
)
from gtaskman.host import messages
from gtaskman.host.address import SocketAddress
from gtaskman.host.handle import HostHandle
from gtaskman.host.messages import DONE, Hello, Told, Welcome
from gtaskman.host.outlet import Outlet
from gtaskman.host.peers import Peer
from gtaskman.latch import Latch
from gtaskman.report import Report, TaskStatus
from gtaskman.wire.frames import KEPT, Frame, head
from gtaskman.wire.messages import SEALED
from gtaskman.wire.payload import EMPTY, Payload, decode_value

_LIMIT = 1 << 40  # bytes of a frame: the manager's own limit is the one that matters
_MOST_CODES = 65536  # numbers of definitions that are kept
_MANY = 64  # tasks that are sent together at most
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_ABSENT = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)


class NotThere(Exception):
    """Raised when nobody can be connected to; ``absent`` is whether nobody listens at all."""

    def __init__(self, reason: str, absent: bool = False) -> None:
        super().__init__(reason)
        self.absent = absent


class Answer(Latch):
    """What the manager answers, once it has."""

    value: Any = None
    error: GTaskmanError | None = None
    lost = False  # the connection has gone before

    def give(self, value: Any = None, error: GTaskmanError | None = None) -> None:
        """It has."""
        self.value, self.error = value, error
        self.open()


class Owner(Protocol):
    """Who is told what happens to a connection."""

    def on_closing(self, connection: Connection) -> None:
        """The manager takes no more tasks over it."""

    def on_closed(self, connection: Connection, why: str) -> None:
        """It has ended."""

    def on_idle(self) -> None:
        """Nothing is on its way over it."""

    def on_back(
        self,
        old: Connection,
        handle: HostHandle,
        flags: int,
        body: bytes,
        payload: Payload,
    ) -> None:
        """A task came too late for a manager that stops; who waits for its word waits on."""

    def open_sealed(self, report: Report, data: bytes, queue: str) -> Any:
        """The value of a result in an envelope. Raises :class:`PayloadError`."""


class Connection:
    """Opened when it is made; :meth:`greet` then waits for the manager's welcome.

    Raises :class:`NotThere`, and :class:`ConfigurationError` if whoever listens may not be the
    manager that is meant.
    """

    def __init__(self, address: SocketAddress, loop: Any, owner: Owner) -> None:
        self.address = address
        self.welcome: Welcome = None  # type: ignore[assignment] # set by greet()
        self.native = False
        self.closing = False  # the manager takes no more tasks
        self.has_successor = False  # and another one will take its place
        self.closed = False
        self.tasks: dict[int, HostHandle] = {}  # those that have not ended
        self.ids: dict[str, HostHandle] = {}
        self.answers: dict[int, Answer] = {}
        self.codes: dict[int, int] = {}  # number of a definition -> under which it is described
        self.described: dict[bytes, int] = {}  # description -> number
        self._bytes = 0
        self._ebb: Latch | None = None  # opens when there is room for more tasks
        self._owner = owner
        self._loop = loop
        self._greeting = Answer()
        self._unsent = 0  # tasks that go with the next flush
        self._turning = False
        self._woken: list[HostHandle] = []
        self._socket = _connect(address)
        try:
            self.peer = Peer.of(self._socket)
            _check_listener(address, self.peer)
        except OSError as error:
            self._socket.close()
            raise NotThere(f"{error.strerror or error}") from None
        except ConfigurationError:
            self._socket.close()
            raise
        self._channel = Outlet(
            self._socket.fileno(),
            loop,
            _LIMIT,
            messages.TO_PROCESS,
            self._on_frames,
            self._on_close,
            _nothing,
        )
        self._channel.start()

    def greet(self, hello: Hello, timeout: float) -> Welcome:
        """Say hello, and wait at most so many seconds for the welcome.

        Raises :class:`NotThere`, also if there are too many connections right now, and
        :class:`AccessRefused` if we are not welcome.
        """
        self._put(messages.HELLO, 0, 0, messages.pack(hello))
        self._channel.flush()
        if not self._greeting.wait(timeout):
            self.close()
            raise NotThere(f"it does not answer within {timeout:g} s")
        if isinstance(self._greeting.error, ServerUnavailable):
            raise NotThere(str(self._greeting.error))
        if self._greeting.error is not None:
            raise self._greeting.error
        if self._greeting.lost:
            raise NotThere("it closes the connection")
        self.welcome = self._greeting.value
        # A pickle is not even looked at that comes from somebody else.
        self.native = self.welcome.native and self.peer.is_us
        return self.welcome

    # --- tasks

    def room(self) -> Latch | None:
        """None if the manager has room for one more task; else what opens when it has."""
        welcome = self.welcome
        if len(self.tasks) < welcome.max_tasks and (
            self._bytes < welcome.max_bytes or not self.tasks
        ):
            return None
        if self._ebb is None or self._ebb.done():
            self._ebb = Latch()
        return self._ebb

    def describe(self, code: bytes) -> int:
        """Describe code, unless it was before; gives the number that stands for it."""
        number = self.described.get(code)
        if number is None:
            number = self.described[code] = len(self.described) + 1
            self._put(messages.DEFINE, 0, number, code)
        return number

    def know(self, definition: int, code: bytes) -> None:
        """Describe the code of the definition with this number."""
        if len(self.codes) > _MOST_CODES:
            self.codes.clear()
        self.codes[definition] = self.describe(code)

    def claim(self, handle: HostHandle) -> None:
        """A task is about to go over this connection, under the handle's number."""
        self.ids[handle.id] = handle
        self.tasks[handle.number] = handle

    def submit(self, handle: HostHandle, flags: int, body: bytes, payload: Payload) -> None:
        """Send a task that was claimed: the first one of a turn at once, others together."""
        more, data, buffers = payload
        if self.closed:
            # It has gone since the task was claimed, in another thread: nothing was sent yet.
            self._ended(handle.number)
            self.answers.pop(handle.number, None)
            self._owner.on_back(self, handle, flags, body, payload)
            return
        size = len(body) + len(data)
        self._bytes += handle.cost
        start = head(messages.SUBMIT, flags | more, handle.number, size, buffers) + body
        self._channel.put_frame(start + data, buffers)
        self._unsent += 1
        if not self._turning:
            if len(self.tasks) > 1:
                self._turning = True
                self._loop.run_callback(self._turn)
            self._flush()
        elif self._unsent >= _MANY:
            self._flush()

    def _flush(self) -> None:
        self._unsent = 0
        self._channel.flush()

    def _turn(self) -> None:
        self._turning = False
        if self._unsent:
            self._flush()

    def attach(self, handle: HostHandle, follow: bool) -> None:
        """Have a task told of that did not go over this connection."""
        handle.cost = 0  # its arguments are not on their way over this connection
        self.claim(handle)
        wanted = messages.Attach(handle.id, handle.queue, follow, handle.sent)
        self._put(messages.ATTACH, 0, handle.number, messages.pack(wanted))
        self._channel.soon()

    def follow(self, handle: HostHandle) -> None:
        """Have its progress told, too."""
        self._put(messages.FOLLOW, 0, handle.number, b"")
        self._channel.soon()

    def ask(self, number: int, answer: Answer, question: bytes) -> None:
        """Ask something."""
        if self.closed:
            answer.lost = True
            answer.open()
            return
        self.answers[number] = answer
        self._put(messages.ASK, 0, number, question)
        self._channel.flush()

    def _put(self, kind: int, flags: int, number: int, body: bytes) -> None:
        if not self.closed:
            self._channel.put(head(kind, flags, number, len(body)) + body)

    @property
    def unsent(self) -> int:
        """Bytes that the manager has not taken yet."""
        return 0 if self.closed else self._channel.pending

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self.tasks and not self.answers

    # --- what the manager says

    def _on_frames(self, frames: list[Frame]) -> None:
        """A hot loop: once for every task."""
        for frame in frames:
            kind, flags, number, body, buffers = frame
            if kind == DONE:
                handle = self._ended(number)
                if handle is not None:
                    lasting = _lasting(body)
                    reading = functools.partial(self._read_done, handle, flags, lasting, buffers)
                    handle.returned_nothing = bool(flags & EMPTY)
                    if handle.take(reading):
                        self._woken.append(handle)
            else:
                self._heed(frame)
        if self._ebb is not None and self.welcome is not None:
            self._mind_ebb()
        if not self.tasks and not self.answers:
            self._owner.on_idle()
        woken, self._woken = self._woken, []
        for handle in woken:
            handle.wake(at_once=True)

    def _ended(self, number: int) -> HostHandle | None:
        handle = self.tasks.pop(number, None)
        if handle is not None:
            self._bytes -= handle.cost
            if self.ids.get(handle.id) is handle:
                del self.ids[handle.id]
        return handle

    def _mind_ebb(self) -> None:
        ebb, self._ebb = self._ebb, None
        if ebb is not None:
            if self.room() is None:
                ebb.open()
            else:
                self._ebb = ebb

    def _heed(self, frame: Frame) -> None:
        kind, flags, number, body, buffers = frame
        if kind == messages.ENDED:
            self._on_ended(number, messages.unpack_told(body, buffers)[0])
        elif kind == messages.PROGRESS:
            handle = self.tasks.get(number)
            if handle is not None:
                handle.tell(messages.unpack_told(body, buffers)[0].report)
        elif kind == messages.TAKEN:
            self._on_taken(number)
        elif kind == messages.BACK:
            self._on_back(number, flags, body, buffers)
        elif kind == messages.REFUSED:
            self._on_refused(number, messages.unpack_fault(body).error())
        elif kind == messages.ANSWER:
            self._on_answer(number, flags, body, buffers)
        elif kind == messages.WELCOME:
            self._greeting.give(messages.unpack_welcome(body))
        elif kind == messages.CLOSING:
            self.closing = True
            self.has_successor = bool(flags & messages.SUCCESSOR)
            self._owner.on_closing(self)

    def _on_ended(self, number: int, told: Told) -> None:
        handle = self._ended(number)
        if handle is None:
            return
        reading = functools.partial(self.read_told, told, handle.queue)
        if handle.take(reading, told.exception if self.native else None):
            self._woken.append(handle)

    def _on_taken(self, number: int) -> None:
        handle, answer = self.tasks.get(number), self.answers.pop(number, None)
        if handle is not None:
            handle.resend = None
        if answer is not None:
            answer.give()

    def _on_back(self, number: int, flags: int, body: memoryview, buffers: Sequence[Any]) -> None:
        handle = self._ended(number)
        self.answers.pop(number, None)
        if handle is not None:
            payload = Payload(0, b"", tuple(memoryview(each) for each in buffers))
            self._owner.on_back(self, handle, flags, bytes(body), payload)

    def translated(self, body: bytes, other: Connection) -> bytes:
        """The body of a SUBMIT of this connection, for another one."""
        view = memoryview(body)
        target = messages.target_of(view)
        for code, number in self.described.items():
            if number == target:
                return messages.retarget(view, other.describe(code))
        return body

    def _on_refused(self, number: int, error: GTaskmanError) -> None:
        if not number:
            self._greeting.give(error=error)
            return
        handle, answer = self._ended(number), self.answers.pop(number, None)
        if handle is not None and handle.refuse(error):
            self._woken.append(handle)
        if answer is not None:
            answer.give(error=error)

    def _on_answer(
        self, number: int, flags: int, body: memoryview, buffers: Sequence[object]
    ) -> None:
        answer = self.answers.pop(number, None)
        if answer is None:
            return  # whoever asked waits no more
        if flags & messages.FAULT:
            answer.give(error=messages.unpack_fault(body).error())
        elif flags & messages.TOLD:
            answer.give(messages.unpack_told(body, buffers))
        else:
            answer.give(messages.unpack_answer(body))

    # --- results

    def _read_done(
        self, handle: HostHandle, flags: int, body: Any, buffers: Sequence[Any]
    ) -> Reading:
        ticket = handle.ticket
        size = sum(memoryview(each).nbytes for each in buffers)
        report, data = messages.read_done(ticket.id, ticket.name, ticket.kind, flags, body, size)
        return self._with_result(report, flags, data, buffers, ticket.queue)

    def read_told(self, told: Told, queue: str) -> Reading:
        """A report with its result, as far as it can be read here."""
        report, result, _ = told
        if result is not None:
            return self._with_result(report, result.flags, result.body, result.buffers, queue)
        if report.status is TaskStatus.COMPLETED:
            why = "its result is for the user alone who sent it, or too large to be told"
            return Reading(report, PayloadError(why))
        return Reading(report)

    def _with_result(
        self, report: Report, flags: int, data: Any, buffers: Sequence[Any], queue: str
    ) -> Reading:
        try:
            if flags & SEALED:
                scope = messages.scope(self.welcome, queue)
                value = self._owner.open_sealed(report, bytes(data), scope)
            elif flags & EMPTY and self.native:
                return Reading(report)
            elif flags & EMPTY:  # a signature may be required
                value = self._owner.open_sealed(report, b"", "")
            elif self.native:
                value = decode_value(flags, data, buffers)
            else:
                raise PayloadError("it is a pickle, and comes from another user")
        except Exception as error:
            text = str(error) if isinstance(error, PayloadError) else _words(error)
            why = f"the result of task {report.name} cannot be read: {text}"
            kind = type(error) if isinstance(error, PayloadError) else PayloadError
            return Reading(report, kind(why))
        return Reading(_filled(report, value))

    # --- the end

    def _on_close(self, error: FrameError | None) -> None:
        self._end("closed the connection" if error is None else f"talks nonsense: {error}")

    def _end(self, why: str) -> None:
        if self.closed:
            return
        self.closed = True
        if not self._channel.closed:
            self._channel.stop()
        self._socket.close()
        if not self._greeting.done():
            self._greeting.lost = True
            self._greeting.open()
        answers, self.answers = self.answers, {}
        for number, answer in answers.items():
            handle = self.tasks.get(number)
            if handle is None or handle.resend is None:  # else it may yet be answered
                answer.lost = True
                answer.open()
        if self._ebb is not None:
            self._ebb.open()
        self._owner.on_closed(self, why)

    def close(self) -> None:
        """Let go of it."""
        self._end("was let go of")

    def forget(self) -> None:
        """In a fork of the process: close our copy, and leave the connection alone."""
        self.closed = True
        if not self._channel.closed:
            self._channel.stop()
        self._socket.close()


def _lasting(body: memoryview) -> Any:
    """A frame's body that outlives the next read: what is large lies in memory of its own."""
    return bytes(body) if body.nbytes < KEPT else body


def _connect(address: SocketAddress) -> _socket.socket:
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
    try:
        socket.connect(address.path)
    except OSError as error:
        socket.close()
        if error.errno in _ABSENT:
            raise NotThere("nothing listens there", absent=True) from None
        if isinstance(error, BlockingIOError):
            raise NotThere("too many connections wait to be accepted there") from None
        raise NotThere(f"{error.strerror or error}") from None
    return socket


def _check_listener(address: SocketAddress, peer: Peer) -> None:
    """Raise :class:`ConfigurationError` for a listener that anybody could be.

    Tasks and their arguments are sent to it. One of this user, or of root, is trusted. One of
    another user is where the path is in a directory in which nobody but its user, this one and
    root could have put it.
    """
    trusted = (os.geteuid(), 0)
    if peer.uid in trusted:
        return
    directory = os.path.dirname(address.path)
    found = os.stat(directory)
    if found.st_mode & _OTHERS or found.st_uid not in (*trusted, peer.uid):
        raise ConfigurationError(
            f"user {peer.uid} listens at {address}, and others may write to the directory"
            f" {directory}: it may not be the manager that you mean. Let the manager listen in a"
            " directory that belongs to its user, or to root, and that nobody else may write to",
            "url",
        )


def _filled(report: Report, value: Any) -> Report:
    return msgspec.structs.replace(report, result=value)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _nothing() -> None:
    pass
