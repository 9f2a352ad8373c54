"""Entry points: whatever `importlib.metadata` finds, `find_plugins` finds."""

import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, DistributionFinder, PathDistribution, entry_points
from pathlib import Path
from typing import Any, Final

import pytest

import meshdoctor_checks
from meshdoctor.plugins import find_plugins

GROUP: Final = "meshdoctor.checks"
OWN: Final = ("builtin", "meshdoctor_checks:CHECKS")
THEIRS: Final = ("acme", "acme:CHECKS")
TEXT: Final = "[meshdoctor.checks]\nacme = acme:CHECKS\n"
METADATA: Final = "Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n"


class NoFinder:
    """One of another kind, that knows of no distribution: in doubt, Python is asked."""

    def find_spec(self, *_: object) -> None:
        """None: it has no module."""

    def find_distributions(self, _context: Any = None) -> Iterator[Distribution]:
        return iter(())


def distribution(folder: Path, name: str = "acme-1.0.dist-info", text: str = TEXT) -> Path:
    """What is installed beside a package."""
    info = folder / name
    info.mkdir(parents=True)
    file = "PKG-INFO" if info.name.lower().endswith("egg-info") else "METADATA"
    (info / file).write_text(METADATA, encoding="utf-8")
    (info / "entry_points.txt").write_text(text, encoding="utf-8", newline="")
    return info


def found() -> list[tuple[str, str]]:
    """What there is, held against Python's own answer."""
    told = [(each.name, each.value) for each in find_plugins(GROUP)]
    assert sorted(told) == sorted((each.name, each.value) for each in entry_points(group=GROUP))
    return told


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on sys.path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_built_in_checks_are_found_and_loaded() -> None:
    """The very ones that ship."""
    (own,) = find_plugins(GROUP)
    assert (own.name, own.value, own.is_own) == (*OWN, True)
    assert own.load() is meshdoctor_checks.CHECKS


@pytest.mark.parametrize(
    "name",
    [
        "acme-1.0.dist-info",
        "acme.egg-info",
        "acme-1.0-py3.11.egg-info",
        "ACME-1.0.DIST-INFO",
        "meshdoctor_acme-1.0.dist-info",
    ],
)
def test_another_package_is_found_by_the_folder_of_its_distribution(
    place: Path, name: str
) -> None:
    """As each installer names it."""
    distribution(place, name)
    assert found() == [OWN, THEIRS]


def test_another_package_is_found_in_an_egg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands on sys.path itself."""
    egg = tmp_path / "acme-1.0-py3.11.egg"
    distribution(egg, "EGG-INFO")
    monkeypatch.syspath_prepend(str(egg))
    assert found() == [OWN, THEIRS]


def test_another_package_is_found_in_a_zip_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On sys.path, as a zipped application has it."""
    file = tmp_path / "acme.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("acme-1.0.dist-info/METADATA", METADATA)
        archive.writestr("acme-1.0.dist-info/entry_points.txt", TEXT)
    monkeypatch.syspath_prepend(str(file))
    assert found() == [OWN, THEIRS]


def test_another_package_is_found_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which sys.path has as the empty string."""
    distribution(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert found() == [OWN, THEIRS]


def test_another_package_is_found_by_a_finder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no folder of sys.path has it."""
    info = distribution(tmp_path)

    class Finder(DistributionFinder):
        def find_distributions(self, context: Any = None) -> Iterator[Distribution]:
            del context
            yield PathDistribution(info)

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert found() == [OWN, THEIRS]


@pytest.mark.parametrize(
    "text",
    [
        "[console_scripts]\r\na = acme:a\r\n\r\n[meshdoctor.checks]\r\nacme = acme:CHECKS\r\n",
        "# checks\n  [meshdoctor.checks]  \n  acme=acme:CHECKS",
    ],
)
def test_another_package_may_write_its_entry_points_otherwise(place: Path, text: str) -> None:
    """Blanks, comments, and the line ends of Windows."""
    distribution(place, text=text)
    assert found() == [OWN, THEIRS]


def test_two_distributions_of_meshdoctor_are_one(place: Path) -> None:
    """As after an upgrade that left the old one behind: the first of sys.path counts."""
    distribution(
        place, "meshdoctor-0.0.dist-info", "[meshdoctor.checks]\nold = meshdoctor_checks:CHECKS\n"
    )
    assert found() == [("old", OWN[1])]


def test_who_only_mentions_the_group_has_nothing_in_it(place: Path) -> None:
    """As in a comment."""
    distribution(place, text="[console_scripts]\n# not for meshdoctor.checks\nacme = acme:main\n")
    assert found() == [OWN]


def no_file(info: Path) -> None:
    (info / "entry_points.txt").unlink()


def folder_in_its_place(info: Path) -> None:
    (info / "entry_points.txt").unlink()
    (info / "entry_points.txt").mkdir()


def distribution_that_is_a_file(info: Path) -> None:
    for each in info.iterdir():
        each.unlink()
    info.rmdir()
    info.write_text(METADATA, encoding="utf-8")


@pytest.mark.parametrize("spoil", [no_file, folder_in_its_place, distribution_that_is_a_file])
def test_a_distribution_without_entry_points_does_no_harm(
    place: Path, spoil: Callable[[Path], None]
) -> None:
    """As distutils left them, or a disk."""
    spoil(distribution(place))
    assert found() == [OWN]


@pytest.mark.parametrize("finders", [(), (NoFinder(),)], ids=["alone", "beside another"])
def test_damaged_entry_points_of_others_do_no_harm(
    place: Path, monkeypatch: pytest.MonkeyPatch, finders: tuple[object, ...]
) -> None:
    """Python's own look for them ends at such a file, whosoever it is."""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, *finders])
    info = distribution(place)
    (info / "entry_points.txt").write_bytes(b"[console_scripts]\nacme = \xff\xfe\n")
    assert [(each.name, each.value) for each in find_plugins(GROUP)] == [OWN]
    with pytest.raises(UnicodeDecodeError):
        entry_points(group=GROUP)


def test_places_of_sys_path_that_are_not_there_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is gone, a file that is no zip, and what stands twice."""
    (tmp_path / "notes.txt").write_text("no zip file", encoding="utf-8")
    for each in (tmp_path / "gone", tmp_path / "notes.txt", *map(Path, sys.path)):
        monkeypatch.syspath_prepend(os.fspath(each))
    assert found() == [OWN]


def test_a_group_of_nobody_is_empty() -> None:
    """No entry point of another group is taken for one of it."""
    assert find_plugins("meshdoctor.nothing") == []
