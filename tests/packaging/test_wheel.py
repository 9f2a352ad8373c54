"""The wheel, installed where nothing of this repository is: it finds its checks and its demo."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).parents[2]
PROJECT: Final = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def execute(arguments: Sequence[object], **settings: str | Path) -> str:
    """What a program prints; a failure shows all of it."""
    ran = subprocess.run(
        [str(each) for each in arguments],
        check=False,
        cwd=settings.get("cwd"),
        # No PYTHONPATH: it would lead back here.
        env={"PATH": os.environ["PATH"], "HOME": str(settings["home"]), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        encoding="utf-8",
    )
    assert ran.returncode == 0, f"{arguments}:\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without the network."""
    for needed in ("hatchling", "pip"):
        try:
            distribution(needed)
        except PackageNotFoundError:
            pytest.skip(f"{needed} is not installed: pip install -e .[dev]")
    folder = tmp_path_factory.mktemp("wheel")
    execute(
        (
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", folder),
            REPOSITORY,
        ),
        home=folder,
    )
    (built,) = folder.glob("*.whl")
    return built


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel in it, and an empty folder to work in."""

    python: Path
    script: Path
    folder: Path

    def run(self, *arguments: object) -> str:
        return execute((self.script, *arguments), cwd=self.folder, home=self.folder)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A fresh environment: the wheel's own files, and the dependencies of this one."""
    root = tmp_path_factory.mktemp("installed")
    environment, folder = root / "venv", root / "empty"
    folder.mkdir()
    execute((sys.executable, "-m", "venv", "--without-pip", environment), home=root)
    python = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    execute((*pip, "install", "--quiet", "--no-deps", "--no-index", wheel), home=root)
    site = execute((python, "-c", "import site; print(site.getsitepackages()[0])"), home=root)
    # Folders named in a .pth file are searched last, and .pth files in them are not read: what is
    # installed here in editable mode stays out of sight.
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(site.strip()) / "dependencies.pth").write_text(
        "\n".join(sorted(dependencies)), encoding="utf-8"
    )
    return Installed(python, environment / "bin" / "meshdoctor", folder)


def test_the_wheel_holds_what_runs_and_nothing_else(wheel: Path) -> None:
    """Both packages with their data, the engine with its types; no tests, no fixtures."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        "meshdoctor/cli/__init__.py",
        "meshdoctor/py.typed",
        "meshdoctor/snapshot/recordings/broken.tgz",
        "meshdoctor/report/schema/report-v1.json",
        "meshdoctor/report/web/report.css",
        "meshdoctor/report/web/report.html",
        "meshdoctor/report/web/report.js",
    } <= names
    tops = {name.partition("/")[0] for name in names}
    (info,) = (top for top in tops if top.endswith(".dist-info"))
    assert tops == {"meshdoctor", "meshdoctor_checks", info}
    for root, prefix in (("meshdoctor", ""), ("checks/meshdoctor_checks", "checks/")):
        for module in (REPOSITORY / root).rglob("*.py"):
            assert module.relative_to(REPOSITORY).as_posix().removeprefix(prefix) in names


def test_the_metadata_is_the_projects(wheel: Path) -> None:
    """Name, version, dependencies and the door by which the checks come in."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()
        points = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert f"\nVersion: {PROJECT['project']['version']}\n" in text
    for dependency in PROJECT["project"]["dependencies"]:
        assert f"\nRequires-Dist: {dependency.partition('>')[0]}" in text
    assert "[meshdoctor.checks]\nbuiltin = meshdoctor_checks:CHECKS" in points
    assert "meshdoctor = meshdoctor.__main__:main" in points


def test_it_finds_its_checks(installed: Installed) -> None:
    """As many as there are here."""
    here = json.loads(
        execute(
            (sys.executable, "-m", "meshdoctor", "checks", "--format", "json"),
            cwd=REPOSITORY,
            home=installed.folder,
        )
    )
    there = json.loads(installed.run("checks", "--format", "json"))
    assert there == here
    assert "MD401" in installed.run("checks")
    assert "Why it matters" in installed.run("explain", "MD401")


def test_it_runs_its_demo(installed: Installed) -> None:
    """From an empty folder, with the recording that it ships."""
    assert "MD202" in installed.run("demo")
    assert "</html>" in installed.run("demo", "--format", "html")
    assert list(installed.folder.iterdir()) == []


LOADED: Final = """
import sys
import meshdoctor.cli
from meshdoctor.diagnosis import load_checks
load_checks()
for name, module in sys.modules.items():
    if name.startswith("meshdoctor"):
        print(module.__file__)
"""


def test_no_module_comes_from_the_source_tree(installed: Installed) -> None:
    """What was tested above is the wheel."""
    files = execute(
        (installed.python, "-c", LOADED), cwd=installed.folder, home=installed.folder
    ).splitlines()
    environment = installed.python.parent.parent
    assert any("meshdoctor_checks" in file for file in files)
    for file in files:
        assert Path(file).is_relative_to(environment), file
