"""`meshdoctor trace`: what it prints where, and its exit code."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshdoctor.cli import EXIT_CLEAN, EXIT_FINDINGS, EXIT_NO_VERDICT, EXIT_USAGE, cli
from tests.cli.test_matrix import cut

MESHES = Path(__file__).parents[2] / "fixtures" / "meshes"


def run(*arguments: str, mesh: str | Path = "broken") -> Result:
    path = mesh if isinstance(mesh, Path) else MESHES / f"{mesh}.tgz"
    return CliRunner().invoke(cli, ["trace", "--snapshot", str(path), *arguments])


@pytest.mark.parametrize(
    ("mesh", "arguments", "code", "verdict"),
    [
        ("broken", ("details", "http://ratings:9080/"), EXIT_FINDINGS, "WRONG: "),
        ("broken", ("details", "http://reviews:9080/"), EXIT_CLEAN, "BY LUCK: "),
        ("broken", ("details", "http://ratings/"), EXIT_FINDINGS, "NOWHERE: "),
        ("fixed", ("details", "http://ratings:9080/"), EXIT_CLEAN, "RIGHT: "),
        ("connect-healthy", ("web", "http://api/"), EXIT_CLEAN, "RIGHT: "),
        ("connect-collision", ("web", "http://api/"), EXIT_FINDINGS, "WRONG: "),
    ],
)
def test_the_exit_code_says_the_verdict(
    mesh: str, arguments: tuple[str, str], code: int, verdict: str
) -> None:
    """The same in every format."""
    result = run(*arguments, mesh=mesh)
    assert (result.exit_code, result.stderr) == (code, "")
    assert f"\n{verdict}" in result.stdout
    as_json = run(*arguments, "--format", "json", mesh=mesh)
    assert as_json.exit_code == code
    assert json.loads(as_json.stdout)["verdict"] == verdict.removesuffix(": ").lower()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("review", "http://ratings:9080/"), "may mean any of consul_reviews-v1_1"),
        (("productpag", "http://ratngs:9080/"), "near are ratings"),
        (("nobody", "http://ratings:9080/"), "no workload, sidecar or service"),
        (("details", "ratings"), "as in http://reviews:9080/"),
        (("details", "ratings:9080/x"), "as in http://ratings:9080/x"),
        (("http://ratings:9080/", "details"), "is a URL: the caller comes first"),
        (("details", "http://ratings:9080/", "-H", "end-user jason"), "write 'Name: value'"),
        (("details", "http://ratings:9080/", "-X", "GET IT"), "is no HTTP method"),
    ],
)
def test_what_is_not_understood_is_wrong_usage(arguments: tuple[str, ...], message: str) -> None:
    """Exit code 2, nothing on stdout, and what to write instead."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (EXIT_USAGE, "")
    assert message in " ".join(result.stderr.split())


def test_headers_and_method_are_followed() -> None:
    """A Host header by hand leads to another virtual host."""
    result = run("details", "http://172.28.0.5:9080/", "-X", "POST", mesh="fixed")
    assert result.exit_code == EXIT_FINDINGS
    assert "status 404, response flag NR" in " ".join(result.stdout.split())
    named = run(
        "details",
        "http://172.28.0.5:9080/",
        "-H",
        "Host: reviews",
        "-X",
        "POST",
        mesh="fixed",
    )
    assert named.exit_code == EXIT_CLEAN
    assert "the first route that takes POST /" in named.stdout


def test_without_the_sidecar_there_is_no_verdict(tmp_path: Path) -> None:
    """What is known is printed all the same: who calls, what is meant, and why no more."""
    path = cut(tmp_path, "fixed", "envoy/consul_ratings-v1-sidecar_1/")
    result = run("ratings", "http://details:9080/", mesh=path)
    assert result.exit_code == EXIT_NO_VERDICT
    assert "UNKNOWN: its sidecar consul_ratings-v1-sidecar_1 could not be read" in result.stdout


def test_an_unreadable_snapshot_gives_no_verdict(tmp_path: Path) -> None:
    """As for `check`."""
    result = run("details", "http://ratings:9080/", mesh=tmp_path / "none.tgz")
    assert result.exit_code == EXIT_NO_VERDICT


def test_writes_a_file_too(tmp_path: Path) -> None:
    """--output beside --format."""
    file = tmp_path / "trace.json"
    result = run("details", "http://ratings:9080/", "--output", f"json={file}")
    assert "consul_details-v1_1 calls http://ratings:9080/" in result.stdout
    assert json.loads(file.read_text(encoding="utf-8"))["schema"] == "meshdoctor.trace/v1"
