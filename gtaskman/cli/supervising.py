"""``Supervising``: the services of a manager at work until signals say otherwise.

==========  ======================================================================================
TERM, INT   stop all services, each as its options say, then end. A second one: now
HUP         read the file again, and reload all services with new code, one after the other
TTIN        write the stacks of the services and of this process to standard error
==========  ======================================================================================
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable

import gevent
from gevent.util import format_run_info

from gtaskman.cli.show import seconds
from gtaskman.cli.signals import Signals
from gtaskman.errors import GTaskmanError, ManagerStopped
from gtaskman.services import ServiceEvent, ServiceManager, ServiceState
from gtaskman.services.control import Control
from gtaskman.services.file import Plan

log = logging.getLogger(__name__)

_END = 0  # no signal has this number
_SILENT = "does not answer\n"


class Supervising:
    """Supervises the services of ``manager``, with ``control`` beside it.

    ``plan`` gives what they should be now, where a file says so. At the end they have
    ``stop_timeout`` seconds; None stands for as long as their options allow.
    """

    def __init__(
        self,
        manager: ServiceManager,
        control: Control,
        plan: Callable[[], Plan] | None,
        stop_timeout: float | None,
    ) -> None:
        self._manager = manager
        self._control = control
        self._plan = plan
        self._stop_timeout = stop_timeout
        self._stops = 0
        self._renewing = False
        self._traces: dict[str, str] = {}  # the last one that was logged, of each service

    def run(self) -> None:
        """Supervise; returns when all is over. For the main thread.

        Raises what makes the manager unable to stop.
        """
        acts: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGHUP: self._renew,
            signal.SIGTTIN: self._tell_stacks,
        }
        self._signals = Signals(acts)
        self._manager.on("service-ready", _tell_ready)
        self._manager.on("service-stopped", self._tell_stopped)
        self._manager.on("service-restarting", _tell_restarting)
        # (that one has failed for good, the manager logs itself)
        with self._control:
            log.info("listening for commands at %s", self._control.rendezvous.path)
            self._manager.start()
            self._signals.spawn(self._await_end)
            while (number := self._signals.next()) != _END:
                acts[number]()

    def _await_end(self) -> None:
        """The application may stop the manager itself."""
        self._manager.wait()
        log.info("stopped")
        self._signals.put(_END)

    # --- the end

    def _stop(self) -> None:
        self._stops += 1
        if self._stops == 1:
            log.info("stopping %s", count(len(self._manager)))
            self._signals.spawn(self._manager.stop, self._stop_timeout)
        else:
            log.info("stopping now")
            self._signals.spawn(self._manager.stop, 0)

    # --- new code

    def _renew(self) -> None:
        if not self._stops and not self._renewing:
            self._renewing = True
            gevent.spawn(self._reload_all)

    def _reload_all(self) -> None:
        try:
            plan = self._plan() if self._plan is not None else None
            self._manager.renew()
            changed = self._follow(plan) if plan is not None else set()
            for name in self._manager:
                if name not in changed:
                    self._reload(name)
        except ManagerStopped:
            pass  # it was told to, meanwhile
        except GTaskmanError as error:
            log.error("going on as before: %s", error)
        except Exception:
            log.exception("the reload has failed")
        finally:
            self._renewing = False

    def _follow(self, plan: Plan) -> set[str]:
        """Have the services that a plan has; gives those that are new, or other ones now."""
        manager = self._manager
        for name in manager:
            if name not in plan.services:
                log.info("service %s: taken out of the file", name)
                manager.remove(name)
        changed = [name for name in plan.services if not plan.is_kept(name, manager)]
        for name in changed:
            log.info("service %s: %s", name, "changed" if name in manager else "new")
            if name in manager:
                manager.remove(name)
            manager.add(*plan.services[name])
        return set(changed)

    def _reload(self, name: str) -> None:
        if self._manager.status(name).state is ServiceState.STOPPED:
            return  # somebody has stopped it, and did not mean until now
        try:
            self._manager.reload(name)
        except ManagerStopped:
            raise
        except GTaskmanError as error:
            log.error("%s", error)
        else:
            log.info("service %s: reloaded", name)

    # --- what happens

    def _tell_stopped(self, event: ServiceEvent) -> None:
        end = event.exit
        assert end is not None
        level = logging.INFO if end.failure is None or end.asked else logging.WARNING
        process = f"process {event.pid} has ended" if event.pid is not None else "it has not begun"
        log.log(level, "service %s: %s: %s", _name(event), process, end.message)
        trace = end.failure.traceback if end.failure is not None else None
        # One that fails again and again fills no disk.
        if trace and trace != self._traces.get(event.service):
            self._traces[event.service] = trace
            log.log(level, "%s", trace.rstrip())

    # --- what it is doing

    def _tell_stacks(self) -> None:
        gevent.spawn(self._write_stacks)

    def _write_stacks(self) -> None:
        stacks = self._manager.stacks()
        parts = [
            f"--- service {status.id}, process {pid}\n{stacks.get(pid, _SILENT)}"
            for status in self._manager.statuses()
            for pid in status.pids
        ]
        parts += ["--- supervisor", *format_run_info()]
        sys.stderr.write("\n".join(parts) + "\n")
        sys.stderr.flush()


def count(services: int) -> str:
    """How many services, in words."""
    return f"{services} {'service' if services == 1 else 'services'}"


def _tell_ready(event: ServiceEvent) -> None:
    log.info("service %s: ready, process %s", _name(event), event.pid)


def _tell_restarting(event: ServiceEvent) -> None:
    log.info("service %s: starts again in %s", _name(event), seconds(event.delay))


def _name(event: ServiceEvent) -> str:
    return f"{event.service} [{event.instance}]" if event.instance else event.service
