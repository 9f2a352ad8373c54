"""Start-up: what a command does not need, it does not import."""

import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer

import pytest

from tests.cli.conftest import MESHES, environment

NETWORK = {"docker", "httpx", "paramiko", "requests"}
SLOW = NETWORK | {"rich", "msgspec", "markdown_it", "re2"}
BROKEN = str(MESHES / "broken.tgz")

WATCH = """
import atexit, sys
names = {names!r} - sys.modules.keys()
atexit.register(lambda: print("imported:", *sorted(names & sys.modules.keys()), file=sys.stderr))
sys.argv = ["meshdoctor", *{arguments!r}]
from meshdoctor.cli import main
main()
"""


def imported(
    names: set[str], *arguments: str, folder: Path | None = None, **variables: str
) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", WATCH.format(names=names, arguments=arguments)],
        capture_output=True,
        check=False,
        encoding="utf-8",
        env=environment(**variables),
        cwd=folder,
        timeout=60,
    )
    assert ran.returncode in {0, 1, 3}, ran.stderr
    return ran.stderr.rpartition("imported:")[2].split()


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("check", "--help")])
def test_help_imports_nothing_slow(arguments: tuple[str, ...]) -> None:
    """Whoever asks for help has it at once."""
    assert imported(SLOW, *arguments) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "--snapshot", BROKEN),
        ("check", "--snapshot", BROKEN, "--format", "json"),
        ("demo",),
        ("checks",),
        ("explain", "MD401"),
    ],
)
def test_what_needs_no_network_imports_none_of_it(arguments: tuple[str, ...]) -> None:
    """A recorded mesh is examined offline."""
    assert imported(NETWORK, *arguments) == []


def test_a_docker_socket_is_read_without_the_sdk(tmp_path: Path) -> None:
    """Nor is httpx imported for a Consul without TLS; the engine knows no container."""
    path = tmp_path / "docker.sock"

    class Engine(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"ApiVersion": "1.41"}' if self.path.endswith("/version") else b"[]"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "a test"

    with UnixStreamServer(str(path), Engine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = imported(
            NETWORK, "check", "--docker-host", f"unix://{path}", "--consul", "http://127.0.0.1:1"
        )
        server.shutdown()
    assert found == []


@pytest.mark.parametrize(("mesh", "quoting"), [("broken", ["json"]), ("fixed", [])])
def test_a_diagnosis_imports_no_more_than_it_uses(mesh: str, quoting: list[str]) -> None:
    """Neither what only live meshes, Compose files and plug-ins need, nor rich's console.

    What quotes a document is there where something in it is wrong.
    """
    unused = {"rich.console", "yaml", "re2", "dataclasses", "importlib.metadata"}
    unused |= {"difflib", "gzip", "hashlib", "json", "tempfile", "traceback"}
    unused |= {f"meshdoctor.{name}" for name in ("collectors", "topology.plan", "cli.probe")}
    unused |= {"meshdoctor.report.config", "meshdoctor.routing.rbac"}
    unused |= {"meshdoctor.snapshot.redaction", "meshdoctor.snapshot.merging"}
    unused |= {"meshdoctor.evidence.envoy.certificates"}
    assert imported(unused, "check", "--snapshot", str(MESHES / f"{mesh}.tgz")) == quoting


def test_what_a_mesh_has_no_rules_of_is_not_imported() -> None:
    """Consul's intentions are such rules."""
    rules = {"meshdoctor.routing.rbac"}
    assert imported(rules, "check", "--snapshot", str(MESHES / "connect-healthy.tgz")) == [*rules]


def test_what_reads_settings_is_imported_where_there_are_any(tmp_path: Path) -> None:
    """Nor is what reads TOML where there is no file."""
    reading = {"meshdoctor.settings.reading", "tomllib"}
    near = partial(imported, reading, "checks", folder=tmp_path, MESHDOCTOR_CONFIG="")
    assert near() == []
    (tmp_path / "meshdoctor.toml").write_text('fail-on = "warning"')
    assert near() == sorted(reading)


def test_a_check_is_explained_without_evidence() -> None:
    """Nothing is opened, and nothing decoded."""
    unused = {"tarfile", "hashlib", "importlib.metadata", "meshdoctor.snapshot"}
    unused |= {f"meshdoctor.evidence.envoy.{name}" for name in ("dump", "pages", "routes")}
    assert imported(unused, "explain", "MD401") == []


def test_a_check_is_explained_without_the_others() -> None:
    """Only its own module is imported."""
    others = {"misrouted_call", "mixed_protocol_port", "inbound_collision"}
    names = {f"meshdoctor_checks.traffic.{name}" for name in (*others, "tcp_listener_collision")}
    assert imported(names, "explain", "MD401") == [
        "meshdoctor_checks.traffic.tcp_listener_collision"
    ]


@pytest.mark.parametrize("format_", ["text", "json", "markdown", "junit", "sarif"])
def test_only_the_page_needs_a_template(format_: str) -> None:
    """A format that nobody asked for costs nothing."""
    assert imported({"jinja2", "markdown_it"}, "demo", "--format", format_) in (
        [],
        ["markdown_it"],
    )
    assert "jinja2" in imported({"jinja2"}, "demo", "--format", "html")


ENDING = """
import atexit, sys, threading, time

def later():
    time.sleep(0.2)
    print("thread done")

class Held:
    def __del__(self):
        sys.stderr.write("taken apart")

held = Held()
sys.modules["not.importable"] = None
atexit.register(print, "atexit heard")
threading.Thread(target=later).start()
sys.argv = ["meshdoctor", "explain", "MD000"]
from meshdoctor.__main__ import main
main()
"""


def test_the_end_is_pythons_own_but_for_taking_modules_apart() -> None:
    """Threads are waited for, `atexit` is heard, and the exit code stays."""
    ran = subprocess.run(
        [sys.executable, "-c", ENDING],
        capture_output=True,
        check=False,
        encoding="utf-8",
        env=environment(),
        timeout=60,
    )
    assert ran.stdout.splitlines() == ["thread done", "atexit heard"]
    assert "no check has the code or name 'MD000'" in ran.stderr
    assert "taken apart" not in ran.stderr
    assert ran.returncode == 2
