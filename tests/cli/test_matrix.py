"""`meshdoctor matrix`: what it prints where, and its exit code."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshdoctor.cli import EXIT_CLEAN, EXIT_FINDINGS, EXIT_NO_VERDICT, EXIT_USAGE, cli
from meshdoctor.snapshot import open_snapshot

MESHES = Path(__file__).parents[2] / "fixtures" / "meshes"


def run(*arguments: str, mesh: str | Path = "broken") -> Result:
    path = mesh if isinstance(mesh, Path) else MESHES / f"{mesh}.tgz"
    return CliRunner().invoke(cli, ["matrix", "--snapshot", str(path), *arguments])


def cut(folder: Path, name: str, *without: str) -> Path:
    """A recording without some of its documents, as a folder."""
    snapshot = open_snapshot(MESHES / f"{name}.tgz")
    for document in snapshot.names():
        if not document.startswith(without):
            path = folder / document
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(snapshot.read(document))
    return folder


def rows(result: Result) -> Sequence[tuple[str, str]]:
    return [(each["caller"], each["callee"]) for each in json.loads(result.stdout)["pairs"]]


def test_a_wrong_call_gives_exit_code_1() -> None:
    """The table says it all: what --fail-on would make of luck is no news then."""
    result = run()
    assert result.exit_code == EXIT_FINDINGS
    assert "15 of 24 calls reach the wrong service" in result.stdout
    assert result.stderr == ""


def test_a_healthy_mesh_gives_exit_code_0_and_says_so() -> None:
    """Nothing is said beside it."""
    result = run(mesh="fixed")
    assert (result.exit_code, result.stderr) == (EXIT_CLEAN, "")
    assert "All 24 calls reach the service they name." in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), EXIT_CLEAN),
        (("--fail-on", "error"), EXIT_CLEAN),
        (("--fail-on", "warning"), EXIT_FINDINGS),
        (("--fail-on", "info"), EXIT_FINDINGS),
    ],
)
def test_luck_alone_fails_only_where_it_is_asked_for(
    arguments: tuple[str, ...], code: int
) -> None:
    """Luck is a warning; where it gives no exit code, stderr says how it would."""
    result = run("--callee", "reviews", *arguments)
    assert result.exit_code == code
    assert ("6 calls are right only by luck" in result.stderr) is (code == EXIT_CLEAN)


@pytest.mark.parametrize("format_", ["text", "json"])
def test_the_exit_code_does_not_depend_on_the_format(format_: str) -> None:
    """JSON with wrong calls fails as the table does."""
    assert run("--format", format_).exit_code == EXIT_FINDINGS
    assert run("--format", format_, mesh="fixed").exit_code == EXIT_CLEAN


def test_callers_and_callees_are_chosen_by_globs() -> None:
    """Patterns of one option add up, those of two narrow each other."""
    result = run("--format", "json", "--caller", "*reviews-v[12]*", "--callee", "r*")
    assert rows(result) == [
        (f"consul_reviews-v{n}_1", callee) for n in (1, 2) for callee in ("ratings", "reviews")
    ]
    both = run("--format", "json", "--callee", "details", "--callee", "ratings")
    assert {callee for _, callee in rows(both)} == {"details", "ratings"}


def test_only_wrong_calls_may_be_shown() -> None:
    """The summary still counts all."""
    result = run("--format", "json", "--wrong")
    document = json.loads(result.stdout)
    assert {each["verdict"] for each in document["pairs"]} == {"wrong"}
    assert document["summary"] == {
        "wrong": 15,
        "nowhere": 0,
        "unknown": 0,
        "by luck": 6,
        "right": 3,
    }


def test_a_pattern_that_fits_nobody_is_wrong_usage() -> None:
    """It names who there is, so that a misspelt name is no clean bill of health."""
    result = run("--caller", "reviews")
    assert result.exit_code == EXIT_USAGE
    assert "no caller fits 'reviews'; there are consul_details-v1_1" in result.stderr
    assert run("--callee", "nobody").exit_code == EXIT_USAGE


def test_without_sidecars_there_is_no_verdict(tmp_path: Path) -> None:
    """Nothing goes to stdout, and stderr says what is missing."""
    result = run(mesh=cut(tmp_path, "fixed", "envoy/"))
    assert (result.exit_code, result.stdout) == (EXIT_NO_VERDICT, "")
    assert "no sidecar's configuration could be read" in result.stderr


def test_where_some_calls_are_unknown_it_is_said(tmp_path: Path) -> None:
    """What is known decides the exit code; what is not is said aloud."""
    path = cut(tmp_path, "fixed", "envoy/consul_ratings-v1-sidecar_1/")
    result = run(mesh=path)
    assert result.exit_code == EXIT_CLEAN
    assert result.stderr == "4 calls are not known.\n"
    assert "4 of 24 calls cannot be told, 20 are right." in result.stdout
    only = run("--caller", "*ratings*", mesh=path)
    assert only.exit_code == EXIT_NO_VERDICT


def test_an_unreadable_snapshot_gives_no_verdict(tmp_path: Path) -> None:
    """As for `check`."""
    assert run(mesh=tmp_path / "none.tgz").exit_code == EXIT_NO_VERDICT


def test_writes_several_formats_at_once(tmp_path: Path) -> None:
    """--output beside --format, both of the same calls."""
    file, text = tmp_path / "matrix.json", tmp_path / "matrix.txt"
    result = run("--output", f"json={file}", "--output", f"text={text}", "--width", "80")
    assert "consul_details-v1_1" in result.stdout
    assert json.loads(file.read_text(encoding="utf-8"))["schema"] == "meshdoctor.matrix/v1"
    assert "15 of 24 calls" in text.read_text(encoding="utf-8")


def test_the_same_mesh_gives_the_same_document() -> None:
    """Nothing in it depends on the run."""
    assert run("--format", "json").stdout == run("--format", "json").stdout
