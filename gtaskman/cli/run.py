"""``gtaskman run``: a manager of its own, which serves the tasks of an application."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import click
import setproctitle
from click.core import ParameterSource
from gevent import monkey as gevent_monkey

from gtaskman.cli.access import Access, Command, socket_address
from gtaskman.cli.application import Application, ApplicationError, load
from gtaskman.cli.relief import Duty, relief_of_ours
from gtaskman.cli.serving import Serving
from gtaskman.cli.signals import put_off
from gtaskman.config import Configuration
from gtaskman.errors import ConfigurationError
from gtaskman.queues.redis import LEASE, RedisTaskQueue
from gtaskman.redis.address import Address
from gtaskman.redis.ledger import Ledger
from gtaskman.redis.server import Server
from gtaskman.shared import SharedManager
from gtaskman.taskmanager import TaskManager

if TYPE_CHECKING:
    from gtaskman.host.address import SocketAddress
    from gtaskman.host.server import HostServer

log = logging.getLogger(__name__)

_LOGS = "gtaskman.cli.logs"
# They would end or stop us while we begin.
_NOT_YET = (signal.SIGHUP, signal.SIGTSTP, signal.SIGTTIN)
_LEVEL = "GTASKMAN_LOG_LEVEL"
_LEVELS = ("debug", "info", "warning", "error")
_FIELDS = (
    ("--min", "min_processes", click.IntRange(0), "Workers that are always there."),
    ("--max", "max_processes", click.IntRange(1), "Workers that may live at once."),
    ("--jobs", "max_jobs_per_process", click.IntRange(1), "Async tasks at once in a worker."),
    ("--ttl", "ttl", click.FloatRange(0), "Seconds after which an idle worker ends."),
    ("--max-tasks", "max_tasks_per_process", click.IntRange(1), "Tasks until it is replaced."),
    ("--max-age", "max_age", click.FloatRange(0.1), "Seconds until it is replaced."),
    ("--stop-timeout", "stop_timeout", click.FloatRange(0), "Seconds to finish tasks at the end."),
)


def _socket(_ctx: click.Context, _param: click.Parameter, text: str | None) -> SocketAddress | None:
    """The path of ``--bind``."""
    if text is None:
        return None
    try:
        return socket_address(text)
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from None


def _names(
    _ctx: click.Context, _param: click.Parameter, text: str | None
) -> tuple[str, ...] | None:
    """The queues of ``--queues``."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise click.BadParameter("it takes names, with commas between them")
    return names


class _Run(Command):
    logs = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        defaults = Configuration()
        self.params[1:1] = [
            click.Option(
                [flag, field],
                type=kind,
                metavar="N",
                help=f"{words}  [default: {_shown(getattr(defaults, field))}]",
            )
            for flag, field, kind, words in _FIELDS
        ]


def _shown(value: object) -> str:
    return "never" if value is None else f"{value:g}"


@click.command(cls=_Run)
@click.argument("application", metavar="MODULE[:NAME]")
@click.option(
    "--queues",
    callback=_names,
    metavar="A,B",
    help="Queues to serve, the first ones first.  [default: default]",
)
@click.option(
    "--lease",
    type=click.FloatRange(1),
    metavar="SECONDS",
    help=f"Silence after which others get its tasks.  [default: {LEASE:g}]",
)
@click.option(
    "--bind",
    callback=_socket,
    metavar="unix:PATH",
    help="Let processes of this host use this manager, at a Unix socket.",
)
@click.option(
    "--allow",
    multiple=True,
    metavar="USER",
    help="With --bind and --group: users whose processes may use it, beside our own.",
)
@click.option("--group", metavar="NAME", help="With --bind: whose members may connect.")
@click.option(
    "--cancel-orphans",
    is_flag=True,
    help="With --bind: cancel the tasks of a process that goes away.",
)
@click.option("--burst", is_flag=True, help="End when nothing is left to do.")
@click.option("--monkey", is_flag=True, help="Patch with gevent before the module is imported.")
@click.option(
    "--log-level", type=click.Choice(_LEVELS), envvar=_LEVEL, default="info", show_default=True
)
@click.pass_context
def run(
    ctx: click.Context,
    /,
    application: str,
    queues: tuple[str, ...] | None,
    lease: float | None,
    bind: SocketAddress | None,
    allow: tuple[str, ...],
    group: str | None,
    cancel_orphans: bool,
    burst: bool,
    monkey: bool,
    log_level: str,
    **fields: Any,
) -> None:
    """Serve the tasks that MODULE registers until told to stop.

    NAME may be a TaskManager of the module, a Configuration, or a function that gives one.

    \b
    TERM, INT  let running tasks finish within --stop-timeout, then end; those that do
               not finish go back to the queue. A second one: now
    TSTP       take no more tasks. CONT: take some again
    HUP        begin again with new code; code that does not come up changes nothing
    TTIN       write the stacks of the workers and of the manager
    """
    put_off(_NOT_YET)
    directory = _directory()
    duty, relief = Duty(), relief_of_ours()
    if monkey:
        gevent_monkey.patch_all()
    os.environ[_LEVEL] = log_level  # for the workers
    importlib.import_module(_LOGS)
    found = load(application)
    own = {"queues": queues, "lease": lease, **fields}
    given = {name: value for name, value in own.items() if value is not None}
    access: Access = ctx.obj
    _check(ctx, access, bind is not None)
    if isinstance(found.wish, TaskManager):
        manager = _given_manager(found.wish, application, ctx, given, bind is not None)
    else:
        manager = _made_manager(found, access, given, bind is not None)
    if burst and not isinstance(manager, SharedManager):
        raise click.UsageError("--burst needs a queue that has work before we begin: a server's")
    _name(application, manager, bind)
    if isinstance(manager, SharedManager):
        # Whoever begins again must not end because the server is away right now.
        _see_server(manager, access.patience if relief is None else None)
    server = None if bind is None else _server(manager, bind, allow, group, cancel_orphans)
    _tell(found, manager, bind)
    Serving(manager, server, directory, burst).run(duty, relief)


def _server(
    manager: TaskManager,
    bind: SocketAddress,
    allow: tuple[str, ...],
    group: str | None,
    cancel_orphans: bool,
) -> HostServer:
    from gtaskman.host.server import HostServer

    return HostServer(manager, bind.path, allow=allow, group=group, cancel_orphans=cancel_orphans)


def _check(ctx: click.Context, access: Access, bound: bool) -> None:
    """Options that have a meaning together only."""
    alone = [name for name in ("allow", "group", "cancel_orphans") if _on_command_line(ctx, name)]
    if alone and not bound:
        raise click.UsageError(f"--{alone[0].replace('_', '-')} is for --bind unix:PATH")
    elsewhere = access.url is not None and not isinstance(access.url, Address)
    if elsewhere and (not bound or _on_command_line(ctx, "url")):
        raise click.UsageError(
            f"{access.url} is a manager's socket, where tasks are sent: to listen there, give"
            f" --bind {access.url}"
        )
    queues = [name for name in ("queues", "lease") if _on_command_line(ctx, name)]
    if queues and bound and not isinstance(access.url, Address):
        raise click.UsageError(f"--{queues[0]} is for a queue on a server: give --url")


def _directory() -> str:
    """Where we are, by the path that led here: it may be a link, which new code changes."""
    logical = os.environ.get("PWD", "")
    with contextlib.suppress(OSError):
        if os.path.samefile(logical, "."):
            return logical
    return os.getcwd()


def _given_manager(
    manager: TaskManager,
    application: str,
    ctx: click.Context,
    given: dict[str, Any],
    bound: bool,
) -> TaskManager:
    """The application's own manager, which says itself what the options would say."""
    said = [name for name in ("url", "namespace") if _on_command_line(ctx, name)]
    if given or said:
        flags = {field: flag for flag, field, _, _ in _FIELDS}
        name = next(iter(given), "") or said[0]
        raise click.UsageError(
            f"{application} is a TaskManager, which has a queue and a configuration already: leave"
            f" out {flags.get(name, f'--{name}')}, or name a Configuration"
        )
    if not bound and not isinstance(manager, SharedManager):
        raise ApplicationError(
            f"{application} has a queue of its own process, to which nobody else could send tasks:"
            " make it with the URL of a server, TaskManager('redis://...'), or give --bind"
            " unix:PATH, for other processes of this host"
        )
    return manager


def _on_command_line(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _made_manager(
    found: Application, access: Access, given: dict[str, Any], bound: bool
) -> TaskManager:
    options: dict[str, Any] = {
        name: given.pop(name) for name in ("queues", "lease") if name in given
    }
    config = found.wish if isinstance(found.wish, Configuration) else Configuration()
    preload = (_LOGS, found.module, *config.preload)
    changed = _changed(config, {**given, "preload": preload})
    if isinstance(access.url, Address) or not bound:
        queue = RedisTaskQueue(access.address, namespace=access.namespace, **options)
        return TaskManager(queue, changed)
    if access.namespace is not None:
        raise click.UsageError("--namespace is for a queue on a server: give --url")
    return TaskManager(config=changed)


def _changed(config: Configuration, given: dict[str, Any]) -> Configuration:
    least, most = given.get("min_processes"), given.get("max_processes")
    if least is None and most is not None:
        # Whoever wants two workers at most has not asked for more at least.
        given["min_processes"] = min(config.min_processes, most)
    if most is None and least is not None:
        given["max_processes"] = max(config.max_processes, least)
    return config.replace(**given)


def _name(application: str, manager: TaskManager, bind: SocketAddress | None) -> None:
    """What ``ps`` shows, of us and of our workers; no password of a URL is left in it."""
    where = "" if bind is None else f", at {bind.path}"
    if isinstance(manager, SharedManager):
        where = f", queues {','.join(manager.queue.queues)}{where}"
    setproctitle.setproctitle(f"gtaskman: manager of {application}{where}")
    sys.argv[0] = application


def _see_server(manager: SharedManager, patience: float | None) -> None:
    """See that the server is there and fit, before anything starts."""
    noisy = logging.getLogger("gtaskman.redis.server")
    if patience is not None:
        noisy.setLevel(logging.ERROR)  # it is said once, at the end
    queue = manager.queue
    server = Server(queue.address, patience)
    try:
        Ledger(server, queue.namespace, queue.name).check_server()
    finally:
        noisy.setLevel(logging.NOTSET)
        server.close()


def _tell(found: Application, manager: TaskManager, bind: SocketAddress | None) -> None:
    config, count = manager.config, len(found.tasks)
    where = []
    if isinstance(manager, SharedManager):
        queue = manager.queue
        where.append(f"from {queue.address}, queues {', '.join(queue.queues)}")
    if bind is not None:
        where.append(f"at {bind}")
    log.info(
        "serving %d %s of %s %s, with %d to %d workers",
        count,
        "task" if count == 1 else "tasks",
        found.module,
        ", ".join(where),
        config.min_processes,
        config.max_processes,
    )
