"""A scene: one namespace of a server, and the managers and clients that share it.

    with Scene(server) as scene:
        scene.manager(max_processes=1)                # on our own hub
        scene.client().submit(sharing.double, 21).get(timeout=PATIENCE)
        host = scene.host()                           # a manager in a process of its own
        host.kill9()

Afterwards all of it is stopped, and the records of every queue must be whole.
"""

from __future__ import annotations

import itertools
import json
import signal
import sys
from pathlib import Path
from typing import Any, Self

import serving
from invariants import check
from servers import RunningServer
from worlds import PATIENCE, Program, wait_until

import gtaskman
from gtaskman.redis.keys import queues_key
from gtaskman.redis.ledger import Ledger
from gtaskman.redis.server import Server

LEASE = 10.0  # seconds
SHORT_LEASE = 2.0  # for tests that wait until one is over
_namespaces = itertools.count(1)


# One worker that holds one task: else a task may be recalled from a worker that is slow, and begin
# after others that came later.
ONE_BY_ONE = {"max_processes": 1, "prefetch": 1, "max_prefetch": 1}


def worker_of(handle: gtaskman.TaskHandle) -> int:
    """The pid of the worker that runs a task of ``scenarios.work``, as soon as it says so."""
    return int(wait_until(lambda: handle.report.message, what=f"{handle} runs"))


class Scene:
    """See the module's docstring. ``directory`` is for what programs write."""

    def __init__(self, running: RunningServer, directory: Path | None = None) -> None:
        self.running = running
        self.namespace = f"scene{next(_namespaces)}"
        self.url = self.with_options(namespace=self.namespace)
        self._directory = directory
        self._managers: list[gtaskman.TaskManager] = []
        self._clients: list[gtaskman.Client] = []
        self._hosts: list[Host] = []
        self._server = Server(running.url, patience=PATIENCE)

    def with_options(self, **options: object) -> str:
        """The server's URL with options."""
        more = "&".join(f"{name}={value}" for name, value in options.items())
        return f"{self.running.url}{'&' if '?' in self.running.url else '?'}{more}"

    def queue(self, *queues: str, lease: float = LEASE, **options: Any) -> gtaskman.RedisTaskQueue:
        """What a manager serves: the queues of these names."""
        return gtaskman.RedisTaskQueue(
            self.url, queues=queues or ("default",), lease=lease, **options
        )

    def manager(
        self, *queues: str, queue: gtaskman.RedisTaskQueue | None = None, **config: Any
    ) -> Any:
        """A manager on this hub, which has begun; two workers at most."""
        config.setdefault("max_processes", 2)
        lease = config.pop("lease", LEASE)
        made = gtaskman.TaskManager(
            queue or self.queue(*queues, lease=lease), gtaskman.Configuration(**config)
        )
        self._managers.append(made)
        return made.start()

    def client(self, **options: Any) -> gtaskman.Client:
        """A client of the namespace."""
        options.setdefault("patience", PATIENCE)
        self._clients.append(gtaskman.Client(options.pop("url", self.url), **options))
        return self._clients[-1]

    def host(
        self,
        *queues: str,
        lease: float = SHORT_LEASE,
        timeout: float | None = None,
        url: str | None = None,
        **config: Any,
    ) -> Host:
        """A manager in a process of its own, which is ready."""
        assert self._directory is not None
        config.setdefault("max_processes", 2)
        config.setdefault("kill_grace", 0.3)
        told = {"url": url or self.url, "queues": queues or ("default",), "lease": lease}
        self._hosts.append(Host(self._directory, {**told, "timeout": timeout, "config": config}))
        return self._hosts[-1]

    def pids(self) -> list[int]:
        """Of the workers of our managers."""
        return [pid for manager in self._managers for pid in manager.pids()]

    def ledger(self, queue: str = "default") -> Ledger:
        """The records of a queue."""
        return Ledger(self._server, self.namespace, queue)

    def queues(self) -> list[str]:
        """The names of all queues that anybody has used."""
        index = queues_key(self.namespace)
        return sorted(name.decode() for name in self._server.call(index, "SMEMBERS", index))

    def close(self) -> None:
        """Stop everything, and look whether what is left on the server is whole."""
        for host in self._hosts:
            host.kill()
        for manager in self._managers:
            manager.stop(timeout=0)
            assert manager.pids() == []
        for client in self._clients:
            client.close()
        wrong = {name: check(self.ledger(name)) for name in self.queues()}
        self._server.close()
        assert not any(wrong.values()), wrong

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: object, *_: object) -> None:
        try:
            self.close()
        except AssertionError:
            if exc_type is None:  # else the test tells more
                raise


class Host(Program):
    """A manager in a process of its own."""

    def __init__(self, directory: Path, told: dict[str, Any]) -> None:
        super().__init__([sys.executable, serving.__file__, json.dumps(told)], directory)
        try:
            wait_until(self._ready, what="the host is ready")
        except AssertionError:
            self.kill()
            raise AssertionError(self.story()) from None

    def _ready(self) -> bool:
        assert self._popen.poll() is None, "it ended"
        return "ready" in self.output

    def kill9(self) -> None:
        """SIGKILL for the manager alone; its workers see to themselves."""
        self.signal(signal.SIGKILL)
        self.wait()

    def pause(self) -> None:
        """SIGSTOP for the manager alone; its workers go on."""
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def stop(self) -> str:
        """SIGTERM; gives all that it said."""
        self.signal(signal.SIGTERM)
        assert self.wait() == 0, self.story()
        self.assert_nothing_left()
        return self.output
