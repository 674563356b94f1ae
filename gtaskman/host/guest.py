"""``Guest``: one process that has connected to the manager, as the manager sees it.

::

    NEW --HELLO--> SERVED --it closes, talks nonsense, does not read--> GONE

Frames are handled as they are read, in a callback of the loop, and answered in the same turn.
Nobody waits for a guest: what it does not read is kept up to a limit, and while there is much of
it, nothing is read from it either. What it asks is answered in greenlets of their own, a few
questions at a time.
"""

from __future__ import annotations

import _socket
import enum
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import gevent

from gtaskman.errors import AccessRefused, FrameError, GTaskmanError
from gtaskman.host import messages
from gtaskman.host.desk import told
from gtaskman.host.messages import SAY, SUBMIT, Fault, Told, Welcome
from gtaskman.host.outlet import Outlet
from gtaskman.host.peers import Peer
from gtaskman.host.questions import Questions
from gtaskman.latch import Latch
from gtaskman.pool.alarm import Alarm
from gtaskman.report import Report, TaskStatus
from gtaskman.task import Definition
from gtaskman.wire.frames import Frame, head
from gtaskman.wire.payload import NOTHING, Payload

if TYPE_CHECKING:
    from gtaskman.host.server import HostServer

log = logging.getLogger(__name__)

_HELLO_WITHIN = 10.0  # seconds
_LARGEST_SEALED = 1024 * 1024  # bytes of a frame with an envelope, which itself has a limit
_MOST_CODES = 65536
_THREADS = 1000
_LONGEST_ID = 65535  # bytes, as in SUBMIT
_NOTED = 1024  # bytes from which on a task's payload counts towards the limit
_ANSWERED = 1024 * 1024  # unread bytes from which on no question is answered
_LATE = 64 * 1024  # unread bytes from which on only the latest progress of each task is kept
_COMPLETED = TaskStatus.COMPLETED
# Why nothing is read from it: too much waits in the manager; it does not read itself; it has asked
# too much; its own tasks are too large together.
_FLOOD, _UNREAD, _ASKED, _LARGE = 1, 2, 4, 8


class Limits(NamedTuple):
    """How much one process may have on its way.

    ``tasks`` and ``bytes`` are those of its tasks that have not ended; ``unread`` are bytes that
    it was sent and has not read, above which it is cut off after ``grace`` seconds. Of more than
    twice ``bytes`` no more is read (threads of a process may overlap).
    """

    tasks: int
    bytes: int
    unread: int
    grace: float


class State(enum.Enum):
    """Where a guest is."""

    NEW = enum.auto()  # HELLO moves it on, or the end of its time
    SERVED = enum.auto()
    GONE = enum.auto()  # final: nothing is told it any more


class Guest:
    """One connection."""

    def __init__(self, socket: _socket.socket, peer: Peer, server: HostServer, loop: Any) -> None:
        self.peer = peer
        self.tasks = 0  # that it was told nothing of yet
        self._ids: dict[int, str] = {}  # of these, the ones that it has sent
        self._watched: dict[int, str] = {}  # and those that others have sent
        self._costs: dict[int, int] = {}  # bytes of the payloads of the larger ones
        self._bytes = 0  # the sum of these
        self._server = server
        self._desk = server.desk
        self._limits = server.limits
        self._native = server.desk.native(peer.is_us)
        self._socket = socket
        self._state = State.NEW
        self._title = f"process {peer.pid}"
        self._codes: dict[int, Definition] = {}
        self._followed: set[int] = set()
        self._late: dict[int, Report] = {}  # progress that is told when it reads again
        self._questions = Questions(self._answer, self._may_answer, self._on_room)
        self._drained: Latch | None = None  # opens when it has read all there was, if awaited
        self._traced: set[str] = set()  # questions whose errors were logged with a traceback
        self._channel = Outlet(
            socket.fileno(),
            loop,
            server.manager.config.max_frame if self._native else _LARGEST_SEALED,
            messages.TO_MANAGER,
            self._on_frames,
            self._on_close,
            self._on_drained,
        )
        self._alarm = Alarm(loop)  # for its hello, then for what it does not read
        self._alarm.set(_HELLO_WITHIN, self._on_silence)
        self._channel.start()

    @property
    def gone(self) -> bool:
        """Whether nothing can be told it any more."""
        return self._state is State.GONE

    @property
    def unread(self) -> int:
        """Bytes that it has not read yet."""
        return 0 if self.gone else self._channel.pending

    def definition(self, target: int) -> Definition:
        """The code that it calls by this number. Raises :class:`FrameError`."""
        found = self._codes.get(target)
        if found is None:
            raise FrameError(f"a task names code {target}, which was not described")
        return found

    # --- what it says

    def _on_frames(self, frames: list[Frame]) -> None:
        """A hot loop: once for every task."""
        for frame in frames:
            kind, flags, number, body, buffers = frame
            if kind == SUBMIT and self._state is State.SERVED:
                self._submit(flags, number, body, buffers)
            else:
                self._heed(frame)
            if self._state is State.GONE:
                return
        self._channel.flush()
        self._server.vigil.begin()
        self._mind_unread()
        ebb = self._desk.ebb()
        if ebb is not None and self._channel.pause(_FLOOD):
            # Too much waits: nothing more is read until less does.
            ebb.rawlink(self._on_ebb)

    def _submit(self, flags: int, number: int, body: memoryview, buffers: Sequence[object]) -> None:
        self._check_room()
        if self._server.stopping:
            self._give_back(flags, number, body, buffers)
            return
        order = messages.read_submit(flags, body, buffers)
        self._ids[number] = order.id
        self.tasks += 1
        if len(body) > _NOTED or buffers:
            self._note_cost(number, order.payload.size)
        try:
            self._desk.submit(self, number, flags, order)
        except FrameError:
            raise  # no mistake of a task, but nonsense
        except GTaskmanError as error:
            self.refuse(number, error)
        else:
            if flags & SAY and not self._desk.durable:
                self.say(messages.TAKEN, number)

    def _note_cost(self, number: int, cost: int) -> None:
        if self._bytes > 2 * self._limits.bytes:
            self._channel.pause(_LARGE)
        self._costs[number] = cost
        self._bytes += cost

    def _check_room(self) -> None:
        # It was told how many it may have, and waits by itself; threads of its may overlap.
        if self.tasks >= self._limits.tasks + _THREADS:
            raise FrameError(f"it has more than {self._limits.tasks} tasks on their way")

    def _give_back(self, flags: int, number: int, body: memoryview, buffers: Sequence[Any]) -> None:
        """A task came when nothing new was taken any more: another manager may take it."""
        views = [memoryview(each) for each in buffers]
        self._put(messages.BACK, flags, number, bytes(body), views)

    def _heed(self, frame: Frame) -> None:
        kind, _, number, body, _ = frame
        if self._state is State.NEW:
            self._greet(frame)
        elif kind == messages.DEFINE:
            self._define(number, bytes(body))
        elif kind == messages.FOLLOW:
            self._follow(number)
        elif kind == messages.ATTACH:
            self._attach(number, messages.unpack_attach(body))
        elif kind == messages.ASK:
            self._questions.add(number, messages.unpack_question(body), len(body))
            if self._questions.full:
                self._channel.pause(_ASKED)
        else:
            raise FrameError(f"a message of kind {kind} is out of place")

    def _greet(self, frame: Frame) -> None:
        if frame.kind != messages.HELLO:
            raise FrameError("it does not say hello first")
        hello = messages.unpack_hello(frame.body)
        self._alarm.cancel()
        if hello.version != messages.VERSION:
            self._turn_away(
                f"it speaks version {hello.version} and this manager version {messages.VERSION}:"
                " both must have the same gtaskman"
            )
            return
        # The pid is the kernel's; the title is whatever the process says: it is quoted.
        self._title = f"process {self.peer.pid} ({hello.title[:80]!r})"
        self._state = State.SERVED
        self._put(messages.WELCOME, 0, 0, messages.pack(self._welcome()))
        if self._server.stopping:
            self._say_closing()

    def _welcome(self) -> Welcome:
        config, server = self._server.manager.config, self._server
        return Welcome(
            messages.VERSION,
            server.instance,
            os.getpid(),
            server.title,
            self._native,
            self._desk.durable,
            server.queue,
            config.max_processes,
            config.max_frame,
            self._limits.tasks,
            self._limits.bytes,
            self._desk.namespace,
        )

    def _define(self, number: int, body: bytes) -> None:
        if not self._native:
            raise FrameError("it describes code, and may only name tasks")
        if len(self._codes) >= _MOST_CODES:
            raise FrameError(f"it has described more than {_MOST_CODES} functions")
        try:
            self._codes[number] = self._desk.define(body)
        except GTaskmanError as error:
            raise FrameError(f"code that it describes makes no sense: {error}") from None

    def _attach(self, number: int, wanted: messages.Attach) -> None:
        self._check_room()
        if len(wanted.id) > _LONGEST_ID:
            raise FrameError(f"a task's id has {len(wanted.id)} characters")
        (self._ids if wanted.sent else self._watched)[number] = wanted.id
        self.tasks += 1
        if wanted.follow:
            self._followed.add(number)
        gevent.spawn(self._attach_in_time, number, wanted)

    def _attach_in_time(self, number: int, wanted: messages.Attach) -> None:
        try:
            self._desk.attach(self, number, wanted)
        except GTaskmanError as error:
            self.refuse(number, error)
        self.flush()

    def _follow(self, number: int) -> None:
        task_id = self._ids.get(number) or self._watched.get(number)
        if task_id is not None:
            self._followed.add(number)
            self._desk.follow(self, number, task_id)

    def _answer(self, number: int, question: messages.Question) -> None:
        try:
            found = self._desk.answer(question, self._native)
            if isinstance(found, list):
                body, buffers = messages.pack_told(found)
                self._put(messages.ANSWER, messages.TOLD, number, body, buffers)
            else:
                self._put(messages.ANSWER, 0, number, messages.pack(found))
        except GTaskmanError as error:
            self._fault(number, error)
        except Exception as error:
            self._log_fault(question, error)
            self._fault(number, GTaskmanError(f"{type(error).__name__}: {error}"))
        finally:
            self.flush()

    def _log_fault(self, question: messages.Question, error: Exception) -> None:
        """Log the first error of each question with its traceback: a process may ask again."""
        first = question.name not in self._traced
        self._traced.add(question.name)
        log.log(
            logging.ERROR if first else logging.DEBUG,
            "question %r of %s failed: %s",
            question.name,
            self._title,
            error,
            exc_info=first,
        )

    def _may_answer(self) -> bool:
        """Wait until the process has read most of what it was sent; False once it is gone."""
        self._channel.flush()
        while not self.gone and self._channel.pending > min(_ANSWERED, self._limits.unread):
            if self._drained is None:
                self._drained = Latch()
            self._drained.wait()
        return not self.gone

    def _on_room(self) -> None:
        self._channel.resume(_ASKED)

    def _fault(self, number: int, error: GTaskmanError) -> None:
        self._put(messages.ANSWER, messages.FAULT, number, messages.pack(Fault.of(error)))

    # --- what it is told

    def refuse(self, number: int, error: GTaskmanError) -> None:
        """A task of its is not taken in."""
        if self._ended(number):
            self._put(messages.REFUSED, 0, number, messages.pack(Fault.of(error)))

    def tell_end(self, number: int, report: Report, exception: bytes | None) -> None:
        """A task of its has ended; it is sent with the next :meth:`flush`."""
        if not self._ended(number):
            return
        result = report.result
        if report.status is _COMPLETED and (result is None or type(result) is Payload):
            payload = NOTHING if result is None else result
            if self._native or payload.flags:
                self._put_payload(messages.DONE, number, messages.done_body(report), payload)
                return
        body, buffers = messages.pack_told([told(report, exception, self._native)])
        self._put(messages.ENDED, 0, number, body, buffers)

    def _ended(self, number: int) -> bool:
        """Whether it is still to be told how this task has ended."""
        if self._ids.pop(number, None) is None and self._watched.pop(number, None) is None:
            return False
        self.tasks -= 1
        if self._costs:
            self._forget_cost(number)
        if self._followed:
            self._followed.discard(number)
            self._late.pop(number, None)
        return not self.gone

    def _forget_cost(self, number: int) -> None:
        self._bytes -= self._costs.pop(number, 0)
        if self._bytes <= 2 * self._limits.bytes:
            self._channel.resume(_LARGE)

    def tell_progress(self, number: int, report: Report) -> None:
        """A task of its is so far, if it wants to know."""
        if number not in self._followed or self.gone:
            return
        if self._channel.pending > _LATE:
            self._late[number] = report
        else:
            self._progress(number, report)
            self._channel.soon()

    def _progress(self, number: int, report: Report) -> None:
        body, buffers = messages.pack_told([Told(report)])
        self._put(messages.PROGRESS, 0, number, body, buffers)

    def say(self, kind: int, number: int) -> None:
        """Say something that needs no more words."""
        self._put(kind, 0, number, b"")

    def closing(self) -> None:
        """Nothing new is taken any more."""
        if self._state is State.SERVED:
            self._say_closing()
            self.flush()

    def _say_closing(self) -> None:
        self._put(messages.CLOSING, messages.SUCCESSOR * self._server.has_successor, 0, b"")

    def flush(self) -> None:
        """Send what it is to be told."""
        self._server.vigil.end()
        if not self.gone:
            self._channel.flush()
            if self._channel.blocked:
                self._channel.compact()
                self._mind_unread()

    def _put(
        self, kind: int, flags: int, number: int, body: bytes, buffers: Sequence[memoryview] = ()
    ) -> None:
        if self.gone:
            return
        self._channel.put_frame(head(kind, flags, number, len(body), buffers) + body, buffers)
        if buffers:
            self._mind_unread()

    def _put_payload(self, kind: int, number: int, first: bytes, payload: Payload) -> None:
        flags, body, buffers = payload
        size = len(first) + len(body)
        start = head(kind, flags, number, size, buffers) + first
        if size < _LATE:
            self._channel.put_frame(start + body, buffers)
        else:
            self._channel.put(start, body)  # apart: it is large, and need not be copied
            self._channel.put_frame(b"", buffers)
        if size >= _LATE or buffers:
            self._mind_unread()

    # --- when it does not read

    def _mind_unread(self) -> None:
        """Much is on its way to it: it must read, or is cut off."""
        if self._channel.pending > self._limits.unread and not self._alarm.armed:
            self._channel.pause(_UNREAD)
            self._alarm.set(self._limits.grace, self._on_unread)

    def _on_unread(self) -> None:
        if self._channel.pending > self._limits.unread:
            self._cut_off(
                f"it has not read {self._channel.pending:,} bytes within {self._limits.grace:g} s"
            )
        else:
            self._channel.resume(_UNREAD)

    def _on_drained(self) -> None:
        """It has read all there was."""
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.open()
        if self._state is State.SERVED:
            self._alarm.cancel()
            self._channel.resume(_UNREAD)
        late, self._late = self._late, {}
        for number, report in late.items():
            self._progress(number, report)
        if late:
            self._channel.soon()

    def _on_ebb(self, _ebb: object) -> None:
        if not self.gone:
            self._channel.resume(_FLOOD)

    # --- the end

    def _on_silence(self) -> None:
        self._turn_away(f"it has not said hello within {_HELLO_WITHIN:g} s")

    def _turn_away(self, why: str) -> None:
        """Say why, and close."""
        self._put(messages.REFUSED, 0, 0, messages.pack(Fault.of(AccessRefused(why))))
        self._channel.flush()
        log.warning("%s is turned away: %s", self._title, why)
        self.close()

    def _cut_off(self, why: str) -> None:
        log.warning("%s is cut off: %s; %d tasks of its were on their way", self._title, why,
                    self.tasks)  # fmt: skip
        self.close()

    def _on_close(self, error: FrameError | None) -> None:
        if error is not None:
            self._cut_off(str(error))
        else:
            self.close()

    def close(self) -> None:
        """Let go of it; a second time does nothing."""
        if self.gone:
            return
        self._state = State.GONE
        self._alarm.cancel()
        if not self._channel.closed:
            self._channel.stop()
        self._socket.close()
        self._codes.clear()
        self._late.clear()
        self._questions.clear()
        if self._drained is not None:
            self._drained.open()
        self._server.on_gone(self, self._ids, self._watched)

    def forget(self) -> None:
        """In a fork of the process: close our copy, and leave the connection alone."""
        self._state = State.GONE
        self._alarm.cancel()
        if not self._channel.closed:
            self._channel.stop()
        self._socket.close()

    def __repr__(self) -> str:
        return f"<Guest {self._title} {self._state.name.lower()} tasks={self.tasks}>"
