"""gtaskman once more, with functions declared as tasks.

A declared task's options are checked against their annotations before it is queued, which none
of the peers does for its functions; so what that costs stands on a line of its own.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import gtaskman
from benchmarks import tasks
from benchmarks.peers import gtaskman as plain
from benchmarks.peers.base import Arguments, Function


@gtaskman.task
def noop() -> None:
    tasks.noop()


@gtaskman.task
def echo(value: int) -> int:
    return tasks.echo(value)


@gtaskman.task
def where(seconds: float) -> int:
    return tasks.where(seconds)


DECLARED: dict[Function, Any] = {tasks.noop: noop, tasks.echo: echo, tasks.where: where}


class Contestant(plain.Contestant):
    def burst(self, function: Function, calls: Sequence[Arguments]) -> list[Any]:
        return super().burst(DECLARED[function], calls)

    def round_trip(self, function: Function, *arguments: Any) -> Any:
        return super().round_trip(DECLARED[function], *arguments)

    def map(self, function: Function, arguments: Sequence[Any], chunksize: int) -> Iterable[Any]:
        return super().map(DECLARED[function], arguments, chunksize)
