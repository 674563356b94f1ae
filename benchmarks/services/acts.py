"""The services that are measured."""

import os

from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer

import gtaskman

BODY = b"x" * 100


class Idle(gtaskman.ServiceTask):
    """Waits, and answers calls."""

    def run(self, _progress: gtaskman.Progress) -> None:
        Event().wait()

    @gtaskman.remote
    def double(self, number: int) -> int:
        return 2 * number


class Web(gtaskman.ServiceTask):
    """A web server that drains when it is asked to end."""

    def run(self, _progress: gtaskman.Progress) -> None:
        self.draining = False
        self.server = WSGIServer(self.sockets["http"], self.answer, log=None, spawn=Pool(1000))
        self.server.serve_forever(stop_timeout=4)

    def answer(self, _environ: object, start_response: object) -> list[bytes]:
        headers = [("Content-Length", str(len(BODY))), ("X-Pid", str(os.getpid()))]
        if self.draining:
            headers.append(("Connection", "close"))
        start_response("200 OK", headers)  # type: ignore[operator] # WSGI
        return [BODY]

    def stop(self) -> None:
        self.draining = True
        self.server.stop(timeout=4)
