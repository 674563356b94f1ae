"""Never ends being imported anywhere but in the application itself."""

import os
import time

import gtaskman

if os.getpid() != int(os.environ.get("APPLICATION_PID", os.getpid())):
    time.sleep(600)


@gtaskman.task
def double(number):
    return number * 2
