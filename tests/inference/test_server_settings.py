"""Settings of the client of servers: each is checked when it is built."""

from __future__ import annotations

import pickle
import textwrap

import pytest
import yaml

from kvg.config.settings import instantiate
from kvg.errors import ConfigError
from kvg.inference.server import Server
from tests.inference.conftest import as_it_is


def test_the_example_of_a_project_file_is_one():
    lines = Server.__doc__.split("In a project file::")[1].split("A hosted one")[0]
    (setting,) = yaml.safe_load(textwrap.dedent(lines)).values()
    server = instantiate(setting, "client")
    assert (server.url, server.concurrency) == ("http://127.0.0.1:8000/v1", 64)


def test_a_server_is_built_and_copied_without_a_network():
    server = Server("http://127.0.0.1:9/v1/", "org/seer", temperature=0.5, extra={"top_k": 3})
    again = pickle.loads(pickle.dumps(server))
    assert again == server
    assert again.url == "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", "127.0.0.1:8000/v1"),
        ("url", "ftp://host/v1"),
        ("url", "http://host:99999/v1"),
        ("url", "http://host/v1?a=b"),
        ("url", 8000),
        ("model", ""),
        ("model", None),
        ("temperature", -0.1),
        ("temperature", "0.5"),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0),
        ("top_p", 1.1),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("seed", True),
        ("concurrency", 0),
        ("retries", -1),
        ("timeout", 0),
        ("backoff", -1),
        ("requests_per_minute", 0),
        ("price_prompt", -1),
        ("check_model", "yes"),
        ("extra", [1]),
        ("extra", {"a": object()}),
        ("extra", {"seed": 3}),
        ("key_env", "NO_SUCH_VARIABLE_OF_KVG"),
    ],
)
def test_a_setting_that_cannot_work_is_named_before_anything_is_asked(field, value):
    with pytest.raises(ConfigError, match=f"^{field}"):
        Server(**{"url": "http://127.0.0.1:9/v1", "model": "m", field: value})


def test_tries_are_at_least_one(tmp_path):
    with pytest.raises(ConfigError, match="max_attempts"):
        Server("http://127.0.0.1:9/v1", "m").ask([], as_it_is, tmp_path, max_attempts=0)
