"""``Access``: to which server a command goes; and ``Command``, the options that all have for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from gtaskman.cli.exits import Exit, Failure, failure
from gtaskman.errors import ConfigurationError, GTaskmanError
from gtaskman.places import is_socket
from gtaskman.redis.address import Address

if TYPE_CHECKING:
    from gtaskman.client import Client
    from gtaskman.host.address import SocketAddress

PATIENCE = 5.0  # seconds


@dataclass(frozen=True)
class Access:
    """The server, or the socket, that the command line or the environment names, if any."""

    url: Address | SocketAddress | None
    namespace: str | None
    patience: float

    @property
    def address(self) -> Address:
        """Where the server is. Raises :class:`click.UsageError` if nobody has said."""
        where = self.where
        if not isinstance(where, Address):
            raise click.UsageError(
                f"{where} is the socket of a manager, and this command is about a server: give"
                " the URL of that, for example redis://localhost:6379/0"
            )
        return where

    @property
    def where(self) -> Address | SocketAddress:
        """The server or the socket. Raises :class:`click.UsageError` if nobody has said."""
        if self.url is None:
            raise click.UsageError(
                "which server? Give --url, or set GTASKMAN_URL, for example to"
                " redis://localhost:6379/0 or unix:///run/app/gtaskman.sock"
            )
        return self.url

    @contextmanager
    def client(self, queue: str | None = None) -> Iterator[Client]:
        """A client of it, which is closed afterwards."""
        with self._client(self.where, queue or "default") as client:
            yield client

    def _client(self, where: Address | SocketAddress, queue: str) -> Client:
        from gtaskman.client import Client

        if isinstance(where, Address):
            return Client(where, queue=queue, namespace=self.namespace, patience=self.patience)
        if self.namespace is not None:
            raise click.UsageError("--namespace is for a server, and the URL is a socket's")
        return Client(str(where), queue=queue, patience=self.patience)


def _address(
    _ctx: click.Context, _param: click.Parameter, url: str | None
) -> Address | SocketAddress | None:
    """What ``--url`` names."""
    if url is None:
        return None
    if url.startswith("memory:"):
        raise click.BadParameter(
            "memory:// is the queue of a single process, which nobody else can reach: this command"
            " takes the URL of a server, such as redis://localhost:6379/0, or that of a manager's"
            " socket, such as unix:///run/app/gtaskman.sock"
        )
    try:
        return socket_address(url) if is_socket(url) else Address.parse(url)
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from None


def socket_address(url: str) -> SocketAddress:
    """The address of a manager's socket. Raises :class:`ConfigurationError`."""
    from gtaskman.host.address import SocketAddress

    return SocketAddress.parse(url)


class Command(click.Command):
    """A command that goes to a server: it is given an :class:`Access` as its ``obj``.

    Errors of gtaskman's end it with one line and an exit code, or, with ``--debug``, with the
    traceback.
    """

    logs = False  # whether it shows what is logged

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params += [
            click.Option(
                ["--url"],
                callback=_address,
                metavar="URL",
                envvar="GTASKMAN_URL",
                show_envvar=True,
                help="The server: redis://, rediss://, redis+socket://, redis+sentinel://,"
                " redis+cluster:// or embedded:PATH; or a manager's socket, unix:///PATH.",
            ),
            click.Option(["--namespace"], help="Keeps applications apart that share a server."),
            click.Option(
                ["--patience"],
                type=click.FloatRange(0),
                default=PATIENCE,
                show_default=True,
                metavar="SECONDS",
                help="How long to wait for a server that is not there.",
            ),
            click.Option(["--debug"], is_flag=True, help="Show tracebacks and what is logged."),
        ]

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command."""
        take = ctx.params.pop
        ctx.obj = Access(take("url"), take("namespace"), take("patience"))
        debug = take("debug")
        if not self.logs:
            _mind_logs(debug)
        try:
            return super().invoke(ctx)
        except GTaskmanError as error:
            if debug:
                raise
            raise failure(error) from None
        except UnicodeEncodeError as error:
            if debug:
                raise
            raise Failure(
                f"{error.object!r:.200} is not UTF-8: it cannot be sent", Exit.USAGE
            ) from None


def _mind_logs(debug: bool) -> None:
    """Warnings of the library are not part of what a command has to say."""
    if debug:
        logging.basicConfig(level=logging.DEBUG)
    else:
        logging.getLogger("gtaskman").addHandler(logging.NullHandler())
        logging.getLogger("gtaskman").propagate = False
