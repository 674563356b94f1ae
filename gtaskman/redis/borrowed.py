"""The settings of a client of redis-py, as an address: what users have configured already.

Nothing of redis-py is imported, and none of its connections is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gtaskman.errors import ConfigurationError
from gtaskman.redis.address import (
    PORT,
    SENTINEL_PORT,
    TIMEOUT,
    Address,
    Kind,
    Login,
    Node,
    Tls,
    credentials_of,
)

_CERT_REQS = {0: "none", 1: "optional", 2: "required"}  # as in the module ssl


def address_of(client: Any) -> Address:
    """Where a ``redis.Redis``, one of a ``Sentinel``, or a ``RedisCluster`` connects to.

    Raises :class:`ConfigurationError` for anything else.
    """
    pool = getattr(client, "connection_pool", None)
    if pool is not None and hasattr(pool, "sentinel_manager"):
        return _of_sentinels(pool)
    if pool is not None and hasattr(pool, "connection_kwargs"):
        return _of_one(pool)
    nodes = getattr(client, "nodes_manager", None)
    if nodes is not None and hasattr(nodes, "startup_nodes"):
        return _of_cluster(nodes)
    raise ConfigurationError(
        f"a server is named by its URL, or by a redis.Redis for it, not by a"
        f" {type(client).__name__}",
        "url",
    )


def _of_one(pool: Any) -> Address:
    told = pool.connection_kwargs
    path = told.get("path")
    node = Node(str(path), 0) if path else _node(told, PORT)
    return Address(Kind.SINGLE, (node,), _login(pool, told), timeout=_timeout(told))


def _of_sentinels(pool: Any) -> Address:
    sentinels = [each.connection_pool for each in pool.sentinel_manager.sentinels]
    return Address(
        Kind.SENTINEL,
        _nodes((each.connection_kwargs for each in sentinels), SENTINEL_PORT),
        _login(pool, pool.connection_kwargs),
        timeout=_timeout(pool.connection_kwargs),
        service=pool.service_name,
        sentinel_login=_login(sentinels[0], sentinels[0].connection_kwargs),
    )


def _of_cluster(manager: Any) -> Address:
    known = [vars(each) for each in manager.startup_nodes.values()]
    told = manager.connection_kwargs
    return Address(Kind.CLUSTER, _nodes(known, PORT), _login(manager, told), timeout=_timeout(told))


def _nodes(told: Iterable[Mapping[str, Any]], port: int) -> tuple[Node, ...]:
    return tuple(_node(each, port) for each in told)


def _node(told: Mapping[str, Any], port: int) -> Node:
    return Node(str(told.get("host") or "localhost"), int(told.get("port") or port))


def _login(pool: Any, told: Mapping[str, Any]) -> Login:
    return Login(
        told.get("username"),
        told.get("password"),
        int(told.get("db") or 0),
        _tls(told) if _has_tls(pool, told) else None,
        credentials_of(told.get("credential_provider")),
    )


def _has_tls(pool: Any, told: Mapping[str, Any]) -> bool:
    kind = getattr(getattr(pool, "connection_class", None), "__name__", "")
    return "SSL" in kind or bool(told.get("ssl"))


def _tls(told: Mapping[str, Any]) -> Tls:
    version = told.get("ssl_min_version")
    reqs = told.get("ssl_cert_reqs", "required")
    return Tls(
        told.get("ssl_ca_certs"),
        told.get("ssl_certfile"),
        told.get("ssl_keyfile"),
        _CERT_REQS.get(reqs, reqs) if reqs is not None else "none",
        bool(told.get("ssl_check_hostname", True)),
        told.get("ssl_ca_path"),
        told.get("ssl_ca_data"),
        told.get("ssl_password"),
        None if version is None else version.name.replace("_", "."),
    )


def _timeout(told: Mapping[str, Any]) -> float:
    return float(told.get("socket_timeout") or TIMEOUT)
