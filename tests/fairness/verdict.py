"""What must hold in every play, whatever its plan."""

from __future__ import annotations

import itertools

import gtaskman


def of_bystander(handle: gtaskman.TaskHandle) -> list[str]:
    """A short task completes, or was cancelled; nothing that happens to others makes it fail."""
    report = handle.report
    if not handle.done() or report.status is gtaskman.TaskStatus.COMPLETED:
        return []  # one that has not ended is found elsewhere
    if report.status is gtaskman.TaskStatus.CANCELLED and report.message == "the play":
        return []
    return [f"a task failed for what another one did: {report}"]


def of_poison(handle: gtaskman.TaskHandle) -> list[str]:
    """A task that kills its worker is said to have done so."""
    error = handle.report.error
    if not handle.done() or (error is not None and error.kind is gtaskman.FailureKind.CRASH):
        return []
    return [f"a task that kills its worker did not fail for that: {handle.report}"]


def of_numbers(numbers: dict[str, int], most: int) -> list[str]:
    """Every task has ended once, and there were never more processes than may be."""
    found = []
    ended = sum(numbers[f"{how}_tasks"] for how in ("completed", "failed", "cancelled"))
    if ended != numbers["total_tasks"]:
        found.append(f"{ended} ends of {numbers['total_tasks']} tasks")
    if numbers["peak_processes"] > most + 1:
        found.append(f"{numbers['peak_processes']} processes, of {most} and one replacement")
    return found


def of_journal(journal: str, most: int) -> list[str]:
    """No more sync tasks have run at once than there may be workers.

    A run that was killed has no end in the journal, and is left out: that may find less, and never
    too much.
    """
    with open(journal, "a+") as file:
        file.seek(0)
        moments = sorted((float(at), what, name) for what, name, at in map(str.split, file))
    begun: dict[str, float] = {}
    steps: list[tuple[float, int]] = []
    for at, what, name in moments:
        if what == "begin":
            begun[name] = at
        elif name in begun:
            steps += [(begun.pop(name), 1), (at, -1)]
    peak = max(itertools.accumulate(step for _, step in sorted(steps)), default=0)
    return [f"{peak} sync tasks at once, of {most}"] if peak > most else []
