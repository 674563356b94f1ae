"""Talking to services from outside: ``Control`` listens beside a manager, ``Supervisor`` asks it.

::

    Supervisor.restart("web") -- {"do":"restart","service":"web"} -->  Control -> ServiceManager
                              <-- {"value":[{"id":"web", ...}]} ------

Over a private Unix socket, one request and one reply to a connection, each a line of JSON. What
comes from there is never unpickled. Only processes of the same user are listened to.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import gevent
import msgspec
from gevent.pool import Pool
from gevent.server import StreamServer

from gtaskman.errors import (
    ConfigurationError,
    GTaskmanError,
    PayloadError,
    ServiceCallFailed,
    ServiceDown,
    ServiceError,
    ServiceFailed,
    ServiceMethodError,
    UnknownServiceError,
    WaitTimeout,
)
from gtaskman.rendezvous import (
    SUFFIX,
    Nobody,
    Rendezvous,
    found_in,
    peer_of,
    user_name,
    usual_directory,
)
from gtaskman.services.status import Exit, PlaceStatus, ServiceState, ServiceStatus

if TYPE_CHECKING:
    from gtaskman.services.calls import Call
    from gtaskman.services.manager import ServiceManager

log = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE = 60.0  # seconds that something may take which is waited for
_LONGEST = 16 * 1024 * 1024  # bytes of a request, or of a value in a reply
_LINE = _LONGEST + 1024  # with what is around it
_ASKING = 10.0  # seconds that a request may take to be said
_GRACE = 5.0  # seconds that a reply may be late
_CLIENTS = 64  # that may be asking at once; as many may be answered
_PREFIX = "services-"
_AT_REST = (ServiceState.STOPPED, ServiceState.FAILED)

Change = Literal["start", "stop", "restart", "reload"]


# --- what is said --------------------------------------------------------------------------------


class Request(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One thing that is asked: of one ``service``, or of all of them."""

    do: Literal["status", "call"] | Change
    service: str | None = None
    method: str = ""
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = {}
    timeout: float = PATIENCE  # seconds
    wait: bool = True  # until a change has happened
    all_instances: bool = False  # call each of them, not one


class Trouble(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error, by the name of its class; the last three are those of a :class:`Fault`."""

    kind: str
    message: str
    service: str = ""
    method: str = ""
    exc_type: str | None = None
    traceback: str | None = None


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is answered: a value, or an error."""

    value: msgspec.Raw = msgspec.Raw(b"null")
    error: Trouble | None = None


class Standing(msgspec.Struct, frozen=True):
    """How a service stands, as :class:`ServiceStatus` has it at one moment.

    ``error`` says what became of a change that was asked for, if it has not happened; ``late``
    that it goes on, and only the wait for it is over.
    """

    id: str
    name: str
    state: ServiceState
    pids: list[int]
    started_times: int
    uptime: float | None
    sockets: dict[str, Any]
    message: str
    instances: tuple[PlaceStatus, ...]
    history: tuple[Exit, ...]
    error: str | None = None
    late: bool = False

    @classmethod
    def of(cls, status: ServiceStatus, error: GTaskmanError | None = None) -> Standing:
        """How it stands right now."""
        return cls(
            status.id,
            status.name,
            status.state,
            status.pids,
            status.started_times,
            status.uptime,
            status.sockets,
            status.report.message,
            status.instances,
            status.history,
            str(error) if error is not None else None,
            isinstance(error, WaitTimeout),
        )


def _trouble(error: Exception) -> Trouble:
    known = next((name for name, kind in _KINDS.items() if type(error) is kind), None)
    service = getattr(error, "service", "")
    if isinstance(error, ServiceCallFailed):
        details = (error.message, service, error.method, error.exc_type, error.traceback)
    else:
        details = (str(error), service, "", None, None)
    return Trouble(known or "", *map(_readable, details))


def _error(trouble: Trouble) -> GTaskmanError:
    """The error again."""
    kind = _KINDS.get(trouble.kind, GTaskmanError)
    if kind is ServiceCallFailed:
        return ServiceCallFailed(
            trouble.service, trouble.method, trouble.exc_type, trouble.message, trouble.traceback
        )
    if issubclass(kind, ServiceError):
        return kind(trouble.message, trouble.service)
    return kind(trouble.message)


_KINDS: dict[str, type[GTaskmanError]] = {
    each.__name__: each
    for each in (
        ConfigurationError,
        PayloadError,
        ServiceCallFailed,
        ServiceDown,
        ServiceFailed,
        ServiceMethodError,
        UnknownServiceError,
        WaitTimeout,
    )
}


# --- beside the manager --------------------------------------------------------------------------


class Control:
    """Lets others of this user talk to the services of a manager, by way of a socket.

    ``path`` is the socket's; ``who`` says what listens there to whoever finds the place taken.
    Lives on the hub of the thread that starts it. As a context manager it starts on the way in and
    stops on the way out.
    """

    def __init__(self, manager: ServiceManager, path: str | os.PathLike[str], who: str) -> None:
        self.rendezvous = Rendezvous(os.fspath(path))
        self._manager = manager
        self._who = who
        self._server: StreamServer | None = None
        self._asking: dict[gevent.Greenlet, None] = {}  # whose requests have not come, in order

    def start(self) -> Control:
        """Listen. Raises :class:`ConfigurationError` and :class:`RendezvousTaken`."""
        if self._server is None:
            listener = self.rendezvous.listen(self._who)
            self._server = StreamServer(listener, self._serve, spawn=Pool(2 * _CLIENTS))
            self._server.start()
        return self

    def stop(self) -> None:
        """Listen no more; who is being answered is cut off. A second stop does nothing."""
        server, self._server = self._server, None
        if server is not None:
            server.stop(timeout=0)
            self.rendezvous.leave()

    @property
    def busy(self) -> int:
        """How many are being answered right now."""
        return len(self._server.pool) if self._server is not None else 0

    def __enter__(self) -> Control:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # --- one connection

    def _serve(self, connection: Any, _address: Any) -> None:
        try:
            connection.settimeout(_ASKING)
            line = self._await_request(connection)
            if line:
                connection.sendall(self._reply(connection, line))
        except OSError as error:
            log.debug("somebody who asked about services is gone: %s", error)

    def _await_request(self, connection: Any) -> bytes:
        """A request, which must be there in time as a whole.

        Where very many are still to come, the one that has taken the longest is given up: they
        shut nobody out.
        """
        here = gevent.getcurrent()
        if len(self._asking) >= _CLIENTS:
            next(iter(self._asking)).kill(block=False)
        self._asking[here] = None
        try:
            with gevent.Timeout(_ASKING, TimeoutError("the request did not come in time")):
                return _read_line(connection)
        finally:
            self._asking.pop(here, None)

    def _reply(self, connection: Any, line: bytes) -> bytes:
        try:
            self._admit(connection)
            value = self._answer(_decode(line, Request, "the request"))
            reply = Reply(msgspec.Raw(_encode(value, as_text=True)))
        except GTaskmanError as error:
            reply = Reply(error=_trouble(error))
        return msgspec.json.encode(reply) + b"\n"

    def _admit(self, connection: Any) -> None:
        peer = peer_of(connection)
        if peer.uid != os.geteuid():
            log.warning("process %d of %s is not listened to", peer.pid, peer.name)
            raise ConfigurationError(
                f"these services belong to {user_name(os.geteuid())}, and only that user may talk"
                f" to them, not {peer.name}",
                "socket",
            )

    # --- what is asked

    def _answer(self, request: Request) -> Any:
        if request.do == "call":
            return self._call(request)
        if request.do == "status":
            return [Standing.of(self._manager.status(name)) for name in self._named(request)]
        return self._change(request.do, request)

    def _named(self, request: Request) -> list[str]:
        if request.service is None:
            return list(self._manager)
        self._manager.status(request.service)
        return [request.service]

    def _call(self, request: Request) -> Any:
        if request.service is None:
            raise ConfigurationError("a call takes the id of a service", "service")
        service, method = self._manager[request.service], request.method
        if not request.all_instances:
            return self._result(service.call(method, *request.args, **request.options), request)
        calls = service.call_all(method, *request.args, **request.options)
        if not calls:
            why = f"service {request.service!r} does not run: no instance can be called"
            raise ServiceDown(why, request.service)
        return [self._result(call, request) for call in calls]

    def _result(self, call: Call, request: Request) -> Any:
        """What a method has returned. Raises :class:`GTaskmanError`."""
        service, method = str(request.service), request.method
        try:
            return call.get(timeout=request.timeout)
        except PayloadError as error:
            raise PayloadError(
                f"what {method}() of service {service!r} gave cannot travel: {error}"
            ) from error
        except GTaskmanError:
            raise
        except Exception as error:
            kind = type(error)
            name = kind.__qualname__
            if kind.__module__ != "builtins":
                name = f"{kind.__module__}.{name}"
            text = str(error.__cause__.args[0]) if error.__cause__ else None
            raise ServiceCallFailed(service, method, name, str(error), text) from error

    def _change(self, change: Change, request: Request) -> list[Standing]:
        """Have all begin, then wait for all; only a reload goes from one to the next."""
        end = time.monotonic() + request.timeout
        names = self._named(request)
        if request.service is None and change in ("restart", "reload"):
            # Somebody has stopped these, and did not mean until now.
            names = [each for each in names if not self._is_stopped(each)]
        errors: dict[str, GTaskmanError] = {}
        for name in names:
            with _kept(errors, name):
                self._begin(change, name, end)
        for name in names:
            if request.wait and name not in errors:
                with _kept(errors, name):
                    _await(self._manager.status(name), change, end)
        return [Standing.of(self._manager.status(name), errors.get(name)) for name in names]

    def _begin(self, change: Change, name: str, end: float) -> None:
        """Have it begin. A reload lasts, and goes on when nobody waits for it any more."""
        begun = gevent.spawn(_error_of, getattr(self._manager, _METHODS[change]), name)
        begun.join(max(0.0, end - time.monotonic()))
        if not begun.ready():
            raise WaitTimeout(f"the {change} of service {name!r} takes longer, and goes on")
        error = begun.get()
        if error is not None:
            raise error

    def _is_stopped(self, name: str) -> bool:
        return self._manager.status(name).state is ServiceState.STOPPED


_METHODS: dict[Change, str] = {
    "start": "start_service",
    "stop": "stop_service",
    "restart": "restart",
    "reload": "reload",
}


@contextlib.contextmanager
def _kept(errors: dict[str, GTaskmanError], name: str) -> Iterator[None]:
    """Others go on where one has failed: its error is kept."""
    try:
        yield
    except GTaskmanError as error:
        errors[name] = error


def _error_of(change: Callable[[str], object], name: str) -> GTaskmanError | None:
    """What goes wrong; an error that a greenlet ends with would be written to standard error."""
    try:
        change(name)
    except GTaskmanError as error:
        return error
    return None


def _await(status: ServiceStatus, change: Change, end: float) -> None:
    """Wait until a change has happened."""
    left = round(max(0.0, end - time.monotonic()), 1)
    if change == "stop":
        if status.state not in _AT_REST or status.pids:
            status.stopped.get(timeout=left)
    elif change != "reload":
        status.started.get(timeout=left)


# --- from outside --------------------------------------------------------------------------------


class Supervisor:
    """Whoever supervises services, at the other end of a private socket.

    All calls raise :class:`~gtaskman.rendezvous.Nobody` if nobody is there, and wait cooperatively.
    """

    def __init__(self, rendezvous: Rendezvous) -> None:
        self.rendezvous = rendezvous

    def status(self, service: str | None = None) -> list[Standing]:
        """How one service stands, or all. Raises :class:`UnknownServiceError`."""
        return self._standings(Request("status", service, timeout=_GRACE))

    def change(
        self, do: Change, service: str | None, timeout: float = PATIENCE, wait: bool = True
    ) -> list[Standing]:
        """Start, stop, restart or reload one service, or all (None), and say how they stand then.

        Waits at most ``timeout`` seconds until that has happened; unless it is to ``wait``, only a
        reload does. A restart or reload of all leaves out those that somebody has stopped. Raises
        :class:`UnknownServiceError`; what else went wrong is in :attr:`Standing.error`.
        """
        return self._standings(Request(do, service, timeout=timeout, wait=wait))

    def call(
        self,
        service: str,
        method: str,
        args: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
        timeout: float = PATIENCE,
        all_instances: bool = False,
    ) -> Any:
        """Call a remote method; gives what it returned, as JSON has it, or else as a text.

        With ``all_instances`` it is called in each running instance, and a list is given.

        Raises :class:`UnknownServiceError`, :class:`ServiceMethodError`, :class:`ServiceDown`,
        :class:`ServiceCallFailed` with what the method raised, and :class:`WaitTimeout`.
        """
        request = Request(
            "call", service, method, args, options or {}, timeout, all_instances=all_instances
        )
        return _decode(self._ask(request), object, "the reply")

    def _standings(self, request: Request) -> list[Standing]:
        return _decode(self._ask(request), list[Standing], "the reply")

    def _ask(self, request: Request) -> bytes:
        """The value that is answered, as JSON."""
        with contextlib.closing(self.rendezvous.connect()) as connection:
            connection.settimeout(request.timeout + _GRACE)
            try:
                connection.sendall(_encode(request) + b"\n")
                line = _read_line(connection)
            except TimeoutError:
                raise WaitTimeout(
                    f"the supervisor at {self.rendezvous.path} has not answered within"
                    f" {request.timeout + _GRACE:g} s: it is busy, or stopped"
                ) from None
            except ConnectionError:
                line = b""
        if not line:
            raise Nobody(f"the supervisor at {self.rendezvous.path} ended before it answered")
        reply = _decode(line, Reply, "the reply")
        if reply.error is not None:
            raise _error(reply.error)
        return bytes(reply.value)


# --- lines of JSON -------------------------------------------------------------------------------


def _read_line(connection: Any) -> bytes:
    """A line without its end; empty if the other side has closed before it had said all."""
    with connection.makefile("rb") as file:
        line: bytes = file.readline(_LINE)
    return line[:-1] if line.endswith(b"\n") else b""


def _encode(value: Any, as_text: bool = False) -> bytes:
    """A value as JSON; ``as_text``: what JSON has no form for becomes a text.

    Raises :class:`PayloadError`.
    """
    try:
        line = _json_as_text(value) if as_text else msgspec.json.encode(value)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise PayloadError(f"{value!r:.80} cannot be said in JSON: {error}") from None
    if len(line) > _LONGEST:
        raise PayloadError(
            f"this is too long for a command: {len(line)} bytes of JSON, over {_LONGEST}; let the"
            " method return less, or call it from a program"
        )
    return line


def _json_as_text(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value, enc_hook=str)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(value, str_keys=True, enc_hook=str)
        return msgspec.json.encode(_readable(plain))


def _readable(value: Any) -> Any:
    """The same with texts that can be said: names of files may have what no encoding has."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, (list, tuple)):
        return [_readable(each) for each in value]
    if isinstance(value, dict):
        return {_readable(key): _readable(each) for key, each in value.items()}
    return value


def _decode(line: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise PayloadError(f"{what} cannot be read: {error}") from None


# --- where ---------------------------------------------------------------------------------------


def usual_path(name: str) -> Rendezvous:
    """Where whoever supervises the services of this file or module is, unless told otherwise."""
    return Rendezvous(usual_directory() / f"{_PREFIX}{name.replace(os.sep, '-')}{SUFFIX}")


def supervisors() -> list[Supervisor]:
    """All of this user's that are in the usual place."""
    return [Supervisor(each) for each in found_in(usual_directory(), _PREFIX)]
