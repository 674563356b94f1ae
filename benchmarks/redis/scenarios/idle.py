"""What workers with nothing to do ask of the server.

Overheard with MONITOR, which tells what was sent from what scripts did; `with_scripts` is what
the server counts itself, in INFO commandstats, with every command inside a script.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from benchmarks.check import same
from benchmarks.measurement import Measurement
from benchmarks.redis.peers.base import PROCESSES, Peer, server_url
from benchmarks.redis.team import Team

SETTLING = 1.5  # seconds that the workers get to come to rest
OURS = {"cmdstat_info", "cmdstat_config|resetstat", "cmdstat_config", "cmdstat_monitor"}


def run(contestant: type[Peer], seconds: float) -> Measurement:
    peer = contestant()
    peer.open()
    with Team(peer, PROCESSES) as team:
        checked = same("result", peer.results(peer.enqueue("echo", [1])), [1])
        peer.close()
        peer.server.ping()
        time.sleep(SETTLING)
        peer.server.config_resetstat()
        sent = sum(b" lua] " not in line for line in overheard(server_url(), seconds))
        counted = peer.server.info("commandstats")
        team.check()
    done = sum(each["calls"] for name, each in counted.items() if name not in OURS)
    # Fewer than one in all that time is told as one: nobody can be compared with nothing.
    sent, done = max(sent, 1), max(done, 1)
    metrics = {"commands_per_second": sent / seconds, "with_scripts": done / seconds}
    return Measurement(metrics, checked)


def overheard(url: str, seconds: float) -> Iterator[bytes]:
    """One line for each command that the server runs, for so long."""
    place = urlsplit(url)
    deadline = time.monotonic() + seconds
    heard = b""
    with socket.create_connection((place.hostname, place.port)) as line:
        line.sendall(b"MONITOR\r\n")
        while (left := deadline - time.monotonic()) > 0:
            line.settimeout(left)
            try:
                heard += line.recv(65536)
            except TimeoutError:
                break
    _, *lines = heard.split(b"\r\n")  # the first is the answer to MONITOR itself
    yield from filter(None, lines)
