"""What is collected of a real mesh of Consul's own kind when only Consul's address is given."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from meshdoctor.collectors import collect
from meshdoctor.snapshot import Snapshot
from tests.connect.conftest import running
from tests.connect.mesh import ConnectMesh, temporary_folder


def gather(mesh: ConnectMesh) -> Snapshot:
    return collect(mesh.options(), lambda _message: None)


def reasons(snapshot: Snapshot) -> Mapping[str, str]:
    return {each.document: each.message for each in snapshot.absent}


def sidecars(snapshot: Snapshot) -> Mapping[str, str]:
    """The way that each was reached by, by name."""
    return {
        name.split("/")[1]: json.loads(snapshot.read(name))["way"]
        for name in snapshot.names("envoy/")
        if name.endswith("/access.json")
    }


@pytest.fixture(scope="module")
def guarded() -> Iterator[ConnectMesh]:
    """One with ACLs, so that there are secrets to keep."""
    with running(acl=True) as mesh:
        yield mesh


def test_the_envoys_of_this_machine_are_found(mesh: ConnectMesh) -> None:
    """By their processes, each under the id that Consul knows it by."""
    expected = dict.fromkeys((each.sidecar for each in mesh.services.values()), "process")
    assert sidecars(gather(mesh)) == expected


def test_those_of_another_mesh_are_not(mesh: ConnectMesh) -> None:
    """Though they run here too and have the same names."""
    with temporary_folder() as folder, ConnectMesh(folder, calls={"web": ()}) as other:
        theirs, ours = gather(other), gather(mesh)
    assert sidecars(theirs).keys() == {"web-sidecar-proxy"}
    page = "envoy/web-sidecar-proxy/listeners.json"
    assert str(mesh.services["web"].sidecar_port).encode() in ours.read(page)
    assert str(other.services["web"].sidecar_port).encode() in theirs.read(page)


def test_an_envoy_without_a_bootstrap_to_read_is_found(mesh: ConnectMesh) -> None:
    """Consul's own command hands it over by a pipe: then it is known by where it listens."""
    mesh.stop_program("pay-sidecar-proxy")
    mesh.start_sidecar("pay", piped=True)
    mesh.until(mesh.all_answer, "every call reaches the service it names")
    snapshot = gather(mesh)
    assert sidecars(snapshot)["pay-sidecar-proxy"] == "process"
    info = json.loads(snapshot.read("envoy/pay-sidecar-proxy/server_info.json"))
    assert info["node"]["id"] == "pay-sidecar-proxy"


def test_one_that_does_not_run_is_named(mesh: ConnectMesh) -> None:
    """With how to give its address, should it run elsewhere."""
    mesh.stop_program("db-sidecar-proxy")
    reason = reasons(gather(mesh))["envoy/db-sidecar-proxy/config_dump.json"]
    mesh.start_sidecar("db")
    assert "no Envoy of that name runs on this machine" in reason
    assert "--envoy db-sidecar-proxy=URL" in reason


def test_one_that_was_given_and_does_not_answer_says_why(mesh: ConnectMesh) -> None:
    """To give its address again is no advice, though its process is not there either."""
    mesh.stop_program("db-sidecar-proxy")
    given = replace(mesh.options(), envoys={"db-sidecar-proxy": "http://127.0.0.1:1"})
    reason = reasons(collect(given, lambda _message: None))
    mesh.start_sidecar("db")
    assert "refused (http://127.0.0.1:1)" in reason["envoy/db-sidecar-proxy/config_dump.json"]


def test_no_token_is_recorded(guarded: ConnectMesh) -> None:
    """It stands in each bootstrap, and Envoy shows it in its dump."""
    snapshot = gather(guarded)
    assert len(sidecars(snapshot)) == len(guarded.services)
    token = guarded.token.encode()
    assert [name for name in snapshot.names() if token in snapshot.read(name)] == []
    assert not any(guarded.token in each.message for each in snapshot.absent)
