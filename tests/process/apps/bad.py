"""Cannot be imported anywhere but in the application itself."""

import os

import gtaskman

if os.getpid() != int(os.environ.get("APPLICATION_PID", os.getpid())):
    raise ImportError("bad only lives in the application")


@gtaskman.task
def double(number):
    return number * 2
