"""Which system calls fail, and how: the n-th call of one kind in one process, once."""

from __future__ import annotations

import _socket
import errno
import fcntl
import json
import os
import posix
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from gtaskman.wire import control

TEMPLATE = "GTASKMAN_TEST_FAULT"  # the environment variable with the fault of the template
COUNTS = "GTASKMAN_TEST_COUNTS"  # and the one with the file in which it counts

# In which object the call is looked up -> how it may fail. "lost" drops the descriptors that came.
CALLS: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "socketpair": (_socket, "socketpair", ("EMFILE", "ENOMEM")),
    "memfd_create": (os, "memfd_create", ("EMFILE", "ENOMEM")),
    "pidfd_open": (os, "pidfd_open", ("EMFILE", "ENOMEM")),
    "pidfd_send_signal": (signal, "pidfd_send_signal", ("EPERM",)),
    "dup": (os, "dup", ("EMFILE",)),
    "fcntl": (fcntl, "fcntl", ("EMFILE",)),
    "recvmsg": (control, "_receive", ("ENOMEM",)),
    "descriptors": (control, "_receive", ("lost",)),  # of those, the ones that bring some
    "fork": (posix, "fork", ("EAGAIN", "ENOMEM")),
    "posix_spawn": (posix, "posix_spawn", ("EAGAIN", "ENOMEM")),
}


class Fault(NamedTuple):
    """The ``at``-th ``call`` (from 1) fails with ``how``, in the application or the template."""

    call: str
    how: str
    at: int
    in_template: bool = False

    def __str__(self) -> str:
        where = "template" if self.in_template else "application"
        return f"{where}:{self.call}:{self.how}:{self.at}"


def install(fault: Fault | None, counts: Counter[str]) -> None:
    """Count all calls of this process in ``counts``; let that of ``fault`` fail."""
    for call, (owner, name, _) in CALLS.items():
        mine = fault if fault is not None and fault.call == call else None
        wrap = _losing if call == "descriptors" else _counting
        setattr(owner, name, wrap(call, getattr(owner, name), mine, counts))


def _counting(
    call: str, real: Callable[..., Any], fault: Fault | None, counts: Counter[str]
) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        counts[call] += 1
        if fault is None or counts[call] != fault.at:
            return real(*args, **kwargs)
        number = getattr(errno, fault.how)
        raise OSError(number, f"{os.strerror(number)} (injected)")

    return counted


def _losing(
    call: str, real: Callable[..., Any], fault: Fault | None, counts: Counter[str]
) -> Callable[..., Any]:
    def received(*args: Any) -> Any:
        packet = real(*args)
        if packet[1]:
            counts[call] += 1
            if fault is not None and counts[call] == fault.at:
                for fd in control.take(packet)[1]:
                    os.close(fd)
                return packet[0], [], *packet[2:]
        return packet

    return received


def install_in_template() -> None:
    """Called when the template imports :mod:`tests.faults.template`."""
    spec, path = os.environ.get(TEMPLATE), os.environ.get(COUNTS)
    counts: Counter[str] = Counter()
    install(Fault(*json.loads(spec)) if spec else None, counts)
    if path is not None:
        _tell_counts(path, counts)


def _tell_counts(path: str, counts: Counter[str]) -> None:
    """Write the counts before each packet that the template waits for: it may be killed at once."""
    template, receive = os.getpid(), control._receive

    def receive_and_tell(*args: Any) -> Any:
        if os.getpid() == template:
            with open(f"{path}.new", "w") as file:
                json.dump(counts, file)
            os.replace(f"{path}.new", path)
        return receive(*args)

    control._receive = receive_and_tell
