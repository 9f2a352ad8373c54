"""Of a Compose file each line stays in its place, and only what remedies quote stays readable."""

import pytest
import yaml

from meshdoctor.snapshot import compose_redaction
from meshdoctor.snapshot.compose_redaction import redact_compose
from meshdoctor.snapshot.redaction import MASK, RedactionError

PLANTED = "pl4nted"


def redacted(text: str) -> str:
    clean, count = redact_compose(text.encode())
    assert count == clean.decode().count(MASK)
    assert PLANTED not in clean.decode(), clean.decode()
    assert clean.count(b"\n") == text.count("\n")
    return clean.decode()


@pytest.mark.parametrize(
    "line",
    [
        "ports: [{target: 80, published: 8080}]",
        "depends_on: {db: {condition: started}}",
        "command: [run, --port, '80']",
        "environment: {SERVICE_NAME: web}",
        "environment: [SERVICE_NAME=web]",
        "labels: {SERVICE_TAGS: a}",
    ],
)
def test_what_remedies_quote_stays_to_the_letter(line: str) -> None:
    """In the short form and in the long one."""
    text = f"services:\n  web:\n    {line}\n"
    assert redact_compose(text.encode()) == (text.encode(), 0)


@pytest.mark.parametrize(
    "line",
    [
        f"volumes: ['/home/{PLANTED}:/data']",
        f"command: [run, --password, {PLANTED}]",
        f"command: [run, --password={PLANTED}]",
        f"command: {{of: {PLANTED}}}",
        f"environment: {{DATABASE: {PLANTED}}}",
        f"environment: [DATABASE={PLANTED}, {{SERVICE_NAME: {PLANTED}}}]",
        f"environment: {{[SERVICE_NAME]: {PLANTED}}}",
        f"[image]: {PLANTED}",
        f"image: web  # of {PLANTED}",
        f"healthcheck: {{test: [CMD, curl, '{PLANTED}']}}",
    ],
)
def test_everything_else_is_masked_where_it_stands(line: str) -> None:
    """Also what no Compose file should have in such a place."""
    clean = redacted(f"services:\n  web:\n    {line}\n    hostname: web\n")
    assert clean.endswith("\n    hostname: web\n")
    assert MASK in clean


@pytest.mark.parametrize("merged", ["*base", "[*base, *more]"])
def test_what_is_merged_in_is_judged_by_where_it_is_merged(merged: str) -> None:
    """An anchor may stand anywhere: its lines are kept where a service takes them."""
    text = (
        f"x-base: &base\n  image: web\n  tmpfs: {PLANTED}\n"
        f"x-more: &more\n  hostname: web\n"
        f"x-own: &own {{SERVICE_NAME: web, DATABASE: {PLANTED}}}\n"
        f"services:\n  web:\n    <<: {merged}\n"
        f"    environment:\n      <<: *own\n      SERVICE_TAGS: a\n"
        f"  api:\n    environment:\n      <<: [*own]\n"
    )
    clean = redacted(text)
    assert "  image: web\n" in clean
    assert ("  hostname: web\n" in clean) is ("more" in merged)
    assert "{SERVICE_NAME: web, " in clean
    assert "      <<: *own\n      SERVICE_TAGS: a\n" in clean
    assert yaml.safe_load(clean)["services"]["web"]["environment"]["SERVICE_NAME"] == "web"


@pytest.mark.parametrize("text", ["", "[web]", "web: {image: web}", "services: [web]", "a: ["])
def test_what_is_no_compose_file_is_refused(text: str) -> None:
    """It might hold anything."""
    with pytest.raises(RedactionError):
        redact_compose(text.encode())


def test_a_file_of_more_than_any_compose_file_has_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Looking at each of its parts would cost too much."""
    monkeypatch.setattr(compose_redaction, "_MOST_NODES", 10)
    with pytest.raises(RedactionError, match="larger than any Compose file"):
        redact_compose(b"services: {web: {expose: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}}")
