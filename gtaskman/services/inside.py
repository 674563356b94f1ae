"""The service's side: what its task has of its parent while it runs in a process of its own."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
import gevent.socket

from gtaskman.child import boot
from gtaskman.child.run import Run
from gtaskman.context import running
from gtaskman.errors import FrameError, ServiceMethodError
from gtaskman.home import Home
from gtaskman.report import DEFERRED
from gtaskman.services.calls import Call, Line, encode
from gtaskman.services.task import ServiceTask, remotes
from gtaskman.wire import messages
from gtaskman.wire.frames import Frame
from gtaskman.wire.messages import Up
from gtaskman.wire.payload import NOTHING, Payload, encode_arguments

if TYPE_CHECKING:
    from gtaskman.child.worker import Worker


class Inside:
    """The process of a service, for its task: what it says to the parent, and what it is told.

    ``instance`` is the number of its place, ``sockets`` are the names of the descriptors that the
    worker was given.
    """

    def __init__(
        self, service: ServiceTask, run: Run, instance: int, sockets: tuple[str, ...]
    ) -> None:
        worker: Worker = run.writer  # type: ignore[assignment] # in a worker nobody else writes
        self.instance = instance
        self.sockets = {
            name: gevent.socket.socket(fileno=fd)
            for name, fd in zip(sockets, worker.descriptors, strict=True)
        }
        self.parent = Parent(self)
        self._service = service
        self._run = run
        self._worker = worker
        self._home = Home(f"this process of service {service.id!r}")
        self._home.settle()
        self._line = Line(self, self._find, worker.limit)
        self._callable = remotes(type(service))
        self._in_parent = remotes(type(service), parent=True)
        self._is_ready = self._ending = False
        self._stopping: gevent.Greenlet | None = None

    def serve(self) -> Any:
        """Be the service until its ``run`` is over."""
        service = self._service
        boot.name_process(f"gtaskman: service {service.id} [{self.instance}]")
        _write_lines()
        self._worker.attend(self._hear)
        if service.notify:
            self._say_up(Up.ENTERED)
        else:
            self.ready()
        try:
            value = service.run(self._run.current().progress)
        except SystemExit as end:
            if end.code:
                raise
            return None
        finally:
            if self._stopping is not None:
                # A server's loop may return as soon as it is told to, with requests under way.
                self._stopping.join()
        return value if value is DEFERRED else None

    # --- what it says

    def ready(self) -> None:
        """Its task says that it is ready, for the first time or again."""
        if not self._is_ready:
            self._is_ready = True
            self._say_up(Up.READY)

    def emit(self, name: str, payload: Any) -> None:
        """Its task has a message."""
        body = encode_arguments((name, payload), {}, self._worker.limit)
        self._home.post(self._worker.say, messages.TELL, body.flags, 0, body, True)

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method of the parent, and wait for what it returns."""
        service = self._service
        if method not in self._in_parent:
            raise ServiceMethodError(
                f"service {service.id!r} has no method {method!r} in its parent:"
                f" {_known(self._in_parent)}; mark it with @gtaskman.remote(parent=True)",
                service.id,
            )
        payload = encode(service.id, method, args, kwargs, self._worker.limit)
        call = Call(service.id, method, self._home)
        self._home.post(self._line.make, call, payload)
        return call.get()

    def say(self, kind: int, flags: int, number: int, payload: Payload) -> None:
        """Say something with the next turn of the loop: for :class:`Line`."""
        self._worker.say(kind, flags, number, payload)

    def _say_up(self, how_far: Up) -> None:
        self._home.post(self._worker.say, messages.UP, how_far, 0, NOTHING, True)

    # --- what it is told

    def _hear(self, frame: Frame) -> None:
        if frame.kind in (messages.CALL, messages.ANSWER):
            self._line.take(frame)
        elif frame.kind == messages.END:
            self._end()
        else:
            raise FrameError(f"a message of the unknown kind {frame.kind}")

    def _find(self, method: str) -> Callable[..., Any]:
        if method not in self._callable:
            raise ServiceMethodError(
                f"service {self._service.id!r} has no remote method {method!r}", self._service.id
            )
        running.set(self._run)  # gtaskman.current() is the service in its calls too
        found: Callable[..., Any] = getattr(self._service, method)
        return found

    def _end(self) -> None:
        """It is to end. Nothing that a service does with its hub may keep it from hearing that."""
        if self._ending:
            return
        self._ending = True
        if type(self._service).stop is ServiceTask.stop:
            self.cancel()
        else:
            self._stopping = gevent.spawn(self._stop)

    def _stop(self) -> None:
        try:
            self._service.stop()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            self.cancel()

    def cancel(self) -> None:
        """Throw :class:`Cancelled` into its task."""
        self._home.post(self._worker.stop_run, self._run.number)


class Parent:
    """The parent of a service, for its task: what is called here, happens there."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method that is marked ``@remote(parent=True)``; gives what it returns.

        Waits cooperatively. Raises what the method raises, and :class:`ServiceMethodError` at once
        if there is no such method.
        """
        return self._inside.call(method, args, kwargs)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return functools.partial(self.call, name)


def _write_lines() -> None:
    """A service may run for months: what it prints is not to wait until a buffer is full."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # if it is a file


def _known(names: frozenset[str]) -> str:
    return f"it has {', '.join(sorted(names))}" if names else "it has none"
