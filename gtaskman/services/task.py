"""``ServiceTask`` and ``@remote``: how a service is written."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from gtaskman.errors import ServiceError, TaskDefinitionError
from gtaskman.task import LIMITS, Task, names_of
from gtaskman.terms import Terms

if TYPE_CHECKING:
    import gevent.socket

    from gtaskman.services.inside import Inside, Parent

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__gtaskman_remote__"
_SERVICE, _PARENT = "service", "parent"


@overload
def remote(method: F, /) -> F: ...


@overload
def remote(*, parent: bool = False) -> Callable[[F], F]: ...


def remote(method: Any = None, /, *, parent: bool = False) -> Any:
    """Let a method of a service be called from the other side of its pipe.

    ``@remote`` marks what the parent may call in the service, ``@remote(parent=True)`` what the
    service may call in its parent, where ``self`` is the object that was given to ``add``.
    """
    if method is None:
        return lambda marked: _mark(marked, _PARENT if parent else _SERVICE)
    return _mark(method, _SERVICE)


def _mark(method: Any, side: str) -> Any:
    if not inspect.isfunction(method) or inspect.iscoroutinefunction(method):
        raise TaskDefinitionError(
            f"@remote takes a plain method of a service, not {method!r:.80}; other decorators go"
            " above it"
        )
    setattr(method, _MARK, side)
    return method


def remotes(cls: type, parent: bool = False) -> frozenset[str]:
    """The names of the methods that may be called in the service, or in its ``parent``."""
    side = _PARENT if parent else _SERVICE
    return frozenset(
        name for name in dir(cls) if getattr(getattr(cls, name, None), _MARK, None) == side
    )


class ServiceTask(Task):
    """A task that runs for ever: a :class:`ServiceManager` keeps it alive in a process of its own.

    ::

        class Web(gtaskman.ServiceTask):
            port: int

            def run(self, progress):
                self.server = WSGIServer(("127.0.0.1", self.port), self.answer)
                self.server.serve_forever()

            def stop(self):
                self.server.stop(timeout=5)

            @gtaskman.remote
            def set_greeting(self, text: str) -> None: ...

    Its options are annotated fields as with any task. ``run`` runs as a greenlet on its process's
    hub; when it returns, the service has ended. With ``notify=True`` in the class statement it
    is ready when it calls :meth:`ready`, else as soon as ``run`` is entered.
    """

    kind = "service"
    notify: ClassVar[bool] = False
    _inside: Any = None  # an Inside, which must not be imported to define a service

    def __init_subclass__(
        cls, *, name: str | None = None, notify: bool | None = None, **options: Any
    ) -> None:
        refused = sorted(options.keys() & {*LIMITS, *Terms.__struct_fields__})
        if refused:
            raise TaskDefinitionError(
                f"{cls.__name__}: a service has no {refused[0]!r}: how it is kept alive is said by"
                " the ServiceOptions that are given to ServiceManager.add"
            )
        super().__init_subclass__(name=name, **options)
        if notify is not None:
            cls.notify = notify
        taken = sorted((remotes(cls) | remotes(cls, parent=True)) & _CALLERS)
        if taken:
            raise TaskDefinitionError(
                f"{cls.__name__}: a remote method cannot be named {taken[0]!r}, which is how"
                " others are called"
            )

    def with_options(self, **_options: Any) -> ServiceTask:
        """A service has no limits or terms of a task: raises :class:`TaskDefinitionError`."""
        raise TaskDefinitionError(
            f"{self.definition.name} is a service: how it is kept alive is said by the"
            " ServiceOptions that are given to ServiceManager.add"
        )

    # --- for those who override it

    def stop(self) -> None:
        """End: called in the service's process when it is asked to; ``run`` is to return then.

        Unless it is overridden, :class:`Cancelled` is thrown into ``run``, even if that computes.
        """
        if self._inside is not None:
            self._inside.cancel()

    def stopped(self) -> None:
        """A process of it has ended: called in the parent, on the object given to ``add``."""

    # --- for those who write it

    def ready(self) -> None:
        """Say that it is ready, if its class says ``notify=True``; else it is so already."""
        if self._inside is not None:
            self._inside.ready()

    def emit(self, name: str, payload: Any = None) -> None:
        """Send a message, which the parent has as the event ``service-message``.

        Raises :class:`PayloadError` if the payload cannot travel. Called directly, outside of a
        service's process, it goes nowhere.
        """
        if self._inside is not None:
            self._inside.emit(name, payload)

    @property
    def instance(self) -> int:
        """The number of its place, from 0, where several run side by side."""
        return int(self._inside.instance) if self._inside is not None else 0

    @property
    def sockets(self) -> dict[str, gevent.socket.socket]:
        """The listening sockets of its ServiceOptions by name, as sockets of gevent."""
        return dict(self._in_process("its sockets").sockets)

    @property
    def parent(self) -> Parent:
        """Its parent: ``self.parent.note(3)`` calls the method there and gives what it returns."""
        return self._in_process("its parent").parent

    def _in_process(self, what: str) -> Inside:
        if self._inside is None:
            raise ServiceError(
                f"service {self.definition.name} has {what} only in a process that a"
                " ServiceManager has started for it",
                self.id,
            )
        inside: Inside = self._inside
        return inside

    @classmethod
    def perform(cls, run: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Be the service that ``run`` orders, in a process of its own, until it ends."""
        from gtaskman.services.inside import Inside

        service = cls.revive(run.id, options)
        assert isinstance(service, ServiceTask)
        service._inside = inside = Inside(service, run, *args)
        return inside.serve()


_CALLERS = frozenset({"call", "call_all"})
ServiceTask.taken = names_of(ServiceTask)
