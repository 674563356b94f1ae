"""``Address``: where a server is and how to be let in, read from a URL. It opens nothing.

=================================================  ================================================
``redis://user:password@host:6379/0``              one server
``rediss://host:6379/0``                           the same over TLS
``redis+socket:///run/redis.sock?db=0``            one server of this machine, by its Unix socket
``redis+sentinel://host1:26379,host2/service/0``   whichever server the sentinels say is primary
``redis+cluster://host1:6379,host2:6379``          a cluster, found by any of its nodes
``embedded:PATH``                                  a server of our own, its data under PATH
=================================================  ================================================

``rediss+sentinel`` and ``rediss+cluster`` are those over TLS. After a ``?``: ``namespace``, ``db``,
``timeout`` (seconds), for TLS ``ssl_ca_certs``, ``ssl_ca_path``, ``ssl_ca_data``,
``ssl_certfile``, ``ssl_keyfile``, ``ssl_password``, ``ssl_min_version`` (``TLSv1.2`` or
``TLSv1.3``), ``ssl_cert_reqs`` (``required``, ``optional`` or ``none``) and
``ssl_check_hostname``; options of redis-py that are about its pool are passed over. For
sentinels that ask for one ``sentinel_username`` and ``sentinel_password``. User, password and
values are percent-encoded where they hold ``@ : / ? # & %``.
"""

from __future__ import annotations

import enum
import functools
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast
from urllib.parse import parse_qsl, unquote

from gtaskman.errors import ConfigurationError

log = logging.getLogger(__name__)

PORT = 6379
SENTINEL_PORT = 26379
TIMEOUT = 5.0  # seconds after which a server that does not answer counts as away
NAMESPACE = "default"
_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>\d+))?")
_EXAMPLES = (
    "redis://host:6379/0, rediss://host:6379/0, redis+socket:///path/to.sock,"
    " redis+sentinel://host1:26379,host2:26379/service/0, redis+cluster://host1:6379,host2:6379"
    " or embedded:PATH"
)


class Kind(enum.Enum):
    """What stands at an address."""

    SINGLE = enum.auto()
    SENTINEL = enum.auto()
    CLUSTER = enum.auto()
    EMBEDDED = enum.auto()


class Node(NamedTuple):
    """One server process: a host and a port, or the path of a Unix socket and port 0."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Tls:
    """How to trust a server, and be trusted by it. The names are those of the options.

    ``ca_certs`` is a file and ``ca_path`` a directory of certificates in PEM, ``ca_data`` their
    text; ``password`` is that of ``keyfile``.
    """

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    cert_reqs: str = "required"
    check_hostname: bool = True
    ca_path: str | None = None
    ca_data: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    min_version: str | None = None  # "TLSv1.2" or "TLSv1.3"

    @functools.cached_property
    def context(self) -> Any:
        """A ``gevent.ssl.SSLContext``. Raises :class:`ConfigurationError` for unreadable files."""
        from gevent import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = self.check_hostname and self.cert_reqs != "none"
        context.verify_mode = getattr(ssl, f"CERT_{self.cert_reqs.upper()}")
        if self.min_version:
            context.minimum_version = ssl.TLSVersion[self.min_version.replace(".", "_")]
        try:
            if self.ca_certs or self.ca_path or self.ca_data:
                context.load_verify_locations(self.ca_certs, self.ca_path, self.ca_data)
            else:
                context.load_default_certs()
            if self.certfile:
                # Without a password OpenSSL would ask for one at the terminal.
                context.load_cert_chain(self.certfile, self.keyfile, self.password or "")
        except (OSError, ValueError) as error:
            named = (self.ca_certs, self.ca_path, self.certfile, self.keyfile)
            files = ", ".join(filter(None, named))
            error = error if isinstance(error, OSError) else OSError(str(error))
            raise ConfigurationError(
                f"the TLS files of the URL cannot be used ({error.strerror or error}): {files}."
                " ssl_ca_certs, ssl_certfile and ssl_keyfile are paths of PEM files, ssl_password"
                " is that of the key",
                "url",
            ) from None
        return context


Credentials = Callable[[], str | tuple[str, ...]]
"""Gives the password, or user and password, for one new connection."""


def credentials_of(given: Any) -> Credentials | None:
    """What was given as ``credentials=``: a callable, or an object with ``get_credentials()``.

    Raises :class:`ConfigurationError` for anything else.
    """
    if given is None:
        return None
    found = getattr(given, "get_credentials", given)
    if not callable(found):
        raise ConfigurationError(
            "credentials is a callable that gives a password, or a user and a password, or an"
            f" object with such a method get_credentials(), not a {type(given).__name__}",
            "credentials",
        )
    return cast("Credentials", found)


@dataclass(frozen=True)
class Login:
    """What a connection says first."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    tls: Tls | None = None
    credentials: Credentials | None = field(default=None, repr=False)

    def ask(self) -> tuple[str | None, str | None]:
        """The user and the password of a new connection; raises whatever ``credentials`` does."""
        if self.credentials is None:
            return self.username, self.password
        found = self.credentials()
        words = (found,) if isinstance(found, str) else tuple(found)
        if not 1 <= len(words) <= 2 or not all(isinstance(word, str) for word in words):
            raise ConfigurationError(
                "credentials give a password, or a user and a password, as texts", "credentials"
            )
        return (words[0] if len(words) == 2 else self.username), words[-1]


@dataclass(frozen=True)
class Address:
    """Where a server is. Made by :meth:`parse`; its text never shows a password."""

    kind: Kind
    nodes: tuple[Node, ...]  # the server, the sentinels, or some nodes of the cluster
    login: Login
    namespace: str = NAMESPACE
    timeout: float = TIMEOUT
    service: str = ""  # what the sentinels call it
    sentinel_login: Login = Login()
    path: str = ""  # of the embedded server's directory, absolute

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL. Raises :class:`ConfigurationError`, which says what would be right."""
        return _Url(url).address()

    @classmethod
    def of(cls, where: Any, credentials: Any = None) -> Address:
        """The address of a URL, of an address, or of a client of redis-py.

        ``credentials`` are asked for at each new connection to the server, in the place of the
        user and password; see :func:`credentials_of`. Raises :class:`ConfigurationError`.
        """
        if isinstance(where, str):
            address = cls.parse(where)
        elif isinstance(where, Address):
            address = where
        else:
            from gtaskman.redis import borrowed

            address = borrowed.address_of(where)
        asked = credentials_of(credentials)
        if asked is None:
            return address
        if address.kind is Kind.EMBEDDED:
            raise ConfigurationError(
                "an embedded server takes no credentials: leave them out", "credentials"
            )
        return replace(address, login=replace(address.login, credentials=asked))

    def __str__(self) -> str:
        if self.kind is Kind.EMBEDDED:
            return f"embedded:{self.path}"
        scheme = "rediss" if self.login.tls else "redis"
        hosts = ",".join(map(str, self.nodes))
        if self.kind is Kind.SINGLE:
            return f"{scheme}://{hosts}" if self.nodes[0].port else f"redis+socket://{hosts}"
        name = self.kind.name.lower()
        return f"{scheme}+{name}://{hosts}" + (f"/{self.service}" if self.service else "")


class _Url:
    """A URL taken apart."""

    def __init__(self, url: str) -> None:
        scheme, colon, rest = url.partition(":")
        self._scheme = scheme.lower()
        if not colon or self._scheme not in _SCHEMES:
            raise ConfigurationError(_not_ours(self._scheme if colon else ""), "url")
        self._rest, _, query = rest.partition("?")
        self._options = self._read_options(query)

    def address(self) -> Address:
        address = _SCHEMES[self._scheme](self)
        for name in sorted(_OF_CLIENTS & self._options.keys()):
            log.debug("the option %s of the URL is for redis-py, and has no meaning here", name)
            del self._options[name]
        if self._options:
            self._fail(
                f"unknown option {sorted(self._options)[0]!r}; there are namespace, db, timeout,"
                " and with TLS ssl_ca_certs, ssl_ca_path, ssl_ca_data, ssl_certfile, ssl_keyfile,"
                " ssl_password, ssl_cert_reqs, ssl_check_hostname and ssl_min_version"
            )
        return address

    # --- one for each kind

    def single(self) -> Address:
        login, nodes, path = self._net(PORT)
        if len(nodes) != 1:
            self._fail("one host, please; several are for redis+sentinel:// and redis+cluster://")
        return Address(Kind.SINGLE, nodes, self._with_db(login, path), **self._common())

    def socket(self) -> Address:
        netloc, path = self._split()
        login, hosts = self._login(netloc)
        if hosts or len(path) < 2:
            self._fail("the path of the socket must be absolute: redis+socket:///path/to.sock")
        nodes = (Node(unquote(path), 0),)
        return Address(Kind.SINGLE, nodes, self._with_db(login, ""), **self._common())

    def sentinel(self) -> Address:
        login, nodes, path = self._net(SENTINEL_PORT)
        service, _, db = path.strip("/").partition("/")
        if not service:
            self._fail("the service is missing: redis+sentinel://host1,host2/SERVICE/0")
        return Address(
            Kind.SENTINEL,
            nodes,
            self._with_db(login, db),
            service=unquote(service),
            sentinel_login=Login(
                self._options.pop("sentinel_username", None),
                self._options.pop("sentinel_password", None),
                tls=login.tls,
            ),
            **self._common(),
        )

    def cluster(self) -> Address:
        login, nodes, path = self._net(PORT)
        login = self._with_db(login, path)
        if login.db:
            self._fail("a cluster has the database 0 only: leave it out")
        return Address(Kind.CLUSTER, nodes, login, **self._common())

    def embedded(self) -> Address:
        path = unquote(self._rest)
        if path.startswith("//"):
            path = path[2:]
        if not path:
            self._fail("the directory is missing: embedded:PATH, such as embedded:/var/lib/tasks")
        where = str(Path(path).expanduser().absolute())
        return Address(Kind.EMBEDDED, (), Login(), path=where, **self._common())

    # --- their parts

    def _split(self) -> tuple[str, str]:
        if not self._rest.startswith("//"):
            self._fail(f"two slashes are missing: {self._scheme}://...")
        if "#" in self._rest:
            self._fail("a # must be written %23, in the password too")
        netloc, slash, path = self._rest[2:].partition("/")
        return netloc, slash + path

    def _net(self, port: int) -> tuple[Login, tuple[Node, ...], str]:
        netloc, path = self._split()
        login, hosts = self._login(netloc)
        nodes = tuple(self._node(host, port) for host in hosts.split(","))
        return login, nodes, path.strip("/")

    def _login(self, netloc: str) -> tuple[Login, str]:
        who, at, hosts = netloc.rpartition("@")
        user, _, password = who.partition(":")
        tls = self._tls() if self._scheme.startswith("rediss") else None
        if not at:
            return Login(tls=tls), hosts
        if user and not password:
            self._fail(
                "a user without a password; a password alone is written redis://:password@host"
            )
        return Login(unquote(user) or None, unquote(password) or None, tls=tls), hosts

    def _node(self, text: str, default: int) -> Node:
        if not text:
            return Node("localhost", default)
        found = _HOST.fullmatch(text)
        port = int(found["port"] or default) if found else 0
        if found is None or not 0 < port < 65536:
            # The text may be a part of a password: it is not shown.
            self._fail(
                "a host or port cannot be read: they are written host:6379 or [::1]:6379, and a"
                " password with @ : / ? # or % in it must be percent-encoded"
            )
        return Node(found["name"] or found["six"], port)

    def _with_db(self, login: Login, path: str) -> Login:
        text = self._options.pop("db", path) or "0"
        if not text.isdecimal():
            self._fail(
                "the database is a number: redis://host:6379/0 (a / in a password is written %2F)"
            )
        return replace(login, db=int(text))

    def _tls(self) -> Tls:
        take = self._options.pop
        reqs = take("ssl_cert_reqs", "required").lower()
        if reqs not in ("required", "optional", "none"):
            self._fail("ssl_cert_reqs is one of required, optional and none")
        check = take("ssl_check_hostname", "true").lower()
        if check not in _TRUE | _FALSE:
            self._fail("ssl_check_hostname is true or false")
        version = take("ssl_min_version", None)
        if version not in (None, *_VERSIONS):
            self._fail(f"ssl_min_version is one of {' and '.join(_VERSIONS)}")
        return Tls(
            take("ssl_ca_certs", None),
            take("ssl_certfile", None),
            take("ssl_keyfile", None),
            reqs,
            check in _TRUE,
            take("ssl_ca_path", None),
            take("ssl_ca_data", None),
            take("ssl_password", None),
            version,
        )

    def _common(self) -> dict[str, Any]:
        namespace = self._options.pop("namespace", NAMESPACE)
        if not _NAMESPACE.fullmatch(namespace):
            self._fail("the namespace is 1 to 64 of the characters A-Z a-z 0-9 . _ -")
        text = self._options.pop("timeout", str(TIMEOUT))
        try:
            timeout = float(text)
        except ValueError:
            timeout = 0.0
        if not 0 < timeout < 3600:
            self._fail("the timeout is a number of seconds, more than 0")
        return {"namespace": namespace, "timeout": timeout}

    def _read_options(self, query: str) -> dict[str, Any]:
        if "@" in query:  # a part of a password, perhaps: it is not shown
            self._fail("an @ after the ?: in a password a ? is written %3F, in an option an @ %40")
        pairs = parse_qsl(query, keep_blank_values=True)
        options: dict[str, Any] = dict(pairs)
        if len(options) != len(pairs):
            self._fail("an option is given twice")
        return options

    def _fail(self, what: str) -> NoReturn:
        raise ConfigurationError(f"the {self._scheme} URL cannot be used: {what}", "url")


_VERSIONS = ("TLSv1.2", "TLSv1.3")
# Options that redis-py takes, and that say nothing about where the server is or how to log in.
_OF_CLIENTS = frozenset(
    {
        "client_name", "decode_responses", "encoding", "encoding_errors", "health_check_interval",
        "lib_name", "lib_version", "max_connections", "protocol", "retry_on_error",
        "retry_on_timeout", "single_connection_client", "socket_connect_timeout",
        "socket_keepalive", "socket_read_size", "socket_timeout",
    }
)  # fmt: skip
_TRUE, _FALSE = {"true", "yes", "1"}, {"false", "no", "0"}
_SCHEMES: dict[str, Callable[[_Url], Address]] = {
    "redis": _Url.single,
    "rediss": _Url.single,
    "redis+socket": _Url.socket,
    "redis+sentinel": _Url.sentinel,
    "rediss+sentinel": _Url.sentinel,
    "redis+cluster": _Url.cluster,
    "rediss+cluster": _Url.cluster,
    "embedded": _Url.embedded,
}


def _not_ours(scheme: str) -> str:
    if scheme == "unix":
        return (
            "unix:// is kept for a manager that all processes of a host share; the Unix socket of a"
            " Redis server is written redis+socket:///path/to.sock"
        )
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        return f"this is no URL of a server; there are {_EXAMPLES}"
    return f"there is no server behind {scheme}: there are {_EXAMPLES}"
