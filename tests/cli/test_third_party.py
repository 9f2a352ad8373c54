"""Checks of others, from a package and from a file: run, listed, explained, and harmless."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import MESHES, Run, environment, process

CHECK = '''
from collections.abc import Iterator

from meshdoctor.check import check
from meshdoctor.findings import Finding, Severity, Subject, SubjectKind
from meshdoctor.topology import Mesh


@check(code="ACME001", severity=Severity.WARNING, since="1")
def no_cats(mesh: Mesh) -> Iterator[Finding]:
    """No service of the mesh is about cats.

    ## Why it matters

    People expect cats.

    ## How it is found

    No name of a service holds the word.

    ## How to fix it

    Add one.
    """
    names = [each.name for each in mesh.applications]
    yield Finding(
        f"None of {', '.join(names)} is about cats.",
        tuple(Subject(SubjectKind.SERVICE, name) for name in names),
    )
    {after}


CHECKS = (no_cats,)
'''
FIXED = MESHES / "fixed.tgz"


def write(path: Path, after: str = "") -> Path:
    path.write_text(CHECK.replace("{after}", after), encoding="utf-8")
    return path


@pytest.fixture(params=["file", "folder", "package"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, tuple[str, ...], str]:
    """Where the check is written, the arguments that name it, and the path to import it from."""
    file = tmp_path / "acme_cats.py"
    if request.param == "file":
        return file, ("--checks", str(file)), ""
    if request.param == "folder":
        return file, ("--checks", str(tmp_path)), ""
    info = tmp_path / "acme_cats-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-cats\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[meshdoctor.checks]\nacme = acme_cats:CHECKS\n")
    return file, (), str(tmp_path)


Site = tuple[Path, tuple[str, ...], str]


def variables(folder: str) -> dict[str, str]:
    path = environment()["PYTHONPATH"]
    return {"PYTHONPATH": f"{folder}:{path}"} if folder else {}


def test_it_runs(site: Site) -> None:
    """Beside the built-in ones, and by itself where it is selected."""
    file, arguments, folder = site
    write(file)
    ran = process(
        *("check", "--snapshot", FIXED, "--format", "json", *arguments), **variables(folder)
    )
    report = json.loads(ran.stdout)
    assert (ran.code, report["verdict"]) == (0, "degraded")
    (finding,) = [each for each in report["findings"] if each["code"] == "ACME001"]
    assert finding["message"] == "None of details, productpage, ratings, reviews is about cats."
    alone = process(
        *("check", "--snapshot", FIXED, "--format", "json", "--select", "no-cats"),
        *("--fail-on", "warning", *arguments),
        **variables(folder),
    )
    assert alone.code == 1
    assert [each["code"] for each in json.loads(alone.stdout)["checks"]] == ["ACME001"]


def test_it_is_listed_and_explained(site: Site) -> None:
    """As any other."""
    file, arguments, folder = site
    write(file)
    assert "no-cats" in process("checks", *arguments, **variables(folder)).stdout
    page = process("explain", "acme001", *arguments, **variables(folder))
    assert page.code == 0
    assert "People expect cats." in page.stdout


def test_it_crashes_without_harm(site: Site) -> None:
    """What it found is kept, the others run, the traceback is in the report, the exit code 3."""
    file, arguments, folder = site
    write(file, after="raise RuntimeError(f'{len(names)} dogs')")
    ran = process(
        *("check", "--snapshot", FIXED, "--format", "json", *arguments), **variables(folder)
    )
    report = json.loads(ran.stdout)
    assert (ran.code, report["verdict"]) == (3, "unknown")
    (crashed,) = [each for each in report["checks"] if each["verdict"] == "crashed"]
    assert (crashed["code"], crashed["reason"]) == ("ACME001", "RuntimeError: 4 dogs")
    assert "acme_cats.py" in crashed["traceback"]
    assert "ACME001" in [each["code"] for each in report["findings"]]
    assert len(report["checks"]) > 10
    assert "Traceback" not in ran.stderr


def test_a_crash_beside_an_error_does_not_hide_it(tmp_path: Path, run: Run) -> None:
    """The mesh is broken: 1."""
    file = write(tmp_path / "acme_cats.py", after="raise RuntimeError")
    ran = run("check", "--snapshot", MESHES / "broken.tgz", "--checks", file)
    assert ran.code == 1
    assert "RuntimeError" in ran.stdout


def test_a_package_that_does_not_load_is_said(tmp_path: Path) -> None:
    """On every listing, and in the report; never passed over."""
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[meshdoctor.checks]\nacme = acme_nowhere:CHECKS\n")
    listed = process("checks", **variables(str(tmp_path)))
    assert listed.code == 0
    assert "plug-in acme was not loaded: ModuleNotFoundError" in listed.stderr
    ran = process("check", "--snapshot", FIXED, **variables(str(tmp_path)))
    assert ran.code == 3
    assert "acme" in ran.stdout
