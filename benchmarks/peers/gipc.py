"""Two bare `gipc` children that echo what they read: the pipe alone, without a pool around it.

No queue, no task, no error, no statistics: the other contestants do more for each message.
"""

from collections.abc import Sequence
from typing import Any

import gevent
import gipc

from benchmarks import tasks
from benchmarks.peers.base import WORKERS, Arguments, Function, Peer


def _echo(pipe: Any) -> None:
    with pipe:
        while True:
            try:
                pipe.put(pipe.get())
            except EOFError:
                return


class Contestant(Peer):
    def open(self) -> None:
        self._pipes, self._children = [], []
        for _ in range(WORKERS):
            ours, theirs = gipc.pipe(duplex=True)
            self._pipes.append(ours)
            self._children.append(gipc.start_process(_echo, (theirs,)))

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for child in self._children:
            child.join()

    def warm(self) -> None:
        self.burst(tasks.noop, [()] * 500)

    def burst(self, function: Function, calls: Sequence[Arguments]) -> list[Any]:
        messages = [_message(function, call) for call in calls]
        results: list[Any] = [...] * len(messages)
        greenlets = [
            gevent.spawn(work, pipe, range(start, len(messages), WORKERS), *rest)
            for start, pipe in enumerate(self._pipes)
            for work, *rest in ((_put, messages), (_get, results))
        ]
        gevent.joinall(greenlets, raise_error=True)
        return results

    def round_trip(self, function: Function, *arguments: Any) -> Any:
        self._pipes[0].put(_message(function, arguments))
        return self._pipes[0].get()


def _message(function: Function, arguments: Arguments) -> Any:
    """What an echo must be sent to give back what the function would."""
    assert function in (tasks.echo, tasks.noop), "the children of this contestant can only echo"
    return arguments[0] if arguments else None


def _put(pipe: Any, places: range, messages: Sequence[Any]) -> None:
    for place in places:
        pipe.put(messages[place])


def _get(pipe: Any, places: range, results: list[Any]) -> None:
    for place in places:
        results[place] = pipe.get()
