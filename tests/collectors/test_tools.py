"""What images have to fetch with, tried with this machine's own programs."""

import re
import shutil
import socket
import subprocess
from urllib.parse import urlsplit

import pytest
from pytest_httpserver import HTTPServer

from meshdoctor.collectors import tools
from meshdoctor.collectors.interface import CollectError, Output, RefusedError
from meshdoctor.collectors.tools import Tool
from tests.collectors.conftest import Serve, answer, hang

TOOLS = [tool for tool in tools.TOOLS if tool.program != "pilot-agent"]
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


def test_the_script_for_several_pages_only_reads() -> None:
    """It writes to no file."""
    redirections = set(re.findall(r"\d?[<>]+(?:[&/\w-]+|\"[^\"]*\")", tools.SCRIPT))
    assert redirections == {
        *(">/dev/null", "2>/dev/null", "</proc/uptime", "3>&1", "2>&1", ">&3", "3>&-"),
        # Of bash, to its connection.
        *('3<>"/dev/tcp/127.0.0.1/$1"', "<&3"),
    }
