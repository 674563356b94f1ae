"""``Work``: the open calls of an executor, and the manager that runs them.

::

    Executor -> submit -> manager.submit -> handle
    Future  <- settle  <- a greenlet    <- its end, on the manager's hub

It knows nothing of the executor, and so outlives one that nobody holds any more: what was
submitted is done, and then the manager that it made is stopped.
"""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent import getcurrent, monkey
from gevent._hub_local import get_hub_if_exists

from gtaskman.errors import (
    GTaskmanError,
    ManagerStopped,
    PayloadError,
    RemoteTraceback,
    TaskTravelError,
    WorkerCrashed,
)
from gtaskman.futures.calls import NotPrepared
from gtaskman.futures.errors import (
    ExecutorShutDown,
    InitializerFailed,
    Unpicklable,
    WorkerLost,
)
from gtaskman.futures.future import Future
from gtaskman.futures.vigil import begin_vigil
from gtaskman.handle import TaskHandle
from gtaskman.latch import Latch
from gtaskman.report import TaskStatus
from gtaskman.starting import Start, start_once, started
from gtaskman.taskmanager import TaskManager

log = logging.getLogger(__name__)

# Guards counts and marks: held for a few instructions, in which nothing waits.
_guard = monkey.get_original("_thread", "RLock")()
_alive: set[Work] = set()  # what the interpreter's end waits for
_works: weakref.WeakSet[Work] = weakref.WeakSet()
_exiting = False


class Work:
    """The open calls of an executor.

    ``make`` gives the manager, which is started with the first call. If it is ``owned`` it is
    stopped when the last call has ended after :meth:`close`. ``kept`` stays referenced until then:
    what the workers decode may lead back to objects that live as long as it does. With
    ``breaks_pool`` a worker that dies under a call breaks all of them, as in the original.
    """

    def __init__(
        self,
        make: Callable[[], TaskManager],
        owned: bool,
        kept: object = None,
        breaks_pool: bool = False,
    ) -> None:
        self._make = make
        self._owned = owned
        self._kept = kept
        self._breaks_pool = breaks_pool
        self._manager: TaskManager | None = None
        self._starts: dict[str, Start] = {}  # the one that is under way
        self._forked = False  # this is a copy, in a fork of the process that made the calls
        self._open: dict[str, Future] = {}
        self._count = 0  # calls that are open, or about to be
        self._closed = False
        self._idle = Latch()  # it is closed, and no call is open
        self._settling: set[Any] = set()  # greenlets in which futures are being settled
        self._failure: InitializerFailed | WorkerLost | None = None  # what has broken the pool
        self._ended_by: str | None = None  # who has ended the workers
        _works.add(self)

    # --- calls

    def submit(self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future:
        """Hand a call to the manager. Raises what :meth:`Executor.submit` raises."""
        self._enter()
        try:
            manager = self._start()
            handle = manager.submit(task, *args, **kwargs)
        except (PayloadError, TaskTravelError) as error:
            self._leave()
            return self._refused(error)
        except BaseException as error:
            self._leave()
            if isinstance(error, ManagerStopped) and not isinstance(error, ExecutorShutDown):
                raise ExecutorShutDown(str(error)) from error
            raise
        future = Future(handle, self)
        future.call = (task, args, kwargs)
        future.vigil = begin_vigil(manager.hub)
        self._open[handle.id] = future
        if handle.done():
            self._settle(handle)
        else:
            handle.watch(_Watch(self, handle))
        return future

    def _refused(self, error: GTaskmanError) -> Future:
        """The future of a call that cannot travel: there the original raises that."""
        future = Future(None, self)
        if isinstance(error, PayloadError):
            error = _because(Unpicklable(str(error)), error.__cause__ or error)
        future.set_exception(error)
        return future

    def _enter(self) -> None:
        if self._forked:
            self.check_home()
        with _guard:
            if self._failure is not None:
                raise type(self._failure)(*self._failure.args) from self._failure.__cause__
            # The end of the interpreter closes it as well: this one comes first.
            if _exiting:
                raise ExecutorShutDown("cannot schedule new futures after interpreter shutdown")
            if self._closed:
                raise ExecutorShutDown("cannot schedule new futures after shutdown")
            self._count += 1
            _alive.add(self)

    def _leave(self, future: Future | None = None) -> None:
        if future is not None:
            future.call = None
        with _guard:
            self._count -= 1
            idle = not self._count
            if idle and (self._closed or not self._owned):
                _alive.discard(self)
        if future is not None and future.vigil is not None:
            future.vigil.end()
        if idle and self._closed:
            self._on_idle()

    def _start(self) -> TaskManager:
        """The manager, made and started by the first caller."""
        while (manager := self._manager) is None:
            start_once(self._starts, "start", "the manager of this executor", self._start_here)
        return manager

    def _start_here(self) -> None:
        if self._manager is None:  # else another start has ended just now
            manager = self._make()
            self._manager = started(manager) if self._owned else manager.start()

    # --- ends of calls

    def on_end(self, handle: TaskHandle) -> None:
        """A task has ended: settle its future. On the manager's hub, or if that was while it was
        being submitted, in the thread that did so."""
        hub = self._manager.hub if self._manager is not None else None
        if hub is not None and hub is get_hub_if_exists():
            # In a greenlet: the callbacks of futures may wait, and a callback of the hub may not.
            gevent.spawn_raw(self._settle, handle)
        else:
            self._settle(handle)

    def _settle(self, handle: TaskHandle) -> None:
        future = self._open.pop(handle.id, None)
        if future is None:
            return  # cancelled, or broken
        self._settling.add(getcurrent())
        try:
            self._tell(future, handle)
        except KeyboardInterrupt:
            raise
        except BaseException:
            # Of an Exception in a callback the future itself has taken care.
            log.exception("the future of task %s, or a callback of its, raised", handle.id)
        finally:
            self._settling.discard(getcurrent())
            self._leave(future)

    def _tell(self, future: Future, handle: TaskHandle) -> None:
        report = handle.report
        if report.status is TaskStatus.COMPLETED:
            future.set_result(report.result)
            return
        error = handle.exception
        assert error is not None
        cause = error.__cause__
        if isinstance(cause, NotPrepared):
            self._break(future, _initializer_failed(cause))
        elif isinstance(error, WorkerCrashed):
            lost = WorkerLost(str(error))
            lost.__cause__ = error
            if self._breaks_pool:
                self._break(future, lost)
            else:
                future.set_exception(lost)
        elif report.status is not TaskStatus.CANCELLED:
            future.set_exception(_own(error))
        elif self._ended_by is not None:
            lost = WorkerLost(f"task {report.name} ({report.id}) was ended by {self._ended_by}")
            future.set_exception(_because(lost, error))
        else:
            future.note_cancelled()

    def _break(self, future: Future, failure: InitializerFailed | WorkerLost) -> None:
        """Fail this future, every other open one, and every later call."""
        with _guard:
            first = self._failure is None
            self._failure = self._failure or failure
        if first:
            log.critical("%s", failure, exc_info=failure)
        future.set_exception(failure)
        for other in list(self._open.values()):
            handle = other.handle
            if handle is not None and self._open.pop(handle.id, None) is not None:
                handle.cancel("its executor is broken")
                try:
                    other.set_exception(_because(type(failure)(*failure.args), failure))
                finally:
                    self._leave(other)

    def withdraw(self, futures: Iterable[Future]) -> None:
        """Take back those calls that no worker has; they are cancelled when this returns."""
        manager = self._manager
        if manager is None:
            return

        def take_back() -> list[Future]:
            # On the manager's hub, where nothing can come between the question and the cancel.
            return [each for each in futures if self._take_back(each)]

        for future in manager.at_home(take_back):
            try:
                future.note_cancelled()
            finally:
                self._leave(future)

    def _take_back(self, future: Future) -> bool:
        """Take a call back if no worker has it; gives whether the future is to be settled so."""
        handle = future.handle
        if handle is None or handle.done() or handle.taken:
            return False
        if self._open.pop(handle.id, None) is None:
            return False
        if handle.cancel("its future was cancelled"):
            return True
        self._open[handle.id] = future
        return False

    def check_home(self) -> None:
        """Raise :class:`ForkedManagerError` in a fork of the process that submitted."""
        if self._manager is not None:
            self._manager.home()

    # --- the end

    def close(self, cancel: bool = False) -> None:
        """Take no more calls, and with ``cancel`` take back what waits; returns at once.

        The workers end when the last call has.
        """
        with _guard:
            self._closed = True
            idle = not self._count
        if self._forked:
            return
        if cancel:
            self.withdraw(list(self._open.values()))
        if idle:
            self._on_idle()

    def _on_idle(self) -> None:
        """It is closed, and no call is open: nothing is left to do."""
        self._kept = None
        self._idle.open()
        if self._owned:
            self._post(self._stop)

    def _stop(self) -> None:
        if self._manager is not None:
            self._manager.stop(0)
        _alive.discard(self)

    def await_end(self) -> None:
        """After :meth:`close`: wait until every call has ended and the workers are gone.

        Called by the callback of a future it does not wait: it would wait for itself. Nor does it
        in a fork of the process, where no call ends.
        """
        if self._forked or getcurrent() in self._settling:
            return
        self._idle.wait()
        if self._owned:
            self._stop()

    def end_workers(self, kill: bool, by: str) -> None:
        """Close, and stop what runs: at once with ``kill``; returns without waiting."""
        self._ended_by = by
        self.close(cancel=True)
        if self._forked:
            return
        if self._owned:
            self._post(self._end_workers, kill)
        else:
            for future in list(self._open.values()):
                if future.handle is not None:
                    future.handle.cancel(f"it was ended by {by}")

    def _end_workers(self, kill: bool) -> None:
        assert self._manager is not None
        if kill:
            self._manager.kill_workers(f"the executor was ended by {self._ended_by}")
        self._stop()

    def _post(self, function: Callable[..., None], *args: Any) -> None:
        """Call it in a greenlet of the manager's hub, if there is one; may be called anywhere."""
        manager = self._manager
        hub = manager.hub if manager is not None else None
        if hub is not None and hub.loop is not None:
            hub.loop.run_callback_threadsafe(gevent.spawn_raw, function, *args)

    def forget(self) -> None:
        """In a fork of the process: no call of the original ends here.

        An executor whose manager was not there yet is as good as new.
        """
        self._forked = self._manager is not None
        self._starts.clear()
        self._open.clear()
        self._count = 0

    def __repr__(self) -> str:
        return f"<Work open={len(self._open)} closed={self._closed}>"


class _Watch:
    """Waits for the end of a task without a greenlet or a thread; see :class:`Latch`."""

    __slots__ = ("_handle", "_work")

    def __init__(self, work: Work, handle: TaskHandle) -> None:
        self._work, self._handle = work, handle

    def wake(self, _here: Any, _at_once: bool) -> None:
        self._work.on_end(self._handle)


def _own(error: BaseException) -> BaseException:
    """The exception that the task raised, with the remote traceback as its cause; ``error``, which
    has all that in words, if it could not travel."""
    cause = error.__cause__
    if cause is None or isinstance(cause, RemoteTraceback):
        return error
    if type(cause) is PayloadError:
        return _because(Unpicklable(*cause.args), cause.__cause__ or cause)
    return cause


def _initializer_failed(cause: NotPrepared) -> InitializerFailed:
    failure = InitializerFailed(f"the initializer failed in a worker: {cause.message}")
    failure.__cause__ = RemoteTraceback(cause.text)
    return failure


def _because(error: GTaskmanError, cause: BaseException) -> GTaskmanError:
    error.__cause__ = cause
    return error


def _at_exit() -> None:
    """As in the original, the interpreter ends when all that was submitted has."""
    global _exiting
    with _guard:
        _exiting = True
    for work in list(_alive):
        work.close()
        work.await_end()


def _after_fork() -> None:
    global _guard
    _guard = monkey.get_original("_thread", "RLock")()  # another thread may have held it
    _alive.clear()
    for work in list(_works):
        work.forget()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
