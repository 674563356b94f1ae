"""Makes a hub and spawns a greenlet when it is imported, and needs it."""

import gevent
import gevent.event
import gevent.queue

import gtaskman

_asked = gevent.queue.Queue()
_answers = gevent.queue.Queue()


def _serve():
    while True:
        _answers.put(_asked.get() * 2)


gevent.spawn(_serve)
gevent.sleep(0)


@gtaskman.task
def double(number):
    _asked.put(number)
    return _answers.get(timeout=10)
