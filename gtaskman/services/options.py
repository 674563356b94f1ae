"""``ServiceOptions``: how a service is kept alive, and how it is stopped.

Frozen and validated once, when they are made. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from gtaskman.backoff import Backoff
from gtaskman.config import MIB
from gtaskman.errors import ConfigurationError
from gtaskman.fields import Mismatch, conform, declared

_MOST_SOCKETS = 200  # so many descriptors, and ours, can be handed to a process at once

# Where a service listens: a host and a port (0 for any that is free), or the path of a socket.
Place = tuple[str, int] | str


class RestartPolicy(enum.Enum):
    """Whether a service that has ended by itself is started again."""

    ALWAYS = "always"  # whatever its end was
    ON_FAILURE = "on-failure"  # it raised, crashed, was unwell; not when its run returned
    NEVER = "never"  # it rests, or has failed


class ServiceOptions:
    """How one service is kept alive.

    Raises :class:`ConfigurationError`, which names the field, for an unknown name, a value of the
    wrong type or out of range, or two values that contradict each other.
    """

    # --- when it has ended by itself
    restart: RestartPolicy = RestartPolicy.ALWAYS
    """Whether it is started again; its value, such as ``"on-failure"``, will do too."""
    backoff: Backoff = Backoff(first=0.1, factor=2.0, maximum=30.0, jitter=0.2)
    """How long it waits for that, longer after each end in a row; seconds are the first wait."""
    stable_after: float = 10.0
    """Seconds after which it is said to have run well: the next wait is the first one again."""
    max_restarts: int | None = None
    """Restarts within ``window`` after which it is given up; None for no end."""
    window: float = 60.0
    """Seconds for which a restart counts against ``max_restarts``."""

    # --- how it starts
    instances: int = 1
    """Processes that run it side by side."""
    start_timeout: float = 30.0
    """Seconds within which a process of its must be ready."""
    sockets: Mapping[str, Any] = {}
    """Listening sockets by name: ``("127.0.0.1", 8000)`` or the path of a Unix socket. They are
    opened once and outlive every process of the service."""
    backlog: int = 1024
    """Connections that may wait in each of these sockets to be accepted."""

    # --- how it is stopped
    terminate_timeout: float = 5.0
    """Seconds from asking it to end to SIGTERM."""
    terminate_timeout_hard: float = 10.0
    """Seconds from asking it to end to SIGKILL."""

    # --- whether it is well
    health: str | None = None
    """A remote method that is called now and then: it fails if it raises or gives False."""
    health_every: float = 10.0
    """Seconds between two of these calls."""
    health_timeout: float = 5.0
    """Seconds that it may take to answer."""
    health_failures: int = 3
    """Failures in a row after which it is restarted."""

    # --- when it is replaced, the new one before the old one goes
    max_rss: int | None = None
    """Resident bytes of a process, looked at every second."""
    max_age: float | None = None
    """Seconds since a process of its was ready."""

    def __init__(self, *args: Any, **values: Any) -> None:
        if args:
            raise ConfigurationError("ServiceOptions takes its values by name only")
        fields = declared(ServiceOptions, object)
        for name in values:
            if name not in fields:
                known = ", ".join(fields)
                raise ConfigurationError(
                    f"ServiceOptions has no option {name!r} (it has: {known})", name
                )
        for name, (annotation, default) in fields.items():
            value = values.get(name, default)
            if name == "backoff" and type(value) in (int, float):
                value = _starting_with(value)
            value = _fit(name, value, annotation)
            low = _LOWEST.get(name)
            if low is not None and value is not None and not value >= low:
                raise ConfigurationError(f"{name} must be at least {low}, not {value!r}", name)
            self.__dict__[name] = value
        self.__dict__["sockets"] = _listeners(self.sockets)
        if self.terminate_timeout_hard < self.terminate_timeout:
            raise ConfigurationError(
                f"terminate_timeout_hard={self.terminate_timeout_hard} is less than"
                f" terminate_timeout={self.terminate_timeout}: both count from when it is asked to"
                " end",
                "terminate_timeout_hard",
            )

    def replace(self, **changes: Any) -> ServiceOptions:
        """A copy with ``changes``, validated again."""
        return ServiceOptions(**{**self.__dict__, **changes})

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"ServiceOptions are frozen: use replace({name}=...) for a copy")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"ServiceOptions are frozen: {name} stays")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServiceOptions) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment] # the sockets are a mapping

    def __repr__(self) -> str:
        return f"ServiceOptions({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"


_LOWEST: dict[str, float] = {
    "stable_after": 0,
    "max_restarts": 0,
    "window": 0.001,
    "instances": 1,
    "start_timeout": 0.1,
    "backlog": 1,
    "terminate_timeout": 0,
    "terminate_timeout_hard": 0,
    "health_every": 0.01,
    "health_timeout": 0.001,
    "health_failures": 1,
    "max_rss": MIB,
    "max_age": 0.1,
}


def _fit(name: str, value: Any, annotation: Any) -> Any:
    if isinstance(value, bool):
        raise ConfigurationError(f"{name}: {value!r} is no value for it", name)
    try:
        return conform(value, annotation)
    except Mismatch as mismatch:
        raise ConfigurationError(f"{name}={value!r}: {mismatch}", name) from None


def _starting_with(seconds: float) -> Backoff:
    try:
        return Backoff.starting_with(seconds)
    except ConfigurationError as error:
        raise ConfigurationError(f"backoff={seconds!r}: {error}", "backoff") from None


def _listeners(sockets: Mapping[str, Any]) -> dict[str, Place]:
    if len(sockets) > _MOST_SOCKETS:
        raise ConfigurationError(f"sockets: there may be {_MOST_SOCKETS} at most", "sockets")
    return {_name(name): _place(name, where) for name, where in sockets.items()}


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"sockets: a name is a text, not {name!r}", "sockets")
    return name


def _place(name: str, where: Any) -> Place:
    if isinstance(where, str) and where and "\0" not in where:
        return where
    if isinstance(where, (tuple, list)) and len(where) == 2:
        host, port = where
        if isinstance(host, str) and isinstance(port, int) and 0 <= port <= 0xFFFF:
            return host, port
    raise ConfigurationError(
        f"sockets: {name!r} takes a host and a port from 0 to 65535, such as ('127.0.0.1', 8000),"
        f" or the path of a Unix socket, not {where!r:.80}",
        "sockets",
    )
