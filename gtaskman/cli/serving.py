"""``Serving``: one manager at work until signals, or the end of the work, say otherwise.

==========  ======================================================================================
TERM, INT   drain: take no more tasks, let those that run finish, then end. What still runs when
            the time is over goes back to the queue, or is cancelled where the queue is in our own
            memory. A second one: now
TSTP        take no more tasks; CONT: take some again
HUP         begin again with new code, under the same pid; see ``relief.py``
TTIN        write the stacks of the workers and of this process to standard error
==========  ======================================================================================
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import gevent
from gevent.util import format_run_info

from gtaskman.cli.relief import Duty, Relief, begin_again
from gtaskman.cli.signals import Signals
from gtaskman.errors import ManagerStopped
from gtaskman.redis.ledger import Ledger
from gtaskman.shared import SharedManager
from gtaskman.taskmanager import TaskManager

if TYPE_CHECKING:
    from gtaskman.host.server import HostServer

log = logging.getLogger(__name__)

_COMING = 60.0  # seconds within which new code must be serving
_LOOK = 0.2  # seconds between two looks whether the work is done
_OLDEST = 1000  # waiting tasks among which retries are looked for
_ANSWERING = 5.0  # seconds that workers have to say what they are doing
_IDLE = "idle\n"
_END = 0  # no signal has this number


class Serving:
    """Serves with ``manager``, under its ``stop_timeout``; ``server`` lets processes in.

    ``directory`` is where a next program begins; with ``burst`` it ends when the work is done.
    """

    def __init__(
        self,
        manager: TaskManager,
        server: HostServer | None,
        directory: str,
        burst: bool = False,
    ) -> None:
        self._manager = manager
        self._server = server
        self._directory = directory
        self._burst = burst
        self._relief: Relief | None = None
        self._renewing = False
        self._stops = 0
        manager.accompany(_FailureWatch(manager, self._on_failure))

    def run(self, duty: Duty, relief: Relief | None) -> None:
        """Serve; returns when all is over. For the main thread.

        Raises :class:`ManagerStopped` if the manager stopped by itself, because of an error, and
        what makes it unable to serve, such as :class:`BindError`.
        """
        self._relief = relief
        acts: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGTSTP: self._quiet,
            signal.SIGCONT: self._loud,
            signal.SIGHUP: self._renew,
            signal.SIGTTIN: self._tell_stacks,
        }
        self._signals = Signals(acts)
        if self._server is not None:
            self._server.occupy()
        self._manager.start()
        self._signals.spawn(self._begin, duty)
        while (number := self._signals.next()) != _END:
            acts[number]()
        if self._manager.failure is not None:
            raise ManagerStopped(
                f"the manager stopped because of an error: {self._manager.failure!r:.500}"
            ) from self._manager.failure

    def _on_failure(self) -> None:
        self._signals.put(_END)

    def _begin(self, duty: Duty) -> None:
        self._manager.wait_ready()
        if self._server is not None and not self._stops:
            # Not before: whoever has listened until now goes on if we do not come up.
            self._server.listen()
        log.info("ready")
        duty.ready()
        if self._relief is not None and not self._stops:
            self._relief.signal(signal.SIGTERM)
            self._await_relief()
        if self._burst:
            self._stop_when_done()

    # --- the end

    def _stop(self) -> None:
        self._stops += 1
        if self._relief is not None:
            self._relief.signal(signal.SIGTERM)
        if self._stops == 1:
            log.info("stopping: running tasks have %g s", self._manager.config.stop_timeout)
            self._signals.spawn(self._drain)
        else:
            log.info("stopping now: running tasks are stopped")
            self._signals.spawn(self._manager.stop, 0)

    def _drain(self) -> None:
        self._manager.stop()
        self._await_relief()
        log.info("stopped")
        self._signals.put(_END)

    def _stop_when_done(self) -> None:
        while not self._stops:
            if self._is_done():
                log.info("the work is done")
                self._signals.put(signal.SIGTERM)
                return
            gevent.sleep(_LOOK)

    def _is_done(self) -> bool:
        # In this order: what the server has handed out before it counted has arrived by then.
        assert isinstance(self._manager, SharedManager)
        return not any(map(_has_work, self._manager.queue.ledgers)) and not self._held()

    def _held(self) -> int:
        """How many tasks are ours now."""
        numbers = self._manager.stats()["pool"]
        ended = (numbers[f"{how}_tasks"] for how in ("completed", "failed", "cancelled"))
        return numbers["total_tasks"] - sum(ended)

    # --- a pause

    def _quiet(self) -> None:
        log.info("taking no more tasks until SIGCONT")
        if isinstance(self._manager, SharedManager):
            self._manager.quiet()
        else:
            self._manager.pause()
        if self._relief is not None:
            self._relief.signal(signal.SIGTSTP)

    def _loud(self) -> None:
        if self._stops:
            return
        log.info("taking tasks")
        if isinstance(self._manager, SharedManager):
            self._manager.loud()
        else:
            self._manager.resume()
        if self._relief is not None:
            self._relief.signal(signal.SIGCONT)

    # --- new code

    def _renew(self) -> None:
        if self._stops or self._renewing:
            return
        self._renewing = True
        self._signals.spawn(self._hand_over)

    def _hand_over(self) -> None:
        self._await_relief()  # the one of the last time
        relief = self._start_relief()
        if relief is None:
            self._renewing = False
        elif not self._stops:
            log.info("process %d serves with the new code while this one begins again", relief.pid)
            self._manager.stop()
            if not self._stops:
                begin_again(relief, self._directory)

    def _start_relief(self) -> Relief | None:
        """A relief that serves, or None."""
        try:
            if self._server is not None:
                self._server.hand_over()
            relief = self._relief = Relief.start(self._directory)
        except OSError as error:
            self._keep()
            log.error("going on with the old code: another process cannot be started: %s", error)
            return None
        if relief.wait_ready(_COMING):
            return relief
        self._keep()
        if not self._stops:
            log.error("going on with the old code: the new one does not come up")
        relief.signal(signal.SIGTERM)
        self._await_relief()
        return None

    def _keep(self) -> None:
        """Nobody takes over."""
        if self._server is not None:
            self._server.keep()

    def _await_relief(self) -> None:
        """Wait until our relief, if we have one, has ended."""
        relief = self._relief
        if relief is not None:
            relief.wait()
            if self._relief is relief:
                self._relief = None

    # --- what it is doing

    def _tell_stacks(self) -> None:
        gevent.spawn(self._write_stacks)

    def _write_stacks(self) -> None:
        stacks = self._manager.stacks(_ANSWERING)
        parts = [f"--- worker {pid}\n{text or _IDLE}" for pid, text in sorted(stacks.items())]
        parts += [
            f"--- worker {pid} does not answer\n"
            for pid in sorted(set(self._manager.pids()) - stacks.keys())
        ]
        parts.append("--- manager\n" + "\n".join(format_run_info()) + "\n")
        sys.stderr.write("".join(parts))
        sys.stderr.flush()


class _FailureWatch:
    """Calls ``on_failure`` when the manager has stopped because of an error."""

    def __init__(self, manager: TaskManager, on_failure: Callable[[], None]) -> None:
        self._manager = manager
        self._on_failure = on_failure

    def on_stopping(self) -> None:
        """Nothing to do yet."""

    def on_stopped(self) -> None:
        """End the command, if it did not ask for the stop."""
        if self._manager.failure is not None:
            self._on_failure()

    def forget(self) -> None:
        """A fork of the process serves nothing."""


def _has_work(ledger: Ledger) -> bool:
    """Whether something waits that can begin, or has failed and tries again.

    What was submitted for later does not count, and nothing of a queue that is paused.
    """
    counts = ledger.counts()
    if counts.paused:
        return False
    if counts.ready_sync or counts.ready_async:
        return True
    return bool(counts.delayed) and any(record.attempt for record in ledger.find("W", 0, _OLDEST))
