"""The Compose files of the cases with one thing changed, and what a check then says of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.cli.conftest import REPOSITORY, Run

CASES: Final = REPOSITORY / "fixtures" / "compose"
PLANE: Final = "docker-compose.yaml"
APPS: Final = "bookinfo.yaml"
SIDECARS: Final = "bookinfo.sidecars.yaml"
GATEWAY: Final = "172.28.0.1"

Services = dict[str, dict[str, Any]]
Change = Callable[[Path], None]


def services(file: str, change: Callable[[Services], object]) -> Change:
    """Another one of the files' services."""

    def apply(folder: Path) -> None:
        content = yaml.safe_load((folder / file).read_text(encoding="utf-8"))
        change(content["services"])
        (folder / file).write_text(yaml.safe_dump(content), encoding="utf-8")

    return apply


def each(file: str, **values: object) -> Change:
    """Another value for a key of every service, None for none."""

    def change(found: Services) -> None:
        for service in found.values():
            for key, value in values.items():
                service.pop(key, None)
                if value is not None:
                    service[key] = value

    return services(file, change)


def one(file: str, name: str, **values: object) -> Change:
    def change(found: Services) -> None:
        for key, value in values.items():
            found[name].pop(key, None)
            if value is not None:
                found[name][key] = value

    return services(file, change)


def in_file(file: str, old: str, new: str) -> Change:
    def apply(folder: Path) -> None:
        text = (folder / file).read_text(encoding="utf-8")
        assert old in text
        (folder / file).write_text(text.replace(old, new), encoding="utf-8")

    return apply


def without(file: str, name: str) -> Change:
    return services(file, lambda found: found.pop(name))


def network(*configs: dict[str, str]) -> Change:
    def apply(folder: Path) -> None:
        content = yaml.safe_load((folder / PLANE).read_text(encoding="utf-8"))
        content["networks"]["istiomesh"] = {"ipam": {"config": list(configs)}}
        (folder / PLANE).write_text(yaml.safe_dump(content), encoding="utf-8")

    return apply


def published(*ports: str) -> Change:
    return one(PLANE, "consul", ports=list(ports))


ROWS: Final[dict[str, tuple[str, tuple[Change, ...], str, str]]] = {
    "no Consul, and nobody names a DNS server": (
        "applications-alone",
        (each(APPS, dns=None, dns_search=None),),
        "MD105",
        "these files hold no Consul, and no application that names a DNS server",
    ),
    "published on another address": (
        "mended",
        (published("172.28.0.9:53:8600/udp"), network({"gateway": GATEWAY})),
        "MD105",
        "Consul's DNS would be published on 172.28.0.9.",
    ),
    "the first address of a subnet is the host's": (
        "mended",
        (published("8500:8500"), network({"subnet": "172.28.0.0/16"})),
        "MD105",
        f"would ask {GATEWAY} for names, where no Consul would answer",
    ),
    "a server that is not the host's": (
        "mended",
        (
            published("8500:8500"),
            network({"subnet": "10.0.0.0/8", "gateway": "10.0.0.1"}, {"subnet": "nonsense"}),
        ),
        "MD105",
        "clean",
    ),
    "no address to ask": (
        "names-not-asked",
        (published("8500:8500"),),
        "MD105",
        "no DNS server (`dns`): Docker's own does not know the names that Consul would have",
    ),
    "only long names": (
        "mended",
        (each(APPS, dns_search=None),),
        "MD105",
        "the search domain service.consul (`dns_search`)",
    ),
    "an image of which nobody knows": (
        "mended",
        (one(PLANE, "registrator", image="me/registrator:1"),),
        "MD202",
        "it is not known whether me/registrator:1 writes the SERVICE_* attributes",
    ),
    "nothing that could be lost": (
        "broken",
        (each(APPS, environment=["SERVICE_NAME=same"]),),
        "MD202",
        "no container declares a SERVICE_* attribute that could be lost",
    ),
    "without Registrator nothing is registered": (
        "control-plane-alone",
        (without(PLANE, "registrator"),),
        "MD209",
        "these files hold no Registrator, which alone registers containers",
    ),
    "without Pilot a protocol is nobody's": (
        "protocol-unknown",
        (without(PLANE, "pilot"), lambda folder: (folder / SIDECARS).unlink()),
        "MD203",
        "only Pilot makes this matter, and in these files is none",
    ),
    "a database speaks no HTTP": (
        "protocol-undeclared",
        (in_file(APPS, "9080", "3306"),),
        "MD201",
        "port 3306 for TCP, as MySQL's protocol is.",
    ),
    "a sidecar of nobody": (
        "mended",
        (one(SIDECARS, "details-v1-sidecar", network_mode="service:nobody"),),
        "MD301",
        "nobody",
    ),
}


@pytest.mark.parametrize(
    ("case", "changes", "code", "says"), ROWS.values(), ids=[row.replace(" ", "-") for row in ROWS]
)
def test_what_a_check_says_of_files(
    case: str,
    changes: tuple[Change, ...],
    code: str,
    says: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its findings, or why it could not look."""
    monkeypatch.delenv("DOCKER_GATEWAY", raising=False)
    folder = tmp_path / case
    shutil.copytree(CASES / case, folder)
    monkeypatch.chdir(folder)
    for change in changes:
        change(folder)
    files = [name for name in (PLANE, APPS, SIDECARS) if (folder / name).exists()]
    named = [word for name in files for word in ("--compose", name)]
    ran = run("check", *named, "--format", "json")
    report = json.loads(ran.stdout)
    (judged,) = [check for check in report["checks"] if check["code"] == code]
    told = [judged["verdict"], judged.get("reason", "")]
    told += [found["message"] for found in report["findings"] if found["code"] == code]
    assert any(says in each_said for each_said in told), told
