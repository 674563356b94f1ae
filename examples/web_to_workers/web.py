"""A web application that shows the standard library's sources in colours, and computes nothing.

Serve it by hand, as many processes as you like, on as many hosts as you like::

    export GTASKMAN_URL=redis://localhost:6379/0
    gunicorn -k gevent web:app                # or: python web.py --port 8000
    gtaskman run pages                        # elsewhere: whoever does the work
    curl localhost:8000/json/decoder.py

``/`` lists the files. The code is that of an application with workers of its own: that the work
goes to a server, and from there to other processes, is said by ``GTASKMAN_URL`` alone.
"""

# ruff: noqa: E402 - patching comes first: gunicorn has done it already, ``python`` has not.
from gevent import monkey

monkey.patch_all()

import argparse
import signal
import sysconfig
from collections.abc import Callable
from pathlib import Path

import gevent
from gevent.pywsgi import WSGIServer
from pages import colour

import gtaskman

LIBRARY = Path(sysconfig.get_path("stdlib"))
NOT_THE_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
LARGEST = 100_000  # bytes: a task may have 256 KiB, in JSON
PATIENCE = 60.0  # seconds


def sources() -> dict[str, Path]:
    """The library's sources by name, the largest ones first."""
    found = [
        path for path in LIBRARY.rglob("*.py")
        if not NOT_THE_LIBRARY.intersection(path.relative_to(LIBRARY).parts)
        and path.stat().st_size <= LARGEST
    ]  # fmt: skip
    found.sort(key=lambda path: (-path.stat().st_size, path))
    return {path.relative_to(LIBRARY).as_posix(): path for path in found}


SOURCES = sources()


def app(environ: dict, start_response: Callable) -> list[bytes]:
    """The WSGI application."""
    name = environ["PATH_INFO"].removeprefix("/")
    if not name:
        return answer(start_response, "200 OK", "\n".join(SOURCES))
    if name not in SOURCES:
        return answer(start_response, "404 Not Found", f"there is no {name}")
    try:
        handle = colour.submit(name, SOURCES[name].read_bytes().decode())
        page = handle.get(timeout=PATIENCE)  # this greenlet waits, and the others are served
    except gtaskman.GTaskmanError as error:  # it failed, it took too long, the server is away
        return answer(start_response, "503 Service Unavailable", str(error))
    made_by = {"X-Task": handle.id, "X-Host": page.host, "X-Attempt": str(page.attempt)}
    return answer(start_response, "200 OK", page.document, "text/html", **made_by)


def answer(
    start_response: Callable, status: str, text: str, kind: str = "text/plain", **headers: str
) -> list[bytes]:
    """Say it in UTF-8."""
    body = text.encode()
    about = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body))}
    start_response(status, list({**about, **headers}.items()))
    return [body]


def main() -> None:
    """Serve until somebody sends TERM or presses Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8000, help="0 for any (default: 8000)")
    server = WSGIServer(("127.0.0.1", parser.parse_args().port), app, log=None)
    server.start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, server.stop)
    server.serve_forever()


if __name__ == "__main__":
    main()
