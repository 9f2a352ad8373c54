"""What each check says where something could not be recorded: why it skips, and no false alarm."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from meshdoctor.check import Examination, run
from meshdoctor.findings import Crashed, Found, Outcome, Severity, Skipped
from meshdoctor.snapshot import Snapshot
from meshdoctor_checks import CHECKS
from tests.checks.editing import CONTAINERS, Recording

GOLDENS: Final = Path(__file__).parent / "goldens" / "missing_sources"
HEALTHY: Final = ("fixed", "fixed-v2", "connect-healthy")
MESHES: Final = (*HEALTHY, "connect-collision")

Loss = Callable[[Recording], None]


def without(pattern: str) -> Loss:
    """Nothing of that name was recorded."""

    def lose(recording: Recording) -> None:
        for name in [name for name in recording.documents if re.match(pattern, name)]:
            recording.remove(name)

    return lose


def damaged(pattern: str) -> Loss:
    """What was recorded broke off after its first bytes."""

    def damage(recording: Recording) -> None:
        for name in [name for name in recording.documents if re.match(pattern, name)]:
            recording.documents[name] = recording.documents[name][:9]

    return damage


def without_containers(pattern: str) -> Loss:
    """Docker has no container of that name, nor its log."""

    def lose(recording: Recording) -> None:
        if CONTAINERS in recording.documents:
            recording.edit(
                CONTAINERS,
                lambda them: [each for each in them if not re.search(pattern, each["Name"])],
            )
        without(rf"docker/logs/\S*({pattern})")(recording)

    return lose


def all_stopped(recording: Recording) -> None:
    """Somebody stopped every container, and nothing answers."""

    def stop(containers: list[dict[str, Any]]) -> None:
        for each in containers:
            each["State"].update(Status="exited", Running=False, Pid=0, ExitCode=0)

    if CONTAINERS in recording.documents:
        recording.edit(CONTAINERS, stop)
    for prefix in ("consul/", "envoy/", "netfilter/", "pilot/"):
        recording.remove(prefix)


def together(*losses: Loss) -> Loss:
    def lose(recording: Recording) -> None:
        for each in losses:
            each(recording)

    return lose


LESS_RECORDED: Final[dict[str, Loss]] = {
    "no Docker": without("docker/"),
    "no networks": without("docker/networks"),
    "no images": without("docker/images"),
    "no logs": without("docker/logs/"),
    "no Consul": without("consul/"),
    "no health checks": without("consul/health/"),
    "Consul's catalogue damaged": damaged("consul/catalog/service/"),
    "no sidecar read": without("envoy/"),
    "no configuration dumps": without(r"envoy/.*/config_dump"),
    "configuration dumps damaged": damaged(r"envoy/.*/config_dump"),
    "no listeners pages": without(r"envoy/.*/listeners"),
    "no clusters pages": without(r"envoy/.*/clusters"),
    "no certificates": without(r"envoy/.*/certs"),
    "no server_info": without(r"envoy/.*/server_info"),
    "no statistics": without(r"envoy/.*/stats"),
    "configuration dumps alone": together(
        without(r"envoy/.*/(?!config_dump)"), without("docker/"), without("consul/")
    ),
    "no nat rules": without("netfilter/"),
    "no pages of Pilot": without("pilot/"),
    "no rules": without("istio/"),
    "rules damaged": damaged("istio/"),
    "rules of Consul damaged": damaged("consul/config/"),
    "no rules of Consul": without("consul/config/"),
    "no intentions": without("consul/connect/intentions"),
    "no authorities": without("consul/connect/ca"),
}
CHANGED: Final[dict[str, Loss]] = {
    "no Registrator": without_containers("registrator"),
    "no Pilot": together(without_containers("pilot"), without("pilot/")),
    "no container of Consul": without_containers("consul_consul"),
    "no applications": without_containers(r"v\d"),
    "no mesh at all": together(
        without_containers("sidecar|init|pilot"),
        without("envoy/|netfilter/|pilot/|consul/.*sidecar-proxy|consul/connect/"),
    ),
    "nothing runs": all_stopped,
}
LOSSES: Final = LESS_RECORDED | CHANGED


def outcomes(snapshot: Snapshot) -> dict[str, Outcome]:
    examination = Examination(snapshot)
    return {check.code: run(check, examination) for check in CHECKS}


def lost(mesh: str, loss: str) -> Snapshot:
    recording = Recording(mesh)
    LOSSES[loss](recording)
    return recording.snapshot()


def told(outcome: Outcome) -> Iterator[str]:
    """Why a check could not look, or what it found."""
    match outcome:
        case Skipped(reason):
            yield f"skipped: {reason}"
        case Found(findings):
            yield from (f"found: {each.message}" for each in findings)


@pytest.mark.parametrize("mesh", MESHES)
def test_each_check_says_why_it_cannot_look(
    mesh: str, golden: Callable[[Path, str], None]
) -> None:
    """Line for line what is said otherwise than of the mesh that was recorded whole."""
    whole = {code: list(told(each)) for code, each in outcomes(Recording(mesh).snapshot()).items()}
    lines = []
    for loss in LOSSES:
        snapshot = lost(mesh, loss)
        lines.append(f"{loss}:")
        for code, outcome in outcomes(snapshot).items():
            assert not isinstance(outcome, Crashed), outcome.traceback
            said = list(told(outcome))
            if said != whole[code]:
                lines += [f"  {code} {each}" for each in said]
    golden(GOLDENS / f"{mesh}.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize("mesh", HEALTHY)
@pytest.mark.parametrize("loss", LESS_RECORDED)
def test_what_was_not_recorded_is_no_fault(mesh: str, loss: str) -> None:
    """Of a healthy mesh of which only less was recorded, nothing is called an error."""
    found = outcomes(lost(mesh, loss))
    errors = [
        finding.message
        for check in CHECKS
        if isinstance(outcome := found[check.code], Found)
        for finding in outcome.findings
        if (finding.severity or check.severity) is Severity.ERROR
    ]
    assert errors == []
