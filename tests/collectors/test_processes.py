"""What a bootstrap tells of an Envoy that runs on this machine."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdoctor.collectors.processes import (
    Bootstrap,
    UnreadError,
    bootstrap_of,
    told_admin,
    url_of,
)

SECRET = "0f1e2d3c-secret"  # noqa: S105 # made up
# As `consul connect envoy -bootstrap` writes it, both spellings in one message.
CONSULS = {
    "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 19000}}},
    "node": {"cluster": "web", "id": "web-sidecar-proxy"},
    "static_resources": {
        "clusters": [
            {
                "name": "local_agent",
                "loadAssignment": {
                    "endpoints": [
                        {
                            "lbEndpoints": [
                                {
                                    "endpoint": {
                                        "address": {
                                            "socket_address": {
                                                "address": "127.0.0.1",
                                                "port_value": 8502,
                                            }
                                        }
                                    }
                                }
                            ]
                        }
                    ]
                },
            }
        ]
    },
    "dynamic_resources": {"initial_metadata": [{"key": "x-consul-token", "value": SECRET}]},
}
NAMES = (
    *("admin", "address", "socket_address", "port_value", "node", "id", "static_resources"),
    *("clusters", "loadAssignment", "endpoints", "lbEndpoints", "endpoint"),
)
READ = Bootstrap("web-sidecar-proxy", ("127.0.0.1", 19000), (("127.0.0.1", 8502),))


def read(*command: str) -> Bootstrap:
    """Of a process whose files are this one's own."""
    return bootstrap_of(os.getpid(), command)


@pytest.mark.parametrize("option", ["-c", "--config-path"])
def test_the_file_is_read(tmp_path: Path, option: str) -> None:
    """By either name of the option."""
    file = tmp_path / "bootstrap.json"
    file.write_text(json.dumps(CONSULS))
    assert read("envoy", option, str(file), "-l", "info") == READ
    assert told_admin(os.getpid(), ["envoy", option, str(file)]) == ("127.0.0.1", 19000)


def test_a_file_is_where_the_process_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its own working directory."""
    (tmp_path / "bootstrap.json").write_text(json.dumps(CONSULS))
    monkeypatch.chdir(tmp_path)
    assert read("envoy", "-c", "bootstrap.json") == READ


def test_yaml_is_read_too(tmp_path: Path) -> None:
    """As many write theirs."""
    file = tmp_path / "envoy.yaml"
    file.write_text(
        "node: {id: web}\nadmin:\n  address:\n    socket_address: "
        "{address: 0.0.0.0, port_value: 9901}\n"
    )
    assert read("envoy", "-c", str(file)) == Bootstrap("web", ("0.0.0.0", 9901))  # noqa: S104 # only read


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    """As it does for Envoy, which lays it over the file."""
    file = tmp_path / "bootstrap.json"
    file.write_text(json.dumps(CONSULS))
    other = "admin: {address: {socket_address: {address: '::1', port_value: 9902}}}"
    found = read("envoy", "-c", str(file), "--config-yaml", other)
    assert (found.node, found.admin) == ("web-sidecar-proxy", ("::1", 9902))


def test_a_pipe_is_left_alone(tmp_path: Path) -> None:
    """What was written into it is meant for the Envoy."""
    pipe = tmp_path / "bootstrap.json"
    os.mkfifo(pipe)
    with pytest.raises(UnreadError, match="is no file"):
        read("envoy", "-c", str(pipe))


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Out of a container, it would lead to files of this machine."""
    file = tmp_path / "bootstrap.json"
    file.write_text(json.dumps(CONSULS))
    link = tmp_path / "link.json"
    link.symlink_to(file)
    with pytest.raises(UnreadError):
        read("envoy", "-c", str(link))


def test_one_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    """And what leaves none."""
    with pytest.raises(UnreadError, match="is gone, as `consul connect envoy` leaves none"):
        read("envoy", "--config-path", str(tmp_path / "envoy-1a2b-bootstrap.json"))


def test_no_bootstrap_at_all_is_said() -> None:
    """Not every program of that name is an Envoy of a mesh."""
    with pytest.raises(UnreadError, match="names no bootstrap"):
        read("envoy", "--version")


def test_a_reason_repeats_nothing_of_it(tmp_path: Path) -> None:
    """What cannot be decoded may be a piece of a token."""
    file = tmp_path / "bootstrap.json"
    file.write_text(json.dumps(CONSULS).replace('"node"', '"node'))
    with pytest.raises(UnreadError) as caught:
        read("envoy", "-c", str(file))
    assert SECRET not in str(caught.value)


@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "replace")))
def test_whatever_stands_there_ends_in_a_reason(text: str) -> None:
    """Nothing else comes out of it."""
    try:
        found = read("envoy", "--config-yaml", text)
    except UnreadError:
        return
    assert isinstance(found, Bootstrap)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(NAMES),
                inner,
            )
        ),
    )
)
def test_fields_of_other_types_end_in_a_reason(value: object) -> None:
    """Where the names are right and what they hold is not."""
    try:
        found = read("envoy", "--config-yaml", json.dumps(value))
    except UnreadError:
        return
    assert isinstance(found, Bootstrap)


@pytest.mark.parametrize(
    ("place", "url"),
    [
        (("127.0.0.2", 19001), "http://127.0.0.2:19001"),
        (("0.0.0.0", 19000), "http://127.0.0.1:19000"),  # noqa: S104 # only read
        (("::", 19000), "http://[::1]:19000"),
    ],
)
def test_what_listens_everywhere_is_asked_on_localhost(place: tuple[str, int], url: str) -> None:
    """Every other address is asked as it is."""
    assert url_of(place) == url
