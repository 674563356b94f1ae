"""Starts a native thread when it is imported, and needs it."""

from gevent import monkey

import gtaskman

_start = monkey.get_original("_thread", "start_new_thread")
_asked = monkey.get_original("queue", "SimpleQueue")()
_answers = monkey.get_original("queue", "SimpleQueue")()


def _serve():
    while True:
        _answers.put(_asked.get() * 2)


_start(_serve, ())


@gtaskman.task
def double(number):
    _asked.put(number)
    return _answers.get(timeout=10)
