"""Zipkin is asked where Docker publishes it, and what it is not is said."""

import socket

import pytest
from pytest_httpserver import HTTPServer

from meshdoctor.collectors import zipkin
from meshdoctor.collectors.docker import Engine
from meshdoctor.collectors.interface import Deadline, Options, Recorder, Run, Workers
from meshdoctor.evidence.docker import Container
from meshdoctor.evidence.zipkin import SERVICES, Zipkin
from meshdoctor.snapshot import Snapshot
from tests.topology.containers import container

IMAGE = "openzipkin/zipkin:2.7"


def published(port: int) -> Container:
    bindings = {"9411/tcp": [("127.0.0.1", str(port))]}
    return container("consul_zipkin_1", image=IMAGE, published=bindings)


def collected(deadline: Deadline, *containers: Container) -> Snapshot:
    workers = Workers(1)
    run = Run(Options(), deadline, workers, Recorder(), lambda _message: None)
    engine = Engine("unix:///nonexistent", deadline, "1.41")
    zipkin.collect(run, engine, containers)
    workers.settle(deadline)
    workers.stop()
    engine.close()
    return run.recorder.snapshot("", "")


def test_its_services_are_recorded(httpserver: HTTPServer, deadline: Deadline) -> None:
    """As it answers them."""
    httpserver.expect_request("/api/v2/services").respond_with_json(["details", "reviews"])
    found = Zipkin.load(collected(deadline, published(httpserver.port)))
    assert found.services == ("details", "reviews")


def test_a_refusal_names_the_container(deadline: Deadline) -> None:
    """So that the check knows whose it was."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    found = Zipkin.load(collected(deadline, published(port)))
    assert found.services is None
    assert "consul_zipkin_1" in found.unanswered
    assert "refused" in found.unanswered


@pytest.mark.parametrize("answer", ["<html>", "{}", '{"a": 1}'])
def test_another_server_is_no_zipkin(
    httpserver: HTTPServer, deadline: Deadline, answer: str
) -> None:
    """It answers, so nothing is said of its being unreachable."""
    httpserver.expect_request("/api/v2/services").respond_with_data(answer)
    found = Zipkin.load(collected(deadline, published(httpserver.port)))
    assert found.services is None
    assert "refused" not in found.unanswered


def test_a_mesh_without_one_is_not_asked(deadline: Deadline) -> None:
    """Nothing is recorded, and nothing missed."""
    snapshot = collected(
        deadline, container("web"), container("zipkin", image=IMAGE, status="exited")
    )
    assert (snapshot.names(), snapshot.missing()) == ((), ())
    assert SERVICES not in snapshot.documents
