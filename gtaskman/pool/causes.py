"""Why a run failed or a worker died, in the words of a report."""

from __future__ import annotations

import os
import signal

import msgspec

from gtaskman.child.outcome import in_words
from gtaskman.job import Job
from gtaskman.pool.process import Process
from gtaskman.reference import MAIN
from gtaskman.report import Failure, FailureKind
from gtaskman.wire.messages import Ended, Fault, Why

_GUARD = (
    ". Workers import the main module to find its tasks: put what it does, such as starting a"
    " server, into a function that is called under if __name__ == '__main__':"
)
_PAYLOAD_ERROR = "gtaskman.errors.PayloadError"
_TIMED_OUT = "gtaskman.errors.TaskTimedOut"


def failed_run(job: Job, how: Ended, fault: Fault) -> Failure:
    """A run that its worker says has failed."""
    name = job.definition.name
    exc_type, message = fault.exc_type, fault.message
    if how is Ended.TIMEOUT:
        return timed_out(job, fault)
    if how is Ended.UNRESOLVED:
        message = f"the code of task {name} cannot be imported in its worker: {exc_type}: {message}"
        if job.definition.module == MAIN:
            message += _GUARD
    elif how is Ended.UNDECODED:
        message = (
            f"the arguments of task {name} cannot be decoded in its worker: {exc_type}: {message}"
        )
    return Failure(FailureKind.ERROR, message, exc_type, fault.traceback)


def timed_out(job: Job, fault: Fault | None = None) -> Failure:
    """A run that was stopped at its time limit, or ended itself at the soft one."""
    limit = f"it ran longer than its time limit of {job.definition.timeout} s"
    if fault is None or fault.exc_type is None:
        return Failure(FailureKind.TIMEOUT, limit, _TIMED_OUT)
    return Failure(FailureKind.TIMEOUT, fault.message or limit, fault.exc_type, fault.traceback)


def undecoded(job: Job, what: str, error: BaseException) -> Failure:
    """A run of which ``what`` came back cannot be made sense of here."""
    name = job.definition.name
    message = f"the {what} of task {name} cannot be decoded in the application: {in_words(error)}"
    return Failure(FailureKind.ERROR, message, _PAYLOAD_ERROR)


def unsendable(job: Job, error: Exception) -> Failure:
    """A job of which no order to a worker can be made."""
    message = f"task {job.definition.name} cannot be sent to a worker: {in_words(error)}"
    return Failure(FailureKind.ERROR, message, _PAYLOAD_ERROR)


def unread(job: Job, death: Failure) -> Failure:
    """A job whose worker died while it read the order, perhaps for want of memory."""
    message = f"while it read the arguments ({job.payload.size:,} bytes), {death.message}"
    return msgspec.structs.replace(death, message=message)


def unwilling(job: Job, grace: float) -> str:
    """Why a worker is killed for the sake of a job that does not stop."""
    asked = "its time limit" if job.stop is Why.TIMEOUT else "a cancel"
    return f"task {job.definition.name} ({job.id}) did not stop within {grace} s of {asked}"


def death(process: Process) -> Failure:
    """Why a child is dead, in words and numbers."""
    status, maxrss = process.exit or (None, 0)
    exitcode = signal_name = None
    how = "it has died, nobody knows how"
    if status is not None:
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            signal_name = _name_of(-code)
            how = f"it was killed by {signal_name}"
        else:
            exitcode = code
            how = f"it ended with exit code {code}"
    if process.kill_reason is not None:
        how = f"it was killed because {process.kill_reason}"
    elif signal_name == "SIGKILL":
        how += " (not by gtaskman: out of memory?)"
    if maxrss:
        how += f", having used {maxrss / 2**20:.0f} MiB at most"
    return Failure(FailureKind.CRASH, how, None, None, exitcode, signal_name)


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a realtime signal has no name of its own
