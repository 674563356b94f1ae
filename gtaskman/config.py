"""``Configuration``: every setting of a manager, its default and its check, in one place.

Frozen and validated once, when it is made. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from gtaskman.errors import ConfigurationError
from gtaskman.fields import Mismatch, conform, hints_of

START_METHODS = ("zygote", "spawn", "fork")
MIB = 1024 * 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Configuration:
    """How many workers a manager keeps, how they start, and when they are stopped.

    Raises :class:`ConfigurationError`, which names the field, for an unknown name, a value of the
    wrong type or out of range, or two values that contradict each other.
    """

    # --- the pool
    min_processes: int = 1
    """Workers that are kept even when there is nothing to do."""
    max_processes: int = 10
    """Workers that may live at once (a replacement overlaps with the one it replaces)."""
    ttl: float = 60.0
    """Seconds after which an idle worker beyond ``min_processes`` ends."""
    max_jobs_per_process: int = 100
    """Async tasks that run at once in one worker."""

    # --- how workers start
    start_method: str = "zygote"
    """``zygote``, ``spawn``, or ``fork`` (unsafe in a busy process: see the documentation)."""
    preload: tuple[str, ...] = ()
    """Modules that the template imports before it forks, beside those of the known tasks."""
    background: bool = False
    """Run the manager on a native thread of its own, for programs whose main thread never waits."""
    start_timeout: float = 30.0
    """Seconds within which a worker, and the template, must be ready."""
    nice: int = 0
    """Added to the workers' niceness, so that the application goes first on a full machine."""

    # --- when a worker is replaced
    max_tasks_per_process: int | None = None
    """Tasks after which a worker is replaced."""
    max_age: float | None = None
    """Seconds after which a worker is replaced."""
    max_rss: int | None = None
    """Resident bytes after which a worker is replaced, seen when a task of its ends."""

    # --- how much is on its way
    prefetch: int = 2
    """Sync tasks a worker holds at once, the running one included, whatever they take."""
    max_prefetch: int = 64
    """Sync tasks a worker holds at once while they are tiny."""
    max_pending_bytes: int = 256 * MIB
    """Waiting tasks (payload and 1 KiB each) above which ``submit`` waits."""
    max_frame: int = 1024 * MIB
    """The largest message, and so the largest argument or result."""

    # --- how tasks are stopped
    kill_grace: float = 2.0
    """Seconds between asking a task to stop and killing its worker."""
    stop_timeout: float = 10.0
    """Seconds that ``stop`` lets tasks finish before it cancels them."""
    max_crashes: int = 3
    """Workers that one task may kill before it is given up as poison, retries or not."""

    # --- fairness and economy
    sync_patience: float = 1.0
    """Seconds after which a waiting sync task goes before async ones."""
    reuse_greenlets: bool = False
    """Run async tasks in kept greenlets: faster, but greenlet-locals outlive the task."""

    # --- what is remembered
    keep_finished: int = 1000
    """Reports of finished tasks that the in-memory storage keeps."""
    keep_bytes: int = 64 * MIB
    """Bytes of results that the in-memory storage keeps."""

    def __new__(cls, *args: Any, **values: Any) -> Configuration:
        # Before __init__ has a say: an unknown name is our error, not a bare TypeError.
        if args:
            raise ConfigurationError("Configuration takes its values by name only")
        names = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in names:
                close = difflib.get_close_matches(name, names, 1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise ConfigurationError(f"Configuration has no option {name!r}{hint}", name)
        return object.__new__(cls)

    def __post_init__(self) -> None:
        for name, annotation in hints_of(type(self)).items():
            object.__setattr__(self, name, _fit(name, getattr(self, name), annotation))
        for name, low in _LOWEST.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise ConfigurationError(f"{name} must be at least {low}, not {value!r}", name)
        self._agree()

    def _agree(self) -> None:
        if self.min_processes > self.max_processes:
            raise ConfigurationError(
                f"min_processes={self.min_processes} is more than"
                f" max_processes={self.max_processes}: raise the one or lower the other",
                "min_processes",
            )
        if self.prefetch > self.max_prefetch:
            raise ConfigurationError(
                f"prefetch={self.prefetch} is more than max_prefetch={self.max_prefetch}",
                "prefetch",
            )
        if self.start_method not in START_METHODS:
            raise ConfigurationError(
                f"start_method must be one of {', '.join(START_METHODS)},"
                f" not {self.start_method!r}",
                "start_method",
            )
        if self.background and self.start_method == "fork":
            raise ConfigurationError(
                "background=True puts the manager on a second thread, and a fork taken there can"
                " deadlock on a lock of the first: use start_method='zygote' or 'spawn'",
                "start_method",
            )

    def replace(self, **changes: Any) -> Configuration:
        """A copy with ``changes``, validated again."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Configuration(**{**values, **changes})


_LOWEST: dict[str, float] = {
    "min_processes": 0,
    "max_processes": 1,
    "ttl": 0,
    "max_jobs_per_process": 1,
    "start_timeout": 0.1,
    "max_tasks_per_process": 1,
    "max_age": 0.1,
    "max_rss": MIB,
    "nice": 0,
    "prefetch": 1,
    "max_prefetch": 1,
    "max_pending_bytes": 1,
    "max_frame": MIB,
    "kill_grace": 0,
    "stop_timeout": 0,
    "max_crashes": 1,
    "sync_patience": 0,
    "keep_finished": 0,
    "keep_bytes": 0,
}


def _fit(name: str, value: Any, annotation: Any) -> Any:
    if isinstance(value, bool) and annotation is not bool:
        raise ConfigurationError(f"{name}: expected a number, got {value!r}", name)
    try:
        return conform(value, annotation)
    except Mismatch as mismatch:
        raise ConfigurationError(f"{name}={value!r}: {mismatch}", name) from None
