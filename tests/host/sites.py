"""A site: a private directory, and the managers and clients that meet at a socket in it.

    with Site() as site:
        host = site.host(max_processes=1)             # a manager in a process of its own
        site.client().submit(tasks.double, 21).get(timeout=PATIENCE)
        host.kill9()

Afterwards all of it is stopped, and nothing may be left.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

from worlds import PATIENCE, Program, wait_until

import gtaskman

HERE = Path(__file__).resolve().parent


class Site:
    """See the module's docstring. Its paths are short: a socket's may not be long."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="gtm"))
        self.path = self.directory / "app" / "manager.sock"
        self.url = f"unix://{self.path}"
        self._hosts: list[Hosting] = []
        self._clients: list[gtaskman.Client] = []

    def host(
        self,
        *,
        queue: str = "",
        lease: float = 2.0,
        timeout: float | None = None,
        options: dict[str, Any] | None = None,
        ready: bool = True,
        **config: Any,
    ) -> Hosting:
        """A manager that listens; two workers at most."""
        config = {"max_processes": 2, "kill_grace": 0.3, **config}
        told = {"path": str(self.path), "queue": queue, "lease": lease, "timeout": timeout,
                "config": config, "options": options or {}}  # fmt: skip
        self._hosts.append(Hosting(self.directory, told, ready))
        return self._hosts[-1]

    def client(self, **options: Any) -> Any:
        """A client of this process."""
        options.setdefault("patience", PATIENCE)
        self._clients.append(gtaskman.Client(self.url, **options))
        return self._clients[-1]

    def close(self) -> None:
        """Stop everything."""
        for client in self._clients:
            client.close()
        for host in self._hosts:
            host.kill()
        shutil.rmtree(self.directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Hosting(Program):
    """A manager in a process of its own."""

    def __init__(self, directory: Path, told: dict[str, Any], ready: bool) -> None:
        super().__init__([sys.executable, str(HERE / "hosting.py"), json.dumps(told)], directory)
        if not ready:
            return
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

    def stop(self) -> str:
        """SIGTERM; gives all that it said."""
        self.signal(signal.SIGTERM)
        assert self.wait() == 0, self.story()
        self.assert_nothing_left()
        return self.output
