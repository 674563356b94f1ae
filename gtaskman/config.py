"""``Configuration``: every setting of a manager, its default and its check, in one place.

Frozen and validated once, when it is made. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from typing import Any

from gtaskman.cores import usable_cores
from gtaskman.errors import ConfigurationError
from gtaskman.fields import Mismatch, conform, declared, shown

START_METHODS = ("zygote", "spawn", "fork")
MIB = 1024 * 1024


class Configuration:
    """How many workers a manager keeps, how they start, and when they are stopped.

    Raises :class:`ConfigurationError`, which names the field, for an unknown name, a value of the
    wrong type or out of range, or two values that contradict each other.
    """

    # --- the pool
    min_processes: int = 1
    """Workers that are kept even when there is nothing to do."""
    max_processes: int = max(2, usable_cores())
    """Workers that may live at once, and the most sync tasks that run at once.

    By default as many as the process may use cores (its affinity and its control group's quota
    count), but at least 2, so that one long task does not hold up all others, and at least
    ``min_processes``. While a worker is being replaced there may be one process more.
    """
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
    """Seconds after which a worker is replaced, whether or not it is idle."""
    max_rss: int | None = None
    """Resident bytes after which a worker is replaced, seen when a task of its ends."""

    # --- how much is on its way
    prefetch: int = 2
    """Sync tasks a worker holds at once, the running one included, whatever they take."""
    max_prefetch: int = 256
    """Sync tasks a worker holds at once while they are tiny."""
    max_pending_bytes: int = 256 * MIB
    """Waiting tasks (payload and 1 KiB each) above which ``submit`` waits."""
    max_frame: int = 1024 * MIB
    """The largest message, up to 4 GiB - 1: arguments or a result may take 4 KiB less."""
    max_result: int = MIB
    """The largest result that goes to a server, to be fetched from there."""

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
    """Reports of finished tasks that the in-memory storage keeps, and dead letters of its queue."""
    keep_bytes: int = 64 * MIB
    """Bytes of results that the in-memory storage keeps, and of the arguments of dead letters."""

    def __init__(self, *args: Any, **values: Any) -> None:
        if args:
            raise ConfigurationError("Configuration takes its values by name only")
        fields = declared(Configuration, object)
        for name in values:
            if name not in fields:
                raise ConfigurationError(f"Configuration has no option {name!r}{_hint(name)}", name)
        for name, (annotation, default) in fields.items():
            value = _fit(name, values.get(name, default), annotation)
            low = _LOWEST.get(name)
            if low is not None and value is not None and not value >= low:
                raise ConfigurationError(f"{name} must be at least {low}, not {shown(value)}", name)
            high = _HIGHEST.get(name)
            if high is not None and value is not None and value > high:
                raise ConfigurationError(f"{name} must be at most {high}, not {shown(value)}", name)
            self.__dict__[name] = value
        if "max_processes" not in values:
            # Whether so many may be kept does not depend on the machine.
            self.__dict__["max_processes"] = max(self.max_processes, self.min_processes)
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
        return Configuration(**{**self.__dict__, **changes})

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Configuration is frozen: use replace({name}=...) for a copy")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Configuration is frozen: {name} stays")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Configuration) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.items()))

    def __repr__(self) -> str:
        return f"Configuration({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"


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
    "max_result": 1024,
    "kill_grace": 0,
    "stop_timeout": 0,
    "max_crashes": 1,
    "sync_patience": 0,
    "keep_finished": 0,
    "keep_bytes": 0,
}

# A frame states the length of its body in four bytes.
_HIGHEST: dict[str, float] = {"max_frame": 2**32 - 1}


def _fit(name: str, value: Any, annotation: Any) -> Any:
    if isinstance(value, bool) and annotation is not bool:
        raise ConfigurationError(f"{name}: expected a number, got {shown(value)}", name)
    try:
        return conform(value, annotation)
    except Mismatch as mismatch:
        raise ConfigurationError(f"{name}: {mismatch}", name) from None


def _hint(name: str) -> str:
    import difflib  # only a mistake needs it

    close = difflib.get_close_matches(name, declared(Configuration, object), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
