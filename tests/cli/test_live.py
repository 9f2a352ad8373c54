"""`meshdoctor check` where there is nothing, or nobody answers."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from meshdoctor.report.json import schema
from tests.cli.conftest import command, environment, process


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@pytest.fixture
def nothing(tmp_path: Path) -> dict[str, str]:
    """An environment that leads nowhere."""
    return {
        "HOME": str(tmp_path),
        "DOCKER_HOST": f"tcp://127.0.0.1:{closed_port()}",
        "CONSUL_HTTP_ADDR": f"http://127.0.0.1:{closed_port()}",
    }


def test_nothing_there_is_said_in_plain_words(nothing: dict[str, str]) -> None:
    """What was looked for, why it failed, and what to type; no traceback."""
    ran = process("check", **nothing)
    assert (ran.code, ran.stdout) == (3, "")
    assert "nothing could be examined" in ran.stderr
    for said in ("docker", "consul", "refused", "--snapshot", "meshdoctor demo"):
        assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "object at 0x" not in ran.stderr


def test_nothing_there_is_a_report_for_programs(nothing: dict[str, str], tmp_path: Path) -> None:
    """Valid, with the verdict unknown, and in files too."""
    file = tmp_path / "report.json"
    ran = process("check", "--format", "json", "--output", f"json={file}", **nothing)
    assert ran.code == 3
    for text in (ran.stdout, file.read_text(encoding="utf-8")):
        report = json.loads(text)
        jsonschema.validate(report, schema())
        assert report["verdict"] == "unknown"
        assert report["target"]["kind"] == "live"
        states = {each["name"]: each["state"] for each in report["coverage"]["sources"]}
        assert (states["docker"], states["consul"]) == ("missing", "missing")


def test_nothing_there_leaves_no_snapshot(nothing: dict[str, str], tmp_path: Path) -> None:
    """An empty file would look like evidence."""
    file = tmp_path / "evidence.tgz"
    ran = process("snapshot", "-o", file, **nothing)
    assert (ran.code, ran.stdout) == (3, "")
    assert not file.exists()


def test_a_sidecar_given_by_hand_that_does_not_answer_is_named(nothing: dict[str, str]) -> None:
    """Unreachable, with the reason."""
    url = f"http://127.0.0.1:{closed_port()}"
    ran = process("check", "--format", "json", "--envoy", f"web={url}", **nothing)
    assert ran.code == 3
    (sidecar,) = json.loads(ran.stdout)["coverage"]["sidecars"]["unreachable"]
    assert sidecar["name"] == "web"
    assert "refused" in sidecar["reason"]
    ran = process("check", "--envoy", f"web={url}", **nothing)
    assert "  sidecar web: its admin interface was not reached (url: connection" in ran.stderr
    assert "no sidecar was found" not in ran.stderr


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port: int = listener.getsockname()[1]
        yield port


def test_interrupted_is_130(silent: int, nothing: dict[str, str]) -> None:
    """Ctrl-C while waiting for an answer: one line, no traceback, at once."""
    arguments: Any = command(
        *("check", "--consul", f"http://127.0.0.1:{silent}"),
        *("--timeout", "50", "--request-timeout", "50"),
    )
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment(**nothing),
    ) as running:
        time.sleep(2)
        running.send_signal(signal.SIGINT)
        stdout, stderr = running.communicate(timeout=20)
    assert (running.returncode, stdout) == (130, "")
    assert stderr.strip() == "meshdoctor: interrupted"


def test_who_never_answers_costs_only_the_deadline(silent: int, nothing: dict[str, str]) -> None:
    """The reason says for how long it was waited."""
    ran = process(
        *("check", "--consul", f"http://127.0.0.1:{silent}"),
        *("--timeout", "2", "--request-timeout", "1"),
        **nothing,
    )
    assert ran.code == 3
    assert "consul" in ran.stderr
