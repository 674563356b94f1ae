"""``gtaskman services``: supervise services, see how they stand, change that, and call them."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import setproctitle
from gevent import monkey as gevent_monkey
from rich.text import Text

from gtaskman.cli import show
from gtaskman.cli.exits import Exit, Failure, failure
from gtaskman.cli.signals import put_off
from gtaskman.cli.values import keywords_of, value_of
from gtaskman.errors import (
    GTaskmanError,
    ServiceCallFailed,
    ServiceMethodError,
    UnknownServiceError,
)
from gtaskman.services.status import ServiceState

if TYPE_CHECKING:
    from gtaskman.services.control import Change, Standing, Supervisor
    from gtaskman.services.file import Plan
    from gtaskman.services.manager import ServiceManager

log = logging.getLogger(__name__)

_LOGS = "gtaskman.cli.logs"
_LEVEL = "GTASKMAN_LOG_LEVEL"
_LEVELS = ("debug", "info", "warning", "error")
_SOCKET = "GTASKMAN_SERVICES"
_PATIENCE = 60.0  # seconds
_NOT_YET = (signal.SIGHUP, signal.SIGTTIN)  # they would end or stop us while we begin
_COLOURS = {
    ServiceState.STARTING: "yellow",
    ServiceState.RUNNING: "green",
    ServiceState.STOPPING: "yellow",
    ServiceState.STOPPED: "magenta",
    ServiceState.BACKOFF: "yellow",
    ServiceState.FAILED: "red",
}


# --- what all have -------------------------------------------------------------------------------


class _Command(click.Command):
    """A command about services; its errors end it with one line and an exit code.

    It is given the path that ``--socket`` says as its ``obj``, or None.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params += [
            click.Option(
                ["--socket"],
                metavar="PATH",
                envvar=_SOCKET,
                show_envvar=True,
                help="The supervisor's private socket, if it is not where it usually is.",
            ),
            click.Option(["--debug"], is_flag=True, help="Show tracebacks."),
        ]

    def invoke(self, ctx: click.Context) -> Any:
        ctx.obj = ctx.params.pop("socket")
        debug = ctx.params.pop("debug")
        try:
            return super().invoke(ctx)
        except GTaskmanError as error:
            if debug:
                raise
            raise _failure(error) from None


def _failure(error: GTaskmanError) -> Failure:
    if isinstance(error, (UnknownServiceError, ServiceMethodError)):
        return Failure(str(error), Exit.UNKNOWN)
    return failure(error)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A Ctrl-C ends the wait, and nothing else."""
    try:
        yield
    except KeyboardInterrupt:
        show.note("what was asked for goes on; see: gtaskman services status")
        raise click.exceptions.Exit(Exit.INTERRUPTED) from None


_as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON.")
_name = click.argument("service", metavar="[NAME]", required=False)
_all = click.option("--all", "all_of_them", is_flag=True, help="All services.")
_wait = click.option("--wait/--no-wait", default=True, help="Wait until it has happened.")
_timeout = click.option(
    "--timeout",
    type=click.FloatRange(0),
    default=_PATIENCE,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for that.",
)


@click.group()
def services() -> None:
    """Keep services alive, see how they stand, and call them.

    All but run talk to a supervisor of this user on this machine. If there is only one, it is
    found without --socket.
    """


# --- supervising ---------------------------------------------------------------------------------


@services.command(cls=_Command)
@click.argument("target", metavar="FILE.toml|MODULE:MANAGER")
@click.option("--monkey", is_flag=True, help="Patch with gevent before anything is imported.")
@click.option("--stop-timeout", type=click.FloatRange(0), metavar="SECONDS",
              help="Seconds that they have to end.  [default: as their options say]")  # fmt: skip
@click.option(
    "--log-level", type=click.Choice(_LEVELS), envvar=_LEVEL, default="info", show_default=True
)
@click.pass_obj
def run(
    socket: str | None, target: str, monkey: bool, stop_timeout: float | None, log_level: str
) -> None:
    """Supervise services in the foreground until told to stop.

    They are described in a TOML file, or MANAGER is a ServiceManager of a module, or a function
    that gives one.

    \b
    TERM, INT  stop all services, each as its options say, then end. A second one: now
    HUP        read the file again, and reload all services with new code, one after the
               other
    TTIN       write the stacks of the services and of the supervisor
    """
    put_off(_NOT_YET)
    if monkey:
        gevent_monkey.patch_all()
    os.environ[_LEVEL] = log_level  # for the services
    importlib.import_module(_LOGS)
    from gtaskman.cli.supervising import Supervising, count
    from gtaskman.services import control, file

    plan: Callable[[], Plan] | None = None
    if _is_file(target):
        path = Path(os.path.abspath(target))
        plan = functools.partial(file.read, path)
        manager, name, what = plan().manager(), path.stem, str(path)
    else:
        manager, name, what = _manager_of(target), target.partition(":")[0], target
    # Services log as their supervisor does.
    config = manager.config
    manager.config = config.replace(preload=(_LOGS, *config.preload))
    place = Path(socket) if socket is not None else control.usual_path(name).path
    beside = control.Control(manager, place, f"which supervises {what}")
    setproctitle.setproctitle(f"gtaskman: services of {what}")
    sys.argv[0] = target
    log.info("supervising %s of %s", count(len(manager)), what)
    Supervising(manager, beside, plan, stop_timeout).run()


def _is_file(target: str) -> bool:
    return target.endswith(".toml") or os.sep in target


def _manager_of(target: str) -> ServiceManager:
    """The manager that ``module:name`` is, or gives."""
    from gtaskman.services import ServiceManager
    from gtaskman.services.file import TargetError, find, in_a_line

    found = find(target)
    if callable(found) and not isinstance(found, type):
        try:
            found = found()
        except Exception as error:
            raise TargetError(f"{target}() has failed: {in_a_line(error)}") from error
    if not isinstance(found, ServiceManager):
        raise TargetError(
            f"{target} is {found!r:.80}: after the colon comes the name of a ServiceManager, or of"
            " a function that returns one"
        )
    return found


# --- asking --------------------------------------------------------------------------------------


def _supervisor(socket: str | None) -> Supervisor:
    """The one that is meant. Raises :class:`Failure` if that is not clear."""
    from gtaskman.rendezvous import Rendezvous, usual_directory
    from gtaskman.services.control import Supervisor, supervisors

    if socket is not None:
        return Supervisor(Rendezvous(socket))
    found = supervisors()
    if not found:
        raise Failure(
            f"nobody supervises services here (looked in {usual_directory()}): start them with"
            " gtaskman services run, or name their supervisor's --socket",
            Exit.AWAY,
        )
    if len(found) > 1:
        paths = ", ".join(str(each.rendezvous.path) for each in found)
        raise Failure(f"which supervisor? Give --socket, one of: {paths}", Exit.USAGE)
    return found[0]


@services.command(cls=_Command)
@_name
@_as_json
@click.pass_obj
def status(socket: str | None, service: str | None, as_json: bool) -> None:
    """Write how the service NAME stands, or all of them.

    The exit code is 1 if the one that is named has failed."""
    found = _supervisor(socket).status(service)
    if as_json:
        show.document(found if service is None else found[0])
    elif service is None:
        _show(found)
    else:
        _show_one(found[0])
    if service is not None and found[0].state is ServiceState.FAILED:
        raise click.exceptions.Exit(Exit.FAILED)


def _change(
    do: Change,
    socket: str | None,
    service: str | None,
    all_of_them: bool,
    timeout: float,
    as_json: bool,
    wait: bool = True,
) -> None:
    """Have one service changed, or all, and write how they stand then."""
    if (service is None) != all_of_them:
        raise click.UsageError(f"which one? {do} takes the NAME of a service, or --all")
    with _quiet():
        found = _supervisor(socket).change(do, service, timeout, wait)
    if as_json:
        show.document(found)
    else:
        _show(found)
    missed = [each for each in found if each.error is not None]
    for each in missed:
        show.note(f"gtaskman: {each.error}")
    if missed:
        late = all(each.late for each in missed)
        raise click.exceptions.Exit(Exit.TIMED_OUT if late else Exit.FAILED)


@services.command(cls=_Command)
@_name
@_all
@_wait
@_timeout
@_as_json
@click.pass_obj
def start(socket: str | None, /, service: str | None, **options: Any) -> None:
    """Start the service NAME, if it does not run."""
    _change("start", socket, service, **options)


@services.command(cls=_Command)
@_name
@_all
@_wait
@_timeout
@_as_json
@click.pass_obj
def stop(socket: str | None, /, service: str | None, **options: Any) -> None:
    """Stop the service NAME until it is started again."""
    _change("stop", socket, service, **options)


@services.command(cls=_Command)
@_name
@_all
@_wait
@_timeout
@_as_json
@click.pass_obj
def restart(socket: str | None, /, service: str | None, **options: Any) -> None:
    """Stop the service NAME and start it, all its instances at once."""
    _change("restart", socket, service, **options)


@services.command(cls=_Command)
@_name
@_all
@_timeout
@_as_json
@click.pass_obj
def reload(socket: str | None, /, service: str | None, **options: Any) -> None:
    """Replace the processes of the service NAME, one after the other.

    A new one is ready before the old one is asked to end: no connection is lost."""
    _change("reload", socket, service, **options)


@services.command(cls=_Command)
@click.argument("service", metavar="NAME")
@click.argument("method", metavar="METHOD")
@click.argument("words", nargs=-1, metavar="[VALUE | KEY=VALUE]...")
@click.option("--arg", "args", multiple=True, metavar="VALUE",
              help="An argument by its place, whatever is in it.")  # fmt: skip
@click.option("--all-instances", is_flag=True,
              help="Call it in each running instance, and write a list.")  # fmt: skip
@_timeout
@_as_json
@click.pass_obj
def call(
    socket: str | None,
    service: str,
    method: str,
    words: tuple[str, ...],
    args: tuple[str, ...],
    all_instances: bool,
    timeout: float,
    as_json: bool,  # noqa: ARG001 - it is JSON in any case
) -> None:
    """Call a METHOD of the service NAME, and write what it returns, as JSON.

    Of several instances one is called, in turn.

    A VALUE is JSON where it can be read as such, else a text: n=3, deep=true, sizes=[1,2],
    who=world.
    """
    by_place = [word for word in words if not _is_keyword(word)]
    options = keywords_of(word for word in words if _is_keyword(word))
    values = tuple(map(value_of, (*by_place, *args)))
    try:
        with _quiet():
            found = _supervisor(socket).call(
                service, method, values, options, timeout, all_instances
            )
    except ServiceCallFailed as failed:
        show.note(f"gtaskman: {failed}")
        if failed.traceback and "\n" in failed.traceback.strip():
            show.note(failed.traceback.rstrip())
        raise click.exceptions.Exit(Exit.FAILED) from None
    show.document(found)


def _is_keyword(word: str) -> bool:
    key, equals, _ = word.partition("=")
    return bool(equals) and key.isidentifier()


# --- what is shown -------------------------------------------------------------------------------

_TITLES = ("NAME", "STATE", "PROCESSES", "UPTIME", "STARTS", "LISTENS AT", "LAST END")


def _show(found: Sequence[Standing]) -> None:
    if found:
        show.table(_TITLES, map(_row, found))
    else:
        show.note("no services")


def _row(one: Standing) -> Sequence[Text | str]:
    return (
        one.id,
        _state(one.state),
        " ".join(map(str, one.pids)),
        show.seconds(one.uptime),
        str(one.started_times),
        " ".join(map(_address, one.sockets.values())),
        one.history[-1].message if one.history else "",
    )


def _state(state: ServiceState) -> Text:
    return Text(state.value, _COLOURS[state])


def _address(where: Any) -> str:
    return f"{where[0]}:{where[1]}" if isinstance(where, (list, tuple)) else str(where)


def _show_one(one: Standing) -> None:
    show.facts((name, what) for name, what in _facts(one) if what)
    trace = one.history[-1].failure.traceback if one.history and one.history[-1].failure else None
    if trace:
        show.text(f"\n{trace.rstrip()}")


def _facts(one: Standing) -> Iterator[tuple[str, Text | str]]:
    yield "service", one.id
    yield "task", one.name
    yield "state", _state(one.state)
    yield "message", one.message
    for name, where in one.sockets.items():
        yield f"socket {name}", _address(where)
    yield "starts", str(one.started_times)
    for place in one.instances:
        yield f"instance {place.instance}", _place(place)
    for end in one.history:
        pid = f"process {end.pid}: " if end.pid is not None else ""
        yield f"ended {show.moment(end.at)}", f"{pid}{end.message}"


def _place(place: Any) -> str:
    parts = [place.state.value]
    if place.pid is not None:
        parts.append(f"process {place.pid}")
    if place.uptime is not None:
        parts.append(f"up {show.seconds(place.uptime)}")
    if place.restart_in is not None:
        parts.append(f"starts again in {show.seconds(place.restart_in)}")
    if place.draining:
        parts.append(f"draining {' '.join(map(str, place.draining))}")
    return ", ".join(parts)
