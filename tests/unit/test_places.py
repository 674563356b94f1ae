"""What URLs name, and what of them is shown."""

from __future__ import annotations

import pytest

from gtaskman import Client, Configuration, ConfigurationError, queues, storages

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    "connect", [queues.connect, lambda url: storages.connect(url, Configuration())]
)
@pytest.mark.parametrize("url", ["valkey://user:s3cret@host", "amqp://:s3cret@host/0"])
def test_an_unknown_url_is_named_by_its_scheme_alone(connect, url):
    with pytest.raises(ConfigurationError) as caught:
        connect(url)
    assert url.partition(":")[0] in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["unix:///run/x.sock?password=s3cret", "unix://user:s3cret@/run/x.sock", "unix://[s3cret/x"],
)
def test_the_url_of_a_socket_that_is_refused_is_not_shown(url):
    with pytest.raises(ConfigurationError, match=r"redis\+socket") as caught:
        Client(url)
    assert "s3cret" not in str(caught.value)
