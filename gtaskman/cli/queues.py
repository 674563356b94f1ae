"""Commands about queues: how they stand, to pause and to resume them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import click

from gtaskman.cli import show
from gtaskman.cli.access import Access, Command
from gtaskman.redis.address import Address
from gtaskman.redis.keys import queues_key
from gtaskman.redis.ledger import Ledger
from gtaskman.redis.server import Server
from gtaskman.report import TaskStatus

if TYPE_CHECKING:
    from gtaskman.host.client import HostClient

_as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON.")
_name = click.argument("queue", default="default")


class Standing(NamedTuple):
    """How one queue stands: managers that serve it, and tasks.

    ``waiting`` may begin now, ``delayed`` later; the ``total_`` ones are those of all times, the
    others are kept still.
    """

    queue: str
    paused: bool
    managers: int
    waiting: int
    delayed: int
    running: int
    completed: int
    failed: int
    cancelled: int
    total_queued: int
    total_completed: int
    total_failed: int
    total_cancelled: int


@contextlib.contextmanager
def _ledgers(access: Access) -> Iterator[list[Ledger]]:
    """All queues of the namespace."""
    namespace = access.namespace or access.address.namespace
    server = Server(access.address, access.patience)
    try:
        index = queues_key(namespace)
        names = sorted(name.decode() for name in server.call(index, "SMEMBERS", index))
        yield [Ledger(server, namespace, name) for name in names]
    finally:
        server.close()


def _standing(ledger: Ledger) -> Standing:
    counts = ledger.counts()
    return Standing(
        ledger.queue,
        counts.paused,
        ledger.owners(),
        counts.ready_sync + counts.ready_async,
        counts.delayed,
        counts.processing,
        counts.completed,
        counts.failed,
        counts.cancelled,
        counts.total_queued,
        counts.total_completed,
        counts.total_failed,
        counts.total_cancelled,
    )


def _standing_of(client: HostClient) -> Standing:
    """The queue of the manager that a client of a socket goes to."""
    info, numbers = client.info(), client.stats()["pool"]
    return Standing(
        info["name"],
        info["paused"],
        1,
        info["waiting"],
        info["delayed"],
        info["running"],
        client.count(TaskStatus.COMPLETED),
        client.count(TaskStatus.FAILED),
        client.count(TaskStatus.CANCELLED),
        numbers["total_tasks"],
        numbers["completed_tasks"],
        numbers["failed_tasks"],
        numbers["cancelled_tasks"],
    )


@click.command(cls=Command)
@_as_json
@click.pass_obj
def stats(access: Access, as_json: bool) -> None:
    """Write the numbers of each queue.

    The managers that serve it, its tasks by how they stand, and how many were ever sent to it."""
    if isinstance(access.where, Address):
        with _ledgers(access) as ledgers:
            standings = [_standing(ledger) for ledger in ledgers]
    else:
        with access.client() as client:
            standings = [_standing_of(cast("HostClient", client))]
    if as_json:
        show.document([each._asdict() for each in standings])
    elif not standings:
        show.note("no queues")
    else:
        show.table(_TITLES, map(_row, standings))


_TITLES = ("QUEUE", "MANAGERS", "WAITING", "DELAYED", "RUNNING", "COMPLETED", "FAILED",
           "CANCELLED", "SENT EVER")  # fmt: skip


def _row(one: Standing) -> Sequence[str]:
    name = f"{one.queue} (paused)" if one.paused else one.queue
    return (name, *map(str, one[2:9]), str(one.total_queued))


@click.command(cls=Command)
@_name
@_as_json
@click.pass_obj
def pause(access: Access, queue: str, as_json: bool) -> None:
    """Let no more tasks of QUEUE begin.

    Those that run go on, and all others wait until it is resumed."""
    with access.client() as client:
        client.pause(queue)
    _say(queue, True, as_json)


@click.command(cls=Command)
@_name
@_as_json
@click.pass_obj
def resume(access: Access, queue: str, as_json: bool) -> None:
    """Let tasks of QUEUE begin again."""
    with access.client() as client:
        client.resume(queue)
    _say(queue, False, as_json)


def _say(queue: str, paused: bool, as_json: bool) -> None:
    if as_json:
        show.document({"queue": queue, "paused": paused})
    else:
        show.text(f"queue {queue} {'is paused' if paused else 'goes on'}")
