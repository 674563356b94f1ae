"""HTTP clients in native threads, which ask without a pause."""

import http.client
import threading

from benchmarks.services.acts import BODY


class Load:
    """`count` clients of `address`, until they are stopped."""

    def __init__(self, address: tuple[str, int], count: int, keep_alive: bool) -> None:
        self._address = address
        self._keep_alive = keep_alive
        self._over = threading.Event()
        self.answered = self.lost = 0
        self.pids: set[str | None] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        for each in self._threads:
            each.start()

    def _run(self) -> None:
        client: http.client.HTTPConnection | None = None
        while not self._over.is_set():
            try:
                client = client or http.client.HTTPConnection(*self._address, timeout=30)
                client.request("GET", "/")
                answer = client.getresponse()
                right = answer.read() == BODY
                closes = answer.will_close or not self._keep_alive
                pid = answer.headers["X-Pid"]
            except OSError:
                right, closes, pid = False, True, None
            with self._lock:
                self.answered += right
                self.lost += not right
                self.pids.add(pid)
            if closes and client is not None:
                client.close()
                client = None
        if client is not None:
            client.close()

    def stop(self) -> None:
        """Ask no more."""
        self._over.set()
        for each in self._threads:
            each.join()
