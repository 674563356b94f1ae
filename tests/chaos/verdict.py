"""The judge: what must hold after a run, whatever has happened in it."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable
from typing import NamedTuple

from chaos.journal import SLIP, Event
from chaos.photo import Photo
from chaos.work import ODD, ONCE, POISON
from gtaskman.redis.ledger import Counts
from gtaskman.redis.record import LETTERS, Record, report_of
from gtaskman.report import FailureKind, TaskStatus

_FINAL = "CFX"
_LETTER = {status.value: letter for status, letter in LETTERS.items()}
# What managers log of tasks of which they and the server think differently.
_NOT_OURS = "are ours no longer"  # explained by a server with a lapse of memory alone
_UNHEARD_OF = "were booked on us without a word"  # also by a message that was lost
_LEASE_LOST = "the lease of %s on %s was lost"
_MANY = 5  # of one kind that are told


class Execution(NamedTuple):
    """One run of a task, from its beginning to the last that was heard of it."""

    begin: float
    last: float
    run: str
    task_id: str
    name: str
    ended: bool


class Case:
    """All that is known of a run.

    ``forgetful``: the server may have lost what it acknowledged. ``hearing``: no message was lost.
    """

    def __init__(
        self,
        events: list[Event],
        photo: Photo,
        counts: Counts,
        *,
        forgetful: bool = False,
        hearing: bool = False,
    ) -> None:
        self.events = events
        self.photo = photo
        self.counts = counts
        self.forgetful = forgetful
        self.hearing = hearing
        self.records = photo.records()
        self.executions = _executions(events)

    def named(self, what: str) -> list[Event]:
        """The events of one sort."""
        return [each for each in self.events if each.what == what]

    def logged(self, *templates: str) -> list[str]:
        """What was logged under templates with these words in them."""
        return [
            each.told[2]
            for each in self.named("log")
            if any(template in each.told[1] for template in templates)
        ]

    def ids(self, what: str) -> set[str]:
        """All ids of the events of one sort."""
        return {task_id for each in self.named(what) for task_id in each.told}


def judge(case: Case) -> list[str]:
    """What is wrong, in words."""
    wrong: list[str] = []
    for rule in _RULES:
        found = list(rule(case))
        wrong += found[:_MANY]
        if len(found) > _MANY:
            wrong.append(f"... and {len(found) - _MANY} more of these")
    return wrong


def _nothing_lost(case: Case) -> Iterable[str]:
    """What was acknowledged is there, and what is there is final."""
    if not case.forgetful:
        for task_id in case.ids("taken") - case.records.keys():
            yield f"{task_id} was acknowledged, and is lost"
    for task_id, record in case.records.items():
        if record.status not in _FINAL:
            yield f"{task_id} is not final: {_brief(record)}"


def _one_end_each(case: Case) -> Iterable[str]:
    """Each task was queued once, and came to one accepted end; counts equal a full scan."""
    counts, listed = case.counts, case.photo.listed()
    if counts.total_queued != len(case.records):
        yield f"{len(case.records)} tasks were queued {counts.total_queued} times"
    for letter, total in zip(_FINAL, counts[9:12], strict=True):
        if not total == counts.of(letter) == listed[letter]:
            yield f"{letter}: {listed[letter]} records, counted {counts.of(letter)}, {total} ends"
    accepted = collections.Counter(
        told[0] for _, _, _, told in case.named("settled") if told[2] in _FINAL and told[3] == 1
    )
    for task_id, times in accepted.items():
        if times > 1 and not case.forgetful:
            yield f"{task_id}: {times} ends were accepted"


def _no_overlap(case: Case) -> Iterable[str]:
    """A task runs twice at once only if the first owner was condemned meanwhile."""
    for task_id, runs in _by_task(case.executions).items():
        record = case.records.get(task_id)
        if case.forgetful or record is None or record.losses:
            continue
        for one, other in itertools.pairwise(runs):
            if other.begin < one.last:
                yield f"{task_id} ran in {one.run} and {other.run} at once, and no lease was lost"


def _once_is_once(case: Case) -> Iterable[str]:
    """What may run at most once has not begun twice."""
    for task_id, runs in _by_task(case.executions).items():
        if len(runs) > 1 and runs[0].name == ONCE and not case.forgetful:
            yield f"{task_id} may run once, and has begun {len(runs)} times"


def _what_was_heard(case: Case) -> Iterable[str]:
    """Senders have heard of the end that the record has."""
    for _, pid, _, (task_id, status, kind, message) in case.named("heard"):
        record = case.records.get(task_id)
        if not case.forgetful and (record is None or record.status != _LETTER[status]):
            yield f"{task_id}: {pid} has heard {status} {kind} {message!r}, is {_brief(record)}"


def _no_trouble(case: Case) -> Iterable[str]:
    """Nobody met an error, and no task went astray without a failover."""
    for each in case.named("trouble"):
        yield each.told[0]
    for each in case.named("log"):
        if "\n" in each.told[2] and SLIP not in each.told[2]:
            yield f"{each.pid} logged: {each.told[2]}"
    if not case.forgetful:
        yield from case.logged(_NOT_OURS)
    if case.hearing:
        yield from case.logged(_UNHEARD_OF)


def _failures_have_causes(case: Case) -> Iterable[str]:
    """Tasks that would have succeeded failed only with their workers and managers."""
    for record in case.records.values():
        if record.status != "F" or record.name in (ODD, POISON):
            continue
        report = report_of(record, lambda _: None)
        assert report.error is not None
        if report.error.kind is not FailureKind.CRASH:
            yield f"{record.id} has failed: {report.error}"
        elif record.why == "poison" and record.losses < 3:
            yield f"{record.id} was given up after {record.losses} losses"


def _completions_were_run(case: Case) -> Iterable[str]:
    """What is completed has run to its end."""
    ended = {each.task_id for each in case.executions if each.ended}
    for record in case.records.values():
        if record.status == LETTERS[TaskStatus.COMPLETED] and record.id not in ended:
            yield f"{record.id} is completed, and never ran"


_RULES = (
    _nothing_lost,
    _one_end_each,
    _no_overlap,
    _once_is_once,
    _what_was_heard,
    _no_trouble,
    _failures_have_causes,
    _completions_were_run,
)


def no_lease_lost(case: Case) -> list[str]:
    """For runs in which no manager was at fault."""
    lost = [
        f"{each.id} was taken from its owner {each.losses} times"
        for each in case.records.values()
        if each.losses
    ]
    return [*case.logged(_LEASE_LOST), *lost][:_MANY]


def no_run_unwritten(case: Case) -> list[str]:
    """For runs in which no worker dies: each time that a task begins is an attempt."""
    return [
        f"{task_id} has begun {len(runs)} times in {case.records[task_id].attempt} attempts"
        for task_id, runs in _by_task(case.executions).items()
        if task_id in case.records and len(runs) > case.records[task_id].attempt
    ][:_MANY]


def _executions(events: list[Event]) -> list[Execution]:
    found: dict[str, Execution] = {}
    for at, _pid, what, told in events:
        if what == "begin":
            run, task_id, _attempt, name = told
            found[run] = Execution(at, at, run, task_id, name, False)
        elif what in ("step", "end"):
            found[told[0]] = found[told[0]]._replace(last=at, ended=what == "end")
    return list(found.values())


def _by_task(executions: list[Execution]) -> dict[str, list[Execution]]:
    found: dict[str, list[Execution]] = collections.defaultdict(list)
    for each in sorted(executions):
        found[each.task_id].append(each)
    return found


def _brief(record: Record | None) -> str:
    if record is None:
        return "gone"
    return f"{record.status} attempt {record.attempt}, losses {record.losses}, {record.why!r}"
