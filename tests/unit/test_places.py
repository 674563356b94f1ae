"""What URLs name, and what of them is shown."""

from __future__ import annotations

import pytest

from gtaskman import Configuration, ConfigurationError, queues, storages

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
