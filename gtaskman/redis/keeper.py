"""The keeper of an embedded server: a small process that starts it, and stops it in the end.

    python keeper.py DIRECTORY BINARY

Every user holds a shared lock on the file ``users``; the keeper asks for an exclusive one, which
the system grants when the last of them has gone, however it went. The server itself inherits a
lock on ``alive``, so that no second one touches its files while it is there. Whoever started us
reads from our standard output ``ok``, or why not, and a zero byte.

It runs as a script of its own, without gtaskman, to be small.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from typing import NoReturn

SOCKET = "server.sock"  # all names are relative to the directory
USERS = "users.lock"
ALIVE = "alive.lock"
LOG = "server.log"
_LOG_LIMIT = 1 << 20  # bytes: a longer one is begun anew
_PR_SET_PDEATHSIG = 1


def main(directory: str, binary: str) -> NoReturn:
    """Keep a server in ``directory`` until nobody uses it."""
    if os.fork():
        os._exit(0)  # init is our parent, not a user who might go on for years
    try:
        os.chdir(directory)
        os.umask(0o077)
        users = os.open(USERS, os.O_RDWR | os.O_CREAT)
        alive = os.open(ALIVE, os.O_RDWR | os.O_CREAT)
        fcntl.flock(alive, fcntl.LOCK_EX)  # the last one may be at its end, and not there yet
        server = _start(binary, alive)
        trouble = _await(server)
    except OSError as error:
        trouble = str(error)
    with contextlib.suppress(BrokenPipeError):  # nobody waited for so long
        os.write(1, (trouble or "ok").encode() + b"\0")
    if trouble:
        os._exit(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _keep(server, users)
    os._exit(0)


def _keep(server: "subprocess.Popen[bytes]", users: int) -> None:
    """Until the server has died, or the last user has gone and then the server too."""
    signal.signal(signal.SIGCHLD, lambda *_: os._exit(0))
    if server.poll() is None:
        fcntl.flock(users, fcntl.LOCK_EX)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        server.terminate()
        server.wait()


def _start(binary: str, alive: int) -> "subprocess.Popen[bytes]":
    options = {
        "port": "0",
        "unixsocket": SOCKET,
        "unixsocketperm": "600",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "dir": ".",
        "daemonize": "no",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    mode = "ab" if os.path.exists(LOG) and os.path.getsize(LOG) < _LOG_LIMIT else "wb"
    libc = ctypes.CDLL(None)
    with open(LOG, mode) as log:
        return subprocess.Popen(
            [binary, *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[alive],
            # Were we killed, the server would end in good order, and users start another.
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
        )


def _await(server: "subprocess.Popen[bytes]") -> str:
    """Until the server has loaded its file and serves; gives what is wrong, if anything is."""
    while server.poll() is None:
        if _serves():
            return ""
        time.sleep(0.005)
    return _last_words() or _how(server.returncode)


def _how(code: int) -> str:
    return f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with {code}"


def _serves() -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(SOCKET)
            sock.sendall(b"PING\r\n")
            return sock.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def listens(path: str) -> bool:
    """Whether a process listens on a Unix socket. It does not wait, whatever that process does."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except BlockingIOError:
            return True  # its backlog is full
        except OSError:
            return False
    return True


def _last_words() -> str:
    """The last lines of the log that are not about the ordinary."""
    with open(LOG, errors="replace") as log:
        lines = log.read()[-4000:].splitlines()
    bad = [line for line in lines if " # " in line or "FATAL" in line or "rror" in line]
    return "\n".join(bad[-5:])


if __name__ == "__main__":
    main(*sys.argv[1:])
