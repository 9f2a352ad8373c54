"""Rules from files: how they are laid over those in force, and what is said of bad ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshdoctor.collectors.rules import RulesError, lay_over
from meshdoctor.evidence.istio import (
    CONFIGZ,
    DESTINATION_RULE,
    DESTINATION_RULES,
    VIRTUAL_SERVICE,
    VIRTUAL_SERVICES,
    IstioRules,
)
from meshdoctor.snapshot import Snapshot

RULES = """\
# what we would like to apply
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews.service.consul]
  http:
  - route:
    - destination: {host: reviews.service.consul, subset: v9}
---
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata: {name: web}
spec: {}
---
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews.service.consul
  subsets: [{name: v1, labels: {version: v1}}]
"""


def written(folder: Path, text: str, name: str = "rules.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def snapshot(**documents: Any) -> Snapshot:
    names = {
        "services": VIRTUAL_SERVICES,
        "destinations": DESTINATION_RULES,
        "pilot": CONFIGZ,
    }
    return Snapshot({names[key]: json.dumps(each).encode() for key, each in documents.items()})


def rule(name: str, host: str, namespace: str = "default") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"hosts": [host]}}


def loaded(base: Snapshot, *paths: Path) -> IstioRules:
    return IstioRules.load(lay_over(base, paths))


def test_the_rules_of_a_file_are_there_with_their_place(tmp_path: Path) -> None:
    """Each tells the line where its document begins; other kinds are passed over."""
    file = written(tmp_path, RULES)
    rules = loaded(snapshot(), file)
    (service,), (destination,) = rules.virtual_services, rules.destination_rules
    assert (service.name, service.namespace, service.file) == ("reviews", "default", f"{file}:2")
    assert (destination.namespace, destination.file) == ("shop", f"{file}:16")
    assert rules.held == {VIRTUAL_SERVICE, DESTINATION_RULE}


def test_one_of_the_same_name_takes_the_place_of_the_one_in_force(tmp_path: Path) -> None:
    """Of the same namespace, as with kubectl; the others stay."""
    base = snapshot(
        services={
            "items": [
                rule("reviews", "old"),
                rule("reviews", "kept", "shop"),
                rule("web", "kept-too"),
            ]
        }
    )
    rules = loaded(base, written(tmp_path, RULES))
    assert [each.hosts for each in rules.virtual_services] == [
        ("kept",),
        ("kept-too",),
        ("reviews.service.consul",),
    ]
    assert [bool(each.file) for each in rules.virtual_services] == [False, False, True]


def test_they_are_laid_over_what_pilot_has(tmp_path: Path) -> None:
    """Where the API server was not read, Pilot's page tells the rules in force."""
    base = snapshot(
        pilot=[
            {"type": "virtual-service", "name": "web", "Spec": {"hosts": ["web"]}},
            {"kind": "VirtualService", **rule("reviews", "old")},
            {},
        ]
    )
    rules = loaded(base, written(tmp_path, RULES))
    assert [each.name for each in rules.virtual_services] == ["web", "reviews"]
    assert rules.virtual_services[1].hosts == ("reviews.service.consul",)


def test_a_folder_is_read_with_what_is_below(tmp_path: Path) -> None:
    """In the order of names, JSON too; of one rule in two files the last one counts."""
    below = tmp_path / "more"
    below.mkdir()
    written(tmp_path, RULES, "a.yaml")
    item = {"kind": "VirtualService", **rule("reviews", "last")}
    written(below, json.dumps({"kind": "List", "items": [item]}), "b.json")
    written(tmp_path, "not: [read", "notes.txt")
    (service,) = loaded(snapshot(), tmp_path).virtual_services
    assert service.hosts == ("last",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nkind: [\n", ":3: not YAML: did not find expected node content"),
        ("kind: VirtualService\nspec: {}\n", ":1: a VirtualService without metadata.name"),
        ("a: 1\n---\nkind: VirtualService\nmetadata: {name: x}\n", ":3: the VirtualService x has"),
        ("- 1\n", ":1: not a Kubernetes object"),
        ("kind: Gateway\n", "no VirtualService and no DestinationRule in it"),
        ("", "no VirtualService and no DestinationRule in it"),
        ("a: 2026-99-99\n", "not YAML: month must be"),
        ("a: !!python/object:os.system {}\n", ":1: not YAML: could not determine a constructor"),
        ("a: &a [x]\nb: !!set {x}\n", ":1: a set has no place in a rule"),
        (
            "kind: VirtualService\nmetadata: {name: x}\nspec: {http: [{route: [{weight: a}]}]}\n",
            ":1: not of the expected form: Expected `int | null`, got `str`",
        ),
        ("\x00", "not YAML"),
        ("[" * 5000, "not YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    """The file, the line, and what is wrong there."""
    file = written(tmp_path, text)
    with pytest.raises(RulesError) as caught:
        lay_over(snapshot(), [file])
    assert str(caught.value).startswith(str(file))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_anchor_used_again_and_again_is_refused(tmp_path: Path) -> None:
    """A short file can stand for more values than there is memory."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(RulesError, match="more than 100000 values"):
        lay_over(snapshot(), [written(tmp_path, "\n".join(lines))])


def test_a_file_that_is_not_there_and_a_folder_without_any(tmp_path: Path) -> None:
    """Each is said as what it is."""
    with pytest.raises(RulesError, match=r"none\.yaml: No such file"):
        lay_over(snapshot(), [tmp_path / "none.yaml"])
    with pytest.raises(RulesError, match=r"no \.yaml, \.yml or \.json file in this folder"):
        lay_over(snapshot(), [tmp_path])


def test_a_damaged_list_in_force_is_laid_over_all_the_same(tmp_path: Path) -> None:
    """What cannot be read is no reason to say nothing of the new rules."""
    base = Snapshot({VIRTUAL_SERVICES: b"404 page not found", DESTINATION_RULES: b'{"items": 3}'})
    rules = loaded(base, written(tmp_path, RULES))
    assert [each.name for each in rules.virtual_services] == ["reviews"]
    assert [each.name for each in rules.destination_rules] == ["reviews"]


def test_what_looks_like_a_secret_stands_in_no_report(tmp_path: Path) -> None:
    """The file is redacted as a recording would be."""
    text = RULES.replace("- route", "- match: [{headers: {cookie: {exact: s3cret}}}]\n    route")
    laid = lay_over(snapshot(), [written(tmp_path, text)])
    assert b"s3cret" not in laid.read(VIRTUAL_SERVICES)


@settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.binary(max_size=60), st.integers(0, len(RULES)))
def test_damage_gives_rules_or_an_error(tmp_path: Path, noise: bytes, place: int) -> None:
    """Never anything else is raised."""
    file = tmp_path / "rules.yaml"
    raw = RULES.encode()
    file.write_bytes(raw[:place] + noise + raw[place:])
    try:
        laid = lay_over(snapshot(), [file])
    except RulesError as error:
        assert str(error).startswith(str(file))  # noqa: PT017 # that it is raised is not demanded
    else:
        assert IstioRules.load(laid).problems == ()
