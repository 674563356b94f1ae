"""A process that sends tasks, cancels some, and waits for all: ``python -m chaos.sender``.

At SIGTERM it sends no more, and ends when it has heard of the end of all that it sent.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool

import gtaskman
from chaos import faults, journal, work
from chaos.settings import Settings, settings

_OUTSTANDING = 150  # tasks that are waited for at once: more are not sent


class Sender:
    """Sends until it is stopped."""

    def __init__(self, chosen: Settings) -> None:
        self.client = gtaskman.Client(chosen.url, patience=None, wait_replicas=chosen.replicas)
        self.over = Event()
        self._dice = random.Random(chosen.seed)
        self._cancels = chosen.cancels
        self._crowd = chosen.crowd
        self._refused = chosen.refused
        self._waiting = Pool(_OUTSTANDING)

    def run(self) -> None:
        """Until ``over``, and all ends are known."""
        if self._crowd:
            self._send([work.stout.task(0.01, f"mark{each}") for each in range(self._crowd)])
            self.over.wait()
        while not self.over.is_set():
            count = self._dice.choice((1, 1, 5, 20))
            self._send([work.any_task(self._dice) for _ in range(count)])
            self.over.wait(0.01 * count * self._dice.random())
        self._waiting.join()

    def _send(self, tasks: list[Any]) -> None:
        if any(each.terms.unique for each in tasks):
            for each in tasks:
                self._send_one(each)
            return
        ids = [each.id for each in tasks]
        journal.write("tried", *ids)
        handles = self._until_taken(lambda: self.client.submit_many(tasks))
        journal.write("taken", *ids)
        for task, handle in zip(tasks, handles, strict=True):
            self._follow(task, handle)

    def _send_one(self, task: Any) -> None:
        journal.write("tried", task.id)
        try:
            handle = self._until_taken(lambda: self.client.submit(task))
        except gtaskman.DuplicateTaskError as error:
            if error.id == task.id:
                raise
            journal.write("refused", task.id, error.id)
            return
        journal.write("taken", task.id)
        self._follow(task, handle)

    def _until_taken(self, call: Callable[[], Any]) -> Any:
        """What a call gives, as soon as the server does not refuse it."""
        while True:
            try:
                return call()
            except gtaskman.ServerError as error:
                if not self._refused:
                    raise
                journal.write("refusal", str(error))
                gevent.sleep(0.1)

    def _follow(self, task: Any, handle: Any) -> None:
        if self._dice.random() < self._cancels:
            gevent.spawn_later(self._dice.choice((0, 0.002, 0.02, 0.2)), self._cancel, task.id)
        self._waiting.spawn(self._hear, task, handle)

    def _cancel(self, task_id: str) -> None:
        told = self._until_taken(lambda: self.client.cancel(task_id, "chaos"))
        journal.write("cancelled", task_id, told)

    def _hear(self, task: Any, handle: Any) -> None:
        handle.wait()
        report = handle.report
        kind = report.error.kind.value if report.error else ""
        journal.write("heard", task.id, report.status.value, kind, report.message)
        if report.status is gtaskman.TaskStatus.COMPLETED:
            mark = task.arguments()[0][1]
            if report.result != mark:
                journal.write("trouble", f"{task.id} gave {report.result!r}, not {mark!r}")


def main() -> None:
    """Send."""
    chosen = settings()
    faults.arm(chosen)
    journal.witness()
    sender = Sender(chosen)
    gevent.signal_handler(signal.SIGTERM, sender.over.set)
    try:
        sender.run()
    except Exception as error:
        journal.write("trouble", f"a sender: {error!r}")
        raise


if __name__ == "__main__":
    main()
