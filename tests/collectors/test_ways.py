"""What images have to fetch with, tried with this machine's own programs; ways in their order."""

import shutil
import socket
import subprocess
from collections.abc import Sequence
from urllib.parse import urlsplit

import pytest
from pytest_httpserver import HTTPServer

from meshdoctor.collectors import ways
from meshdoctor.collectors.http import Get
from meshdoctor.collectors.interface import (
    CollectError,
    Deadline,
    HungError,
    NotAnsweringError,
    Output,
    RefusedError,
)
from meshdoctor.collectors.ways import Tool
from tests.collectors.conftest import Serve, answer, hang

TOOLS = [tool for tool in ways.TOOLS if tool.program != "pilot-agent"]
QUERY = "format=json&filter=%5E%28a%7Cb%29%5C.%24"  # as statistics are asked for


@pytest.fixture(params=TOOLS, ids=str)
def tool(request: pytest.FixtureRequest) -> Tool:
    chosen: Tool = request.param
    if shutil.which(chosen.program) is None:
        pytest.skip(f"this machine has no {chosen.program}")
    return chosen


def fetch(tool: Tool, url: str, seconds: float = 5) -> bytes:
    port = urlsplit(url).port
    assert port is not None
    command = tool.command(port, f"/page?{QUERY}", seconds)
    done = subprocess.run(command, capture_output=True, check=False)
    return tool.body(Output(done.returncode, done.stdout, done.stderr.decode()))


def test_the_body_comes_as_it_was_sent(tool: Tool, httpserver: HTTPServer) -> None:
    """Also where the whole answer is printed and must be taken apart here."""
    body = bytes(range(256)) * 1000
    httpserver.expect_request("/page", query_string=QUERY).respond_with_data(body)
    assert fetch(tool, httpserver.url_for("")) == body


def test_a_refusal_is_told_apart(tool: Tool) -> None:
    """No other tool need be tried on a port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    # GNU's wget says nothing at all with -q: another tool is then asked.
    with pytest.raises(CollectError if tool.program == "wget" else RefusedError):
        fetch(tool, f"http://127.0.0.1:{port}")


def test_an_error_status_is_no_page(tool: Tool, httpserver: HTTPServer) -> None:
    """Its body must not pass for the page."""
    httpserver.expect_request("/page").respond_with_data("no such page", status=404)
    with pytest.raises(CollectError):
        fetch(tool, httpserver.url_for(""))


def test_a_server_that_hangs_ends_the_command(tool: Tool, serve: Serve) -> None:
    """No process is left behind in the container."""
    with pytest.raises(CollectError):
        fetch(tool, serve(hang), seconds=1)


def test_an_answer_that_breaks_off_is_no_page(tool: Tool, serve: Serve) -> None:
    """Half a dump would be taken for a whole mesh."""
    with pytest.raises(CollectError):
        fetch(tool, serve(answer(b"half", length=8)), seconds=2)


class FakeEngine:
    """Runs no container: answers by program."""

    def __init__(self, outputs: dict[str, Output]) -> None:
        self.outputs = outputs
        self.ran: list[str] = []

    def execute(self, _container: str, command: Sequence[str], *, user: str = "") -> Output:  # noqa: ARG002 # as the engine's
        self.ran.append(command[0])
        return self.outputs.get(command[0], Output(127, b"", f"{command[0]}: not found"))


def page(get: Get) -> bytes:
    return get("/page")


def by_exec(engine: FakeEngine, deadline: Deadline) -> bytes:
    way = ways.ByExec(engine, "c", [15000, 19000], deadline)  # type: ignore[arg-type] # enough of an engine
    return way.read(page)


def test_one_exec_finds_what_the_image_has(deadline: Deadline) -> None:
    """Only what is there is tried."""
    engine = FakeEngine(
        {"sh": Output(0, b"/usr/bin/wget\nwget\n", ""), "wget": Output(0, b"ok", "")}
    )
    assert by_exec(engine, deadline) == b"ok"
    assert engine.ran == ["sh", "wget"]


def test_without_a_shell_each_is_tried(deadline: Deadline) -> None:
    """Distroless images of Istio's have pilot-agent and nothing else."""
    engine = FakeEngine({"pilot-agent": Output(0, b"ok", "")})
    assert by_exec(engine, deadline) == b"ok"
    assert engine.ran == ["sh", "curl", "wget", "pilot-agent"]


def test_a_refused_port_is_tried_once(deadline: Deadline) -> None:
    """The next port is, with the same tool."""
    engine = FakeEngine(
        {"sh": Output(0, b"curl\nbash\n", ""), "curl": Output(7, b"", "curl: (7) Failed")}
    )
    with pytest.raises(NotAnsweringError, match=r"connection refused \(15000, 19000\)"):
        by_exec(engine, deadline)
    assert engine.ran == ["sh", "curl", "curl"]


def test_a_hung_admin_interface_is_not_asked_again(deadline: Deadline) -> None:
    """Each further tool would cost another timeout."""
    engine = FakeEngine(
        {"sh": Output(0, b"curl\nbash\n", ""), "curl": Output(28, b"", "curl: (28) timed out")}
    )
    with pytest.raises(HungError):
        by_exec(engine, deadline)
    assert engine.ran == ["sh", "curl"]


def test_an_image_with_nothing_says_what_would_do(deadline: Deadline) -> None:
    """So that somebody can add it."""
    engine = FakeEngine({"sh": Output(0, b"", "")})
    with pytest.raises(NotAnsweringError, match="none of curl, wget, pilot-agent, python3, bash"):
        by_exec(engine, deadline)
