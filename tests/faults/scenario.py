"""One life of a manager in a fresh process, with one fault; tells what is wrong afterwards.

``python -m tests.faults.scenario SPEC`` with a JSON object prints one as its last line.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import gevent

import gtaskman
from tests.faults import faults, mutants, work

PATIENCE = 25.0  # seconds for a task that has its turn at once, on a busy machine


class Scenario:
    """What is submitted, and what came of it."""

    def __init__(self, start_method: str) -> None:
        config = gtaskman.Configuration(
            min_processes=1,
            max_processes=2,
            max_tasks_per_process=12,
            kill_grace=0.2,
            start_method=start_method,
            preload=("tests.faults.template",) if start_method == "zygote" else (),
        )
        self.manager = gtaskman.TaskManager(config=config)
        self.wrong: list[str] = []
        self.ends: Counter[str] = Counter()

    def run(self) -> None:
        """Everything that a pool does, then the same again without a fault, then the end."""
        manager = self.manager
        for event in ("task-completed", "task-failed", "task-cancelled"):
            manager.on(event, lambda report: self.ends.update([report.id]))
        manager.start()
        asleep = manager.submit(work.sleep)
        handles = [manager.submit(work.echo, number) for number in range(8)]
        handles += [manager.submit(work.echo_async, number) for number in range(8)]
        handles += [manager.submit(work.spin), manager.submit(work.crash)]
        handles += [manager.submit(work.report_progress, 3)]
        self._until(lambda: asleep.report.message == "begun" or asleep.done(), "sleep has begun")
        asleep.cancel()
        handles += [manager.submit(work.echo, number) for number in range(8)]
        for handle in [asleep, *handles]:
            self._await(handle)
        self._run_more()
        manager.stop(5)
        numbers = manager.stats()["pool"]
        ended = sum(numbers[f"{how}_tasks"] for how in ("completed", "failed", "cancelled"))
        if ended != numbers["total_tasks"]:
            self.wrong.append(f"{ended} ends of {numbers['total_tasks']} tasks")
        twice = [task for task, count in self.ends.items() if count != 1]
        if twice:
            self.wrong.append(f"ended more than once: {twice}")

    def _run_more(self) -> None:
        for handle in [self.manager.submit(work.echo, number) for number in range(4)]:
            try:
                handle.get(timeout=PATIENCE)
            except Exception as error:
                self.wrong.append(f"afterwards: {type(error).__name__}: {error}")

    def _await(self, handle: gtaskman.TaskHandle) -> None:
        try:
            handle.get(timeout=PATIENCE)
        except TimeoutError:
            self.wrong.append(f"{handle.report.name} never ends: {handle.report.status.value}")
            self.manager.stop(0)
            raise
        except gtaskman.GTaskmanError:
            pass  # an error is an end

    def _until(self, condition: Any, what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                self.wrong.append(f"not: {what}")
                raise TimeoutError(what)
            gevent.sleep(0.005)


def _descriptors() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}").split(":")[0])
        except OSError:
            pass  # that of the listing
    return sorted(found)


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def main() -> None:
    """Run the scenario of ``sys.argv[1]``."""
    logging.basicConfig(level=logging.WARNING)
    spec = json.loads(sys.argv[1])
    if spec["mutant"]:
        mutants.MUTANTS[spec["mutant"]]()
    gevent.sleep(0)
    before = _descriptors()
    counts: Counter[str] = Counter()
    fault = faults.Fault(*spec["fault"]) if spec["fault"] else None
    faults.install(fault if fault is not None and not fault.in_template else None, counts)
    scenario = Scenario(spec["start_method"])
    try:
        scenario.run()
    except TimeoutError:
        pass
    except Exception as error:
        logging.exception("the scenario")
        scenario.wrong.append(f"{type(error).__name__}: {error}")
    left = _descriptors()
    if left != before:
        scenario.wrong.append(f"descriptors: {Counter(left) - Counter(before)}")
    if _children():
        scenario.wrong.append(f"children: {_children()}")
    print(json.dumps({"wrong": scenario.wrong, "counts": counts}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
