"""URLs: what each means, and what is said of those that mean nothing."""

from __future__ import annotations

import dataclasses
import re
import ssl

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis.sentinel import Sentinel

from gtaskman.errors import ConfigurationError
from gtaskman.redis.address import Address, Kind, Node, Tls
from gtaskman.redis.topology import slot_of

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("url", "nodes", "db"),
    [
        ("redis://", [("localhost", 6379)], 0),
        ("redis://h", [("h", 6379)], 0),
        ("redis://h:7000/3", [("h", 7000)], 3),
        ("redis://h/?db=4", [("h", 6379)], 4),
        ("redis://[::1]:7000", [("::1", 7000)], 0),
        ("redis+socket:///run/r.sock?db=2", [("/run/r.sock", 0)], 2),
        ("redis+socket:///run/a%20b.sock", [("/run/a b.sock", 0)], 0),
    ],
)
def test_one_server(url, nodes, db):
    address = Address.parse(url)
    assert address.kind is Kind.SINGLE
    assert list(address.nodes) == nodes
    assert address.login.db == db
    assert address.login.tls is None


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_sentinels(scheme):
    address = Address.parse(f"{scheme}+sentinel://u:p@a:1,b/tasks/2?sentinel_password=s")
    assert address.kind is Kind.SENTINEL
    assert address.nodes == (Node("a", 1), Node("b", 26379))
    assert (address.service, address.login.db) == ("tasks", 2)
    assert (address.login.username, address.login.password) == ("u", "p")
    assert address.sentinel_login.password == "s"
    assert (
        (address.login.tls is not None) == (scheme == "rediss") == bool(address.sentinel_login.tls)
    )


def test_a_cluster():
    address = Address.parse("redis+cluster://:p@a:1,b:2?namespace=app&timeout=1.5")
    assert address.kind is Kind.CLUSTER
    assert address.nodes == (Node("a", 1), Node("b", 2))
    assert (address.namespace, address.timeout, address.login.password) == ("app", 1.5, "p")


def test_an_embedded_server(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    for url, path in {
        "embedded:/var/lib/x?namespace=a": "/var/lib/x",
        "embedded:///var/lib/x": "/var/lib/x",
        "embedded:some/where": f"{tmp_path}/some/where",
        "embedded:~/x%3Fy": "/home/somebody/x?y",
    }.items():
        address = Address.parse(url)
        assert (address.kind, address.path) == (Kind.EMBEDDED, path)


def test_tls_options():
    given = "ssl_ca_certs=/c&ssl_certfile=/f&ssl_keyfile=/k&ssl_check_hostname=no"
    tls = Address.parse(f"rediss://h?{given}").login.tls
    assert tls == Tls("/c", "/f", "/k", "required", check_hostname=False)
    assert Address.parse("rediss://h").login.tls == Tls()


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_users_and_passwords_may_hold_anything(user, password):
    from urllib.parse import quote

    login = Address.parse(f"redis://{quote(user, safe='')}:{quote(password, safe='')}@h:1").login
    assert (login.username, login.password) == (user, password)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("unix:///run/x.sock", "redis+socket"),
        ("http://h", "redis://host"),
        ("h:6379", "redis://host"),
        ("", "redis://host"),
        ("redis:h", "two slashes"),
        ("redis://h:x", "host or port"),
        ("redis://h:70000", "host or port"),
        ("redis://h/x", "database"),
        ("redis://a,b", "several"),
        ("redis://u@h", "redis://:password@host"),
        ("redis://h?nonsense=1", "nonsense"),
        ("redis://h?db=1&db=2", "twice"),
        ("redis://h?namespace=a:b", "namespace"),
        ("redis://h?timeout=soon", "timeout"),
        ("redis://h?ssl_ca_certs=/x", "ssl_ca_certs"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
        ("rediss://h?ssl_check_hostname=maybe", "ssl_check_hostname"),
        ("redis+socket://h/x.sock", "absolute"),
        ("redis+socket://", "absolute"),
        ("redis+sentinel://h", "service"),
        ("redis+cluster://h/1", "database 0"),
        ("embedded:", "directory"),
    ],
)
def test_a_url_that_cannot_be_used(url, told):
    with pytest.raises(ConfigurationError, match=re.escape(told)) as caught:
        Address.parse(url)
    assert caught.value.field == "url"


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hush@h:1/0",
        "redis://user:hush@h:x",
        "redis://user:hush/hush@h",
        "redis://user:hush?hush@h",
        "redis://user:hush#hush@h",
        "redis://user:hush:hush,hush@hush@hush:hush",
        "redis+sentinel://:hush@h",
        "redis+sentinel://h/s?sentinel_password=hush",
        "redis://:hush@h?db=x",
    ],
)
def test_a_password_is_never_shown(url):
    try:
        shown = Address.parse(url)
    except ConfigurationError as error:
        shown = error
    assert "hush" not in str(shown)
    assert "hush" not in repr(shown)


@pytest.mark.parametrize(
    ("key", "slot"),
    [("123456789", 12739), ("a{user1000}b", 3443), ("user1000", 3443), ("{}x", 10595)],
)
def test_slots(key, slot):
    assert slot_of(key) == slot


def test_tls_files_that_are_not_there():
    tls = Tls(ca_certs="/nowhere/ca.pem")
    with pytest.raises(ConfigurationError, match=r"/nowhere/ca\.pem"):
        _ = tls.context


def test_options_of_redis_py_that_mean_nothing_here_are_passed_over(caplog):
    caplog.set_level("DEBUG", "gtaskman")
    url = "redis://host/1?max_connections=10&decode_responses=True&health_check_interval=3"
    assert Address.parse(url) == Address.parse("redis://host/1")
    assert "max_connections" in caplog.text
    with pytest.raises(ConfigurationError, match="unknown option 'max_conections'"):
        Address.parse("redis://host?max_conections=10")


def test_more_tls_options():
    url = "rediss://h?ssl_ca_path=/ca&ssl_ca_data=PEM&ssl_password=pw&ssl_min_version=TLSv1.3"
    tls = Address.parse(url).login.tls
    assert (tls.ca_path, tls.ca_data, tls.password, tls.min_version) == (
        "/ca", "PEM", "pw", "TLSv1.3")  # fmt: skip
    assert "pw" not in repr(tls)
    with pytest.raises(ConfigurationError, match="ssl_min_version"):
        Address.parse("rediss://h?ssl_min_version=1")
    damaged = Address.parse("rediss://h?ssl_ca_data=nonsense").login.tls
    with pytest.raises(ConfigurationError, match="TLS files"):
        _ = damaged.context


@pytest.mark.parametrize(
    ("made", "url"),
    [
        (lambda: redis.Redis(), "redis://localhost:6379/0"),
        (lambda: redis.Redis("h", 7, 2, username="u", password="p"), "redis://u:p@h:7/2"),
        (lambda: redis.Redis.from_url("redis://u:p@h:7/2"), "redis://u:p@h:7/2"),
        (lambda: redis.Redis(unix_socket_path="/run/r.sock"), "redis+socket:///run/r.sock"),
        (
            lambda: redis.Redis(
                "h", ssl=True, ssl_ca_certs="ca.pem", ssl_cert_reqs="none", ssl_check_hostname=False
            ),
            "rediss://h?ssl_ca_certs=ca.pem&ssl_cert_reqs=none&ssl_check_hostname=no",
        ),
        (
            lambda: redis.Redis.from_url("rediss://h:1?ssl_password=pw"),
            "rediss://h:1?ssl_password=pw",
        ),
        (
            lambda: Sentinel(
                [("a", 1), ("b", 2)], sentinel_kwargs={"password": "s"}, password="p"
            ).master_for("service", db=3),
            "redis+sentinel://:p@a:1,b:2/service/3?sentinel_password=s",
        ),
    ],
)
def test_the_settings_of_a_client_of_redis_py_are_taken_over(made, url):
    assert dataclasses.replace(Address.of(made()), timeout=5.0) == Address.parse(url)


def test_the_smallest_tls_version_of_redis_py_is_taken_over():
    client = redis.Redis(ssl=True, ssl_min_version=ssl.TLSVersion.TLSv1_3)
    assert Address.of(client).login.tls.min_version == "TLSv1.3"


def test_the_timeout_of_redis_py_is_taken_over():
    assert Address.of(redis.Redis(socket_timeout=2.5)).timeout == 2.5


@pytest.mark.parametrize("given", [3, object(), None])
def test_what_names_no_server_is_refused(given):
    with pytest.raises(ConfigurationError, match=r"or by a redis\.Redis"):
        Address.of(given)


def test_credentials_are_a_callable_or_a_provider():
    provider = redis.UsernamePasswordCredentialProvider("u", "p")
    for credentials, asked in [
        (provider, ("u", "p")),
        (lambda: "secret", ("me", "secret")),
        (lambda: ("you", "secret"), ("you", "secret")),
        (lambda: ("secret",), ("me", "secret")),
    ]:
        login = Address.of("redis://me:old@h", credentials).login
        assert login.ask() == asked
        assert "secret" not in repr(login)
    assert Address.of(redis.Redis(credential_provider=provider)).login.ask() == ("u", "p")
    with pytest.raises(ConfigurationError, match="credentials is a callable"):
        Address.of("redis://h", "a password")
    with pytest.raises(ConfigurationError, match="takes no credentials"):
        Address.of("embedded:/tmp/x", provider)
    with pytest.raises(ConfigurationError, match="as texts"):
        Address.of("redis://h", lambda: (1, 2)).login.ask()
