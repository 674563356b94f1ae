"""The start methods: how a new worker comes to life, and how its end is noticed.

None of them uses SIGCHLD in the application's process: ends are seen by pidfd.
"""

from __future__ import annotations

import functools
import logging
import os
import posix
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from greenlet import greenlet

from gtaskman.config import Configuration
from gtaskman.errors import GTaskmanError, StartMethodError
from gtaskman.latch import Latch
from gtaskman.pool.alarm import Alarm
from gtaskman.pool.launch import (
    abandon,
    close_all,
    duplicate,
    exec_python,
    import_path,
    program,
    reap,
)
from gtaskman.pool.template import Template
from gtaskman.process import failed_preload
from gtaskman.reference import main_of_application
from gtaskman.wire import control
from gtaskman.wire.settings import Settings
from gtaskman.wire.watcher import READ, Watcher

log = logging.getLogger(__name__)

_AGAIN = 0.1  # seconds until a descriptor is asked for again


class StartListener(Protocol):
    """Who is told of workers that come and go."""

    def on_up(self, number: int, pid: int, pidfd: int) -> None:
        """The worker lives; ``pidfd`` is the listener's now."""

    def on_refused(self, number: int, why: str) -> None:
        """The worker could not be started."""

    def on_exit(self, pid: int, status: int | None, maxrss: int) -> None:
        """The worker has ended: its wait status (None if nobody knows), its most bytes."""

    def on_condemned(self, pids: list[int], why: str) -> None:
        """The workers are about to be killed together: they must get no more tasks."""

    def on_exits(self, pids: list[int], why: str) -> None:
        """The workers have died, or must, together."""

    def on_broken(self, module: str, why: str) -> None:
        """The module cannot be imported in any worker: it would never come back."""


class Starter(Protocol):
    """A start method. ``start`` takes over the descriptors that it is given."""

    def start(self, number: int, pipe: int, page: int, more: Sequence[int] = ()) -> bytes:
        """Begin to start a worker; gives what must be the first bytes on its pipe.

        ``more`` are descriptors that it is to have beside its pipe and its page.
        """

    def abandon(self, number: int) -> None:
        """A worker that is not up has taken too long: its descriptors are closed."""

    def learn(self, module: str) -> None:
        """A task of this module was submitted: later workers had better have it."""

    def renew(self) -> None:
        """Later workers are to have the code as it is on disk by then."""

    def signal(self, pid: int, number: int) -> None:
        """Send a worker a signal on behalf of an application that may not do so itself."""

    def stop(self) -> list[Latch]:
        """End; gives what opens when all is gone."""

    def forget(self) -> None:
        """In a fork of the application: close our copies of what belongs to the original."""


class ZygoteStarter:
    """Workers are forked from a template, which is started when it is first needed."""

    def __init__(
        self,
        loop: Any,
        config: Configuration,
        settings: Callable[[tuple[str, ...]], Settings],
        listener: StartListener,
    ) -> None:
        self._loop = loop
        self._config = config
        self._settings = settings
        self._listener = listener
        self._modules: dict[str, None] = dict.fromkeys(config.preload)
        self._left_out: set[str] = set()  # modules that make a template useless
        self._failed: set[str] = set()  # modules of ``preload`` with a failed import in the log
        self._current: Template | None = None
        self._templates: dict[Template, dict[int, int | None]] = {}  # worker number -> pid
        self._alarm = Alarm(loop)
        # The descriptors of workers that are not up: should the template turn out to be none, the
        # next one forks them.
        self._unborn: dict[int, tuple[int, ...]] = {}
        self._unwatched: dict[int, int] = {}  # workers that are up and have no pidfd here -> pid
        self._pidfd_alarm = Alarm(loop)

    # --- what the pool asks

    def start(self, number: int, pipe: int, page: int, more: Sequence[int] = ()) -> bytes:
        self._unborn[number] = (pipe, page, *more)
        try:
            self._order(number)
        except BaseException:
            self._let_go(number)
            raise
        return b""

    def _order(self, number: int) -> None:
        template = self._template()
        imports = tuple(name for name in self._config.preload if name in self._left_out)
        fds = duplicate(self._unborn[number])
        self._templates[template][number] = None
        template.send(control.Fork(number, len(fds), imports), fds)

    def _let_go(self, number: int) -> None:
        close_all(self._unborn.pop(number, ()))

    def abandon(self, number: int) -> None:
        self._let_go(number)
        template = self._current
        if template is None:
            return
        template.read()  # what it says may be waiting for a hub that was blocked
        silent = time.monotonic() - template.heard_at > self._config.start_timeout
        workers = self._templates.get(template, {})
        # One that is not ready in time, or imports something, is ended by the alarm.
        if silent and template.ready and workers.get(number, 0) is None:
            log.warning("the template of the workers does not answer: another one is started")
            self._retire(template)
            template.send(control.Retire())
            if not any(workers.values()):
                template.kill()

    def learn(self, module: str) -> None:
        if module in self._modules or module in self._left_out:
            return
        self._modules[module] = None
        if self._current is not None:
            self._current.send(control.Import(module))

    def renew(self) -> None:
        template = self._current
        self._left_out.clear()  # new code may be fit
        if template is not None:
            self._retire(template)
            template.send(control.Retire())

    def signal(self, pid: int, number: int) -> None:
        for template, workers in self._templates.items():
            if pid in workers.values():
                template.send(control.Signal(pid, number))

    def stop(self) -> list[Latch]:
        self._alarm.cancel()
        self._pidfd_alarm.cancel()
        for number in list(self._unborn):
            self._let_go(number)
        templates = list(self._templates)
        for template in templates:
            if not template.lost:
                template.close()
            template.kill()
        self._current = None
        return [template.ended for template in templates]

    def forget(self) -> None:
        self._alarm.cancel()
        self._pidfd_alarm.cancel()
        for number in list(self._unborn):
            self._let_go(number)
        for template in self._templates:
            template.forget()
        self._templates.clear()

    # --- templates

    def _template(self) -> Template:
        if self._current is None:
            modules = tuple(name for name in self._modules if name not in self._left_out)
            self._current = Template(self._loop, self._settings(modules), self)
            self._templates[self._current] = {}
            self._watch()
        return self._current

    def _watch(self) -> None:
        self._alarm.set(self._config.start_timeout, self._too_late, self._current)

    def _too_late(self, template: Template) -> None:
        seconds = self._config.start_timeout
        template.kill()
        if template.importing is not None:
            self._left_out.add(template.importing)
            template.why = (
                f"importing {template.importing!r} in a worker's template did not end within"
                f" {seconds} s (start_timeout): a module that tasks live in must not wait for"
                " anything while it is imported. In a script, put what it does under"
                " if __name__ == '__main__':"
            )
            pids = [pid for pid in self._templates[template].values() if pid is not None]
            self._listener.on_condemned(pids, template.why)
            self._listener.on_broken(template.importing, template.why)
        else:
            log.warning("the template of the workers was not ready within %s s", seconds)

    def on_message(self, template: Template, message: Any, fds: list[int]) -> None:
        """The template said something."""
        if isinstance(message, control.Up):
            self._note_up(template, message, fds)
        elif isinstance(message, control.Exit):
            self._note_exit(template, message)
        elif isinstance(message, control.Refused):
            self._templates[template].pop(message.worker, None)
            self._not_forked(message.worker, message.error, template is not self._current)
        elif isinstance(message, control.Importing):
            template.importing = message.module
            self._watch_import(template)
        elif isinstance(message, control.Imported):
            self._note_import(template, message)
        elif isinstance(message, control.Hello):
            template.ready = True
            self._alarm.cancel()

    def _note_up(self, template: Template, message: control.Up, fds: list[int]) -> None:
        self._let_go(message.worker)
        self._templates[template][message.worker] = message.pid
        if fds:
            self._listener.on_up(message.worker, message.pid, fds[0])
        else:
            # The kernel drops descriptors for which there is no room in this process.
            self._unwatched[message.worker] = message.pid
            self._open_pidfds()

    def _open_pidfds(self) -> None:
        """Open the descriptors of workers that came without, now or when there is room."""
        for number, pid in list(self._unwatched.items()):
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                pass  # its end is told by its template
            except OSError as error:
                log.warning("worker %s cannot be watched yet: %s", pid, error)
                self._pidfd_alarm.set(_AGAIN, self._open_pidfds)
                return
            else:
                self._listener.on_up(number, pid, pidfd)
            del self._unwatched[number]

    def _watch_import(self, template: Template) -> None:
        # A module that is imported later, while workers live, must come to an end as well.
        if template is self._current and not self._alarm.armed:
            self._watch()

    def _note_exit(self, template: Template, message: control.Exit) -> None:
        workers = self._templates[template]
        for number, pid in list(workers.items()):
            if pid == message.pid:
                del workers[number]
                self._unwatched.pop(number, None)
        self._listener.on_exit(message.pid, message.status, message.maxrss)

    def _note_import(self, template: Template, message: control.Imported) -> None:
        template.importing = None
        if template.ready:
            self._alarm.cancel()
        if message.error is not None:
            self._note_failed_import(message.module, message.error)
        # What a template imports after that is unfit as well, through no fault of its own.
        if message.unfit is not None and template is self._current:
            log.warning(
                "workers import %r by themselves, which takes time and memory: imported into"
                " their template, %s",
                message.module,
                message.unfit,
            )
            self._left_out.add(message.module)
            self._retire(template)

    def _note_failed_import(self, module: str, trace: str) -> None:
        if module in self._config.preload and module not in self._failed:
            self._failed.add(module)
            log.warning(failed_preload(module, trace))
        log.debug("the template could not import %s:\n%s", module, trace)

    def _retire(self, template: Template) -> None:
        """It can be forked no more; it stays for the sake of the workers that it has."""
        if template is self._current:
            self._alarm.cancel()
            self._current = None

    def on_lost(self, template: Template) -> None:
        """The template is gone, and its workers with it."""
        retired = template is not self._current
        self._retire(template)
        workers = self._templates.get(template, {})
        pids = [pid for pid in workers.values() if pid is not None]
        self._listener.on_exits(pids, template.why)
        for number, pid in list(workers.items()):
            del workers[number]  # this may be called again if it is interrupted here
            if pid is None:
                self._not_forked(number, "the template that was to fork it has ended", retired)
        self._templates.pop(template, None)

    def _not_forked(self, number: int, why: str, retired: bool) -> None:
        """A template has not forked a worker; if it had been given up by then, another one does."""
        if retired and number in self._unborn:
            try:
                self._order(number)
                return
            except (GTaskmanError, OSError) as error:
                why = str(error)
        self._let_go(number)
        self._listener.on_refused(number, why)


class _OwnChildren:
    """Workers that are children of the application: their ends are seen by pidfd."""

    def __init__(self, loop: Any, listener: StartListener) -> None:
        self._loop = loop
        self._listener = listener
        self._children: dict[int, tuple[Watcher, int, Latch]] = {}  # pid -> watcher, pidfd, ended

    def abandon(self, _number: int) -> None:
        """The child has its descriptors already."""

    def learn(self, _module: str) -> None:
        """Each worker imports what it needs."""

    def renew(self) -> None:
        """Each worker imports it again, or has what the application has."""

    def signal(self, pid: int, number: int) -> None:
        log.error(
            "worker %s cannot be sent signal %s: this process has changed its user since it"
            " started it; use start_method='zygote'",
            pid,
            number,
        )

    def stop(self) -> list[Latch]:
        return [ended for _, _, ended in self._children.values()]

    def forget(self) -> None:
        for watcher, pidfd, _ in self._children.values():
            watcher.close()
            posix.close(pidfd)
        self._children.clear()

    def _adopt(self, number: int, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
            try:
                (theirs,) = duplicate([pidfd])
            except BaseException:
                posix.close(pidfd)
                raise
        except BaseException:
            abandon(pid)
            raise
        watcher = Watcher(self._loop, pidfd, READ, "the end of a child process")
        watcher.start(self._ended, pid)
        self._children[pid] = (watcher, pidfd, Latch())
        self._listener.on_up(number, pid, theirs)

    def _ended(self, pid: int) -> None:
        watcher, pidfd, ended = self._children[pid]
        status, maxrss = reap(pid) or (None, 0)
        self._listener.on_exit(pid, status, maxrss)
        watcher.close()
        posix.close(pidfd)
        del self._children[pid]
        ended.open()


class SpawnStarter(_OwnChildren):
    """Each worker is a fresh interpreter: slow and large, and needs nothing to be fork-safe."""

    def __init__(
        self,
        loop: Any,
        config: Configuration,
        settings: Callable[[tuple[str, ...]], Settings],
        listener: StartListener,
    ) -> None:
        super().__init__(loop, listener)
        self._config = config
        self._settings = settings

    def start(self, number: int, pipe: int, page: int, more: Sequence[int] = ()) -> bytes:
        fds = (pipe, page, *more)
        try:
            pid = exec_python(program("gtaskman.child.spawned", len(fds), number, len(more)), fds)
        finally:
            close_all(fds)
        self._adopt(number, pid)
        return control.pack_settings(self._settings(self._config.preload))


class ForkStarter(_OwnChildren):
    """Each worker is a fork of the application: quick to begin, and unsafe in a busy process."""

    def __init__(
        self,
        loop: Any,
        config: Configuration,
        settings: Callable[[tuple[str, ...]], Settings],
        listener: StartListener,
    ) -> None:
        super().__init__(loop, listener)
        self._config = config
        self._settings = settings

    def start(self, number: int, pipe: int, page: int, more: Sequence[int] = ()) -> bytes:
        from gtaskman.child.forked import fork_worker

        try:
            # In a greenlet of its own: in the fork it is the worker's main greenlet, which must be
            # able to wait, and the caller may be the hub, which cannot.
            pid = greenlet(fork_worker).switch(number, pipe, page, more, self._settings(()))
        except OSError as error:
            raise StartMethodError(f"a worker could not be forked: {error}") from error
        finally:
            close_all((pipe, page, *more))
        self._adopt(number, pid)
        return b""


STARTERS: dict[str, Callable[..., Starter]] = {
    "zygote": ZygoteStarter,
    "spawn": SpawnStarter,
    "fork": ForkStarter,
}


def make_starter(loop: Any, config: Configuration, listener: StartListener) -> Starter:
    """The start method that ``config`` names. Raises :class:`StartMethodError`."""
    check_system(config.start_method)
    return STARTERS[config.start_method](
        loop, config, functools.partial(_settings, config), listener
    )


def _settings(config: Configuration, preload: tuple[str, ...]) -> Settings:
    """What a child is told of the application as it is now."""
    return Settings(
        path=tuple(import_path()),
        argv=tuple(sys.argv),
        directory=_directory(),
        main=main_of_application(),
        preload=preload,
        max_frame=config.max_frame,
        max_result=config.max_result,
        nice=config.nice,
        reuse_greenlets=config.reuse_greenlets,
        title=os.path.basename(sys.argv[0] if sys.argv else "") or "python",
        authkey=_authkey(),
    )


def _directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None  # it was removed


def _authkey() -> bytes | None:
    """By which the application's own ``multiprocessing`` knows its children, if it is in use."""
    process = sys.modules.get("multiprocessing.process")
    return bytes(process.current_process().authkey) if process is not None else None


def check_system(method: str) -> None:
    """Raise :class:`StartMethodError` where this system lacks what ``method`` needs."""
    needs = {
        "os.pidfd_open": hasattr(os, "pidfd_open"),
        "os.memfd_create": hasattr(os, "memfd_create"),
        "os.posix_spawn": hasattr(os, "posix_spawn"),
        "/proc": os.path.isdir("/proc/self/fd"),
    }
    missing = [name for name, there in needs.items() if not there]
    if missing:
        raise StartMethodError(
            f"start_method={method!r} needs Linux 5.3 or newer: {', '.join(missing)} is missing"
            " here. On other systems tasks can be defined and called directly, and be sent to a"
            " manager elsewhere"
        )
