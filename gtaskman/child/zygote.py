"""The zygote: a template that imports the application once and forks every worker on request.

It is started by an exec, has one thread and no hub, and uses only what gevent never patches: a
patched ``os.fork`` would make a hub in it. It speaks with its manager over a SOCK_SEQPACKET
socket (see ``gtaskman.wire.control``) and watches its workers by pidfd. When the socket closes,
because the manager died, it kills them and goes.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import gc
import os
import posix
import select
import signal
import sys
from typing import NoReturn

from gevent import monkey

from gtaskman.child import boot, preload
from gtaskman.child.start import adopt, start_worker
from gtaskman.wire import control
from gtaskman.wire.settings import Settings

CONTROL_FD, SETTINGS_FD = 3, 4
_LONGEST = 32 * 1024  # characters of a traceback that are sent: a packet holds no more than 200 KiB
_SHORT = (errno.ENOMEM, errno.ENOBUFS)
_PAUSE = 0.05  # seconds until a message is received again when there was no memory for it
_EVERY_SIGNAL = signal.valid_signals()


def main() -> NoReturn:
    """Run the template on the control socket that it was started with."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    socket = _socket.socket(fileno=CONTROL_FD)
    os.set_inheritable(CONTROL_FD, False)
    Zygote(socket, control.read_settings(SETTINGS_FD)).serve()


class Zygote:
    """The template and the workers that it has forked."""

    def __init__(self, socket: _socket.socket, settings: Settings) -> None:
        self._pid = os.getpid()
        self._socket = socket
        self._settings = settings
        self._unfit = False  # it can be forked no more, and goes with its last worker
        self._workers: dict[int, int] = {}  # pidfd -> pid
        self._poll = monkey.get_original("select", "poll")()
        self._poll.register(socket.fileno(), select.POLLIN)

    def serve(self) -> NoReturn:
        """Import the application, then fork on request until the manager is gone."""
        adopt(self._settings)
        boot.name_process(f"gtaskman: template of {self._settings.title}")
        preload.warm()
        for module in self._settings.preload:
            self._load(module)
        gc.collect()
        gc.freeze()
        control.send(self._socket, control.Hello())
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._socket.fileno():
                    self._obey()
                else:
                    self._reap(fd)

    def _load(self, module: str) -> None:
        if self._unfit:
            return  # the next template imports it
        control.send(self._socket, control.Importing(module))
        error = preload.load(module, self._settings.main)
        reason = preload.unfit()
        told = error[-_LONGEST:] if error is not None else None
        control.send(self._socket, control.Imported(module, told, reason))
        if reason is not None:
            # A thread or a hub has come to life in here: what would be forked now is broken. The
            # manager starts another template without this module.
            self._unfit = True
            self._leave_if_useless()

    def _leave_if_useless(self) -> None:
        if self._unfit and not self._workers:
            os._exit(0)

    def _obey(self) -> None:
        try:
            message, fds = control.receive(self._socket)
        except OSError as error:
            if error.errno not in _SHORT:
                raise
            monkey.get_original("time", "sleep")(_PAUSE)  # the message is still there
            return
        if message is None:
            self._end()
        elif isinstance(message, control.Fork):
            self._fork(message, fds)
        elif isinstance(message, control.Import):
            self._load(message.module)
        elif isinstance(message, control.Retire):
            self._unfit = True
            self._leave_if_useless()
        elif isinstance(message, control.Signal):
            self._signal(message)

    def _signal(self, order: control.Signal) -> None:
        for pidfd, pid in self._workers.items():
            if pid == order.pid:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, order.number)

    def _fork(self, order: control.Fork, fds: list[int]) -> None:
        if self._unfit:
            self._refuse(order, fds, "the template is not fit to be forked any more")
            return
        if len(fds) != order.descriptors:
            # The kernel drops those for which there is no room in this process.
            self._refuse(order, fds, "its template has no free descriptor")
            return
        boot.flush_output()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _EVERY_SIGNAL)
        try:
            pid = posix.fork()
        except OSError as error:
            self._refuse(order, fds, str(error))
            return
        finally:
            if os.getpid() == self._pid:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if pid == 0:
            self._become_worker(order, fds)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            os.kill(pid, signal.SIGKILL)
            posix.waitpid(pid, 0)
            self._refuse(order, fds, str(error))
            return
        _close_all(fds)
        self._workers[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)
        control.send(self._socket, control.Up(order.worker, pid), [pidfd])

    def _refuse(self, order: control.Fork, fds: list[int], why: str) -> None:
        control.send(self._socket, control.Refused(order.worker, why))
        _close_all(fds)

    def _become_worker(self, order: control.Fork, fds: list[int]) -> NoReturn:
        """In the fork: let go of all that is the template's, then work."""
        code = 1
        try:
            boot.die_with(self._pid)
            preload.renew_hub()
            self._socket.close()
            for pidfd in self._workers:
                os.close(pidfd)
            pipe, page, *more = fds
            for module in order.imports:
                # What fails here fails again, and is told, when a task needs it.
                preload.load(module, self._settings.main)
            start_worker(order.worker, pipe, page, self._settings, more)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            boot.flush_output()
            os._exit(code)

    def _reap(self, pidfd: int) -> None:
        pid = self._workers.pop(pidfd)
        self._poll.unregister(pidfd)
        _, status, usage = os.wait4(pid, 0)
        os.close(pidfd)
        control.send(self._socket, control.Exit(pid, status, usage.ru_maxrss * 1024))
        self._leave_if_useless()

    def _end(self) -> NoReturn:
        for pidfd in self._workers:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for pid in self._workers.values():
            posix.waitpid(pid, 0)
        os._exit(0)


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
