"""The pages and the list of the checks."""

import json
from pathlib import Path

import jsonschema
import pytest
from msgspec.structs import replace

from meshdoctor.report import explain, schemas
from meshdoctor.report.terminal import Terminal
from tests.conftest import Golden
from tests.report.pages import CHECKS, COLLISION, NAME

GOLDENS = Path(__file__).parent / "goldens"

any_width = pytest.mark.parametrize("width", [40, 80])


@any_width
def test_a_page_looks_like_its_golden(width: int, golden: Golden) -> None:
    """What `meshdoctor explain` prints changes only on purpose."""
    golden(GOLDENS / f"explain-{width}.txt", explain.render_page(COLLISION, Terminal(width)))


@any_width
def test_the_list_looks_like_its_golden(width: int, golden: Golden) -> None:
    """What `meshdoctor checks` prints changes only on purpose."""
    golden(GOLDENS / f"checks-{width}.txt", explain.render_checks(CHECKS, Terminal(width)))


def test_a_command_on_a_page_is_ready_to_paste() -> None:
    """It stands whole on its line, on the narrowest screen."""
    lines = explain.render_page(COLLISION, Terminal(40)).splitlines()
    command = (
        "docker-compose -f docker-compose.yaml -p consul up -d --no-deps --force-recreate"
        " registrator"
    )
    assert command in [line.strip() for line in lines]


def test_a_page_is_inert() -> None:
    """A plug-in's page colours nothing and moves no cursor."""
    rendered = explain.render_page(COLLISION)
    assert all(character == "\n" or character.isprintable() for character in rendered)
    assert "[bold]This is no markup[/bold]" in " ".join(rendered.split())


def test_a_page_in_ascii() -> None:
    """It needs no more than ASCII."""
    page = replace(COLLISION, page=COLLISION.page + "\n- größer\n")
    assert explain.render_page(page, Terminal(unicode=False)).isascii()


def test_checks_are_listed_by_code() -> None:
    """In whatever order they were found."""
    assert explain.render_checks(CHECKS) == explain.render_checks(CHECKS[::-1])
    assert explain.render_checks_json(CHECKS) == explain.render_checks_json(CHECKS[::-1])


def test_plug_ins_are_listed_apart() -> None:
    """Who wrote a check is seen where there is more than one package."""

    def of_another() -> None: ...

    of_another.__module__ = "acme_mesh.checks"
    rendered = explain.render_checks((COLLISION, replace(NAME, function=of_another)))
    assert "From acme_mesh\n" in rendered
    assert "From tests\n" in rendered
    assert "From" not in explain.render_checks(CHECKS)


def test_the_list_as_json() -> None:
    """One entry a check, with what it needs and what it explains."""
    document = json.loads(explain.render_checks_json((NAME,)))
    jsonschema.validate(document, schemas.load("checks-v1"))
    assert document == {
        "schema": "meshdoctor.checks/v1",
        "checks": [
            {
                "code": "MD212",
                "name": "name-not-a-host-name",
                "title": "A service has a name that DNS cannot carry.",
                "severity": "warning",
                "since": "0.2",
                "explains": [],
                "needs": [
                    {"evidence": "the Consul catalogue", "optional": False},
                    {"evidence": "the sidecars' configuration", "optional": True},
                ],
                "module": "tests.report.pages",
            }
        ],
    }
