"""Reports built by hand: one of each kind that a reader can meet."""

from typing import Final

from msgspec.structs import replace

from meshdoctor.findings import Citation, Fact, Remedy, Severity, Subject, SubjectKind, subjects
from meshdoctor.report.document import (
    CheckResult,
    CheckVerdict,
    Coverage,
    Diagnosis,
    Report,
    ReportedFinding,
    Source,
    SourceState,
    Unreachable,
    Verdict,
    Version,
)

SERVICES: Final = subjects(SubjectKind.SERVICE, ("details", "productpage", "ratings", "reviews"))
LISTENER: Final = Subject(SubjectKind.LISTENER, "0.0.0.0:9080")
REGISTRATOR: Final = Subject(SubjectKind.COMPONENT, "consul_registrator_1")

SOURCES: Final = tuple(
    Source(name, SourceState.EXAMINED) for name in ("consul", "docker", "envoy", "netfilter")
)
COVERAGE: Final = Coverage(
    services=4,
    workloads=6,
    sidecars_found=6,
    sidecars_examined=6,
    unreachable=(),
    sources=SOURCES,
)

CLEAN: Final = (
    CheckResult(
        "MD301",
        "workload-without-sidecar",
        CheckVerdict.CLEAN,
        1.25,
        facts=(Fact("6 of 6 workloads have a running sidecar in their network namespace."),),
    ),
    CheckResult(
        "MD402",
        "misrouted-call",
        CheckVerdict.CLEAN,
        12.5,
        facts=(Fact("24 of 24 calls reach the service they name."),),
    ),
    CheckResult("MD308", "update-rejected", CheckVerdict.CLEAN, 0.75),
)

HEALTHY: Final = Report(
    tool_version="0.1.0",
    created="2026-11-23T01:39:27Z",
    seconds=0.42,
    target={"kind": "live", "docker": "unix:///var/run/docker.sock"},
    mesh=("istio-consul",),
    verdict=Verdict.HEALTHY,
    verdict_reason="",
    coverage=COVERAGE,
    diagnoses=(),
    findings=(),
    checks=CLEAN,
    versions=(
        Version("Docker", "20.10.24"),
        Version("Consul", "1.3.0"),
        Version("Pilot's image", "docker.io/istio/pilot:1.1.0"),
    ),
)

MASTER: Final = Remedy(
    summary="Run the master image of Registrator, which keeps the metadata.",
    commands=(
        "cd /home/ana/istio/samples/consul",
        (
            "docker-compose -f docker-compose.yaml -p consul up -d --no-deps --force-recreate"
            " registrator"
        ),
    ),
    patch="--- a/docker-compose.yaml\n"
    "+++ b/docker-compose.yaml\n"
    "@@ -41,3 +41,3 @@\n"
    "   registrator:\n"
    "-    image: gliderlabs/registrator:latest\n"
    "+    image: gliderlabs/registrator:master\n",
    effect="Only consul_registrator_1 is replaced. It registers every running container again,"
    " this time with its metadata.",
)
RECREATE: Final = Remedy(
    summary="Register the four services anew.",
    commands=("docker restart consul_registrator_1",),
    effect="Registrator reads every container again.",
)
PORTS: Final = Remedy(
    summary="Give the services different ports.",
    effect="Each service then has a listener of its own, whatever its protocol.",
)

DROPPED: Final = ReportedFinding(
    id="F1",
    code="MD202",
    check="registrator-drops-metadata",
    severity=Severity.ERROR,
    message="consul_registrator_1 runs gliderlabs/registrator:latest, which drops the metadata"
    " of every container: SERVICE_PROTOCOL is set on 6 containers, and Consul has none of it.",
    subjects=(REGISTRATOR, *SERVICES),
    seen_in=(
        Citation("docker/containers.json", "/7/Config/Image", "gliderlabs/registrator:latest"),
        Citation("docker/containers.json", "/2/Config/Env/1", "SERVICE_PROTOCOL=http"),
        Citation("consul/catalog/service/details.json", "/0/ServiceMeta", "{}"),
        Citation("consul/catalog/service/productpage.json", "/0/ServiceMeta", "{}"),
        Citation("consul/catalog/service/ratings.json", "/0/ServiceMeta", "{}"),
    ),
    causes=(),
    remedies=(MASTER,),
    references=("https://github.com/gliderlabs/registrator/issues/633",),
)
NO_PROTOCOL: Final = ReportedFinding(
    id="F2",
    code="MD201",
    check="service-without-protocol",
    severity=Severity.ERROR,
    message="details, productpage, ratings and reviews have no protocol in Consul, so Pilot takes"
    " their port 9080 for TCP.",
    subjects=SERVICES,
    seen_in=(
        Citation("consul/catalog/service/details.json", "/0/ServiceMeta", "{}"),
        Citation("consul/catalog/service/reviews.json", "/0/ServiceMeta", "{}"),
    ),
    causes=("F1",),
    remedies=(RECREATE,),
    references=(),
)
COLLISION: Final = ReportedFinding(
    id="F3",
    code="MD401",
    check="tcp-listener-collision",
    severity=Severity.ERROR,
    message="One TCP listener, 0.0.0.0:9080, takes every call to port 9080 in all 6 sidecars:"
    " ratings owns it now, by chance, and details, productpage and reviews get no traffic.",
    subjects=(LISTENER, *SERVICES),
    seen_in=(
        Citation(
            "envoy/consul_productpage-v1-sidecar_1/config_dump.json",
            "/configs/2/dynamic_listeners/3/active_state/listener",
            '{"address": {"socket_address": {"address": "0.0.0.0", "port_value": 9080}},'
            ' "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy"}]}]}',
        ),
    ),
    causes=("F2",),
    remedies=(PORTS,),
    references=(),
)
MISROUTED: Final = ReportedFinding(
    id="F4",
    code="MD402",
    check="misrouted-call",
    severity=Severity.ERROR,
    message="Calls to reviews:9080 end at ratings.",
    subjects=(SERVICES[3], LISTENER),
    seen_in=(),
    causes=("F2", "F3"),
    remedies=(),
    references=(),
)
REGISTERED: Final = ReportedFinding(
    id="F5",
    code="MD209",
    check="control-plane-registered",
    severity=Severity.INFO,
    message="Pilot is registered as five services (pilot-15003, pilot-15005, pilot-15007,"
    " pilot-15010 and pilot-15014), for want of SERVICE_IGNORE.",
    subjects=subjects(SubjectKind.SERVICE, ("pilot-15003", "pilot-15005")),
    seen_in=(Citation("consul/catalog/services.json"),),
    causes=(),
    remedies=(),
    references=(),
)

BROKEN: Final = replace(
    HEALTHY,
    verdict=Verdict.BROKEN,
    diagnoses=(
        Diagnosis("F5", ("F5",), REGISTERED.message, Severity.INFO, ()),
        Diagnosis(
            "F1",
            ("F1", "F2", "F3", "F4"),
            DROPPED.message,
            Severity.ERROR,
            (MASTER, RECREATE, PORTS),
        ),
    ),
    findings=(DROPPED, NO_PROTOCOL, COLLISION, MISROUTED, REGISTERED),
    checks=(
        CLEAN[0],
        CLEAN[2],
        *(
            CheckResult(each.code, each.check, CheckVerdict.FOUND, 2.5)
            for each in (DROPPED, NO_PROTOCOL, COLLISION, MISROUTED, REGISTERED)
        ),
    ),
)


def _warning(number: int, code: str, check: str, message: str, service: str) -> ReportedFinding:
    return ReportedFinding(
        id=f"F{number}",
        code=code,
        check=check,
        severity=Severity.WARNING,
        message=message,
        subjects=(Subject(SubjectKind.SERVICE, service),),
        seen_in=(Citation(f"consul/catalog/service/{service}.json", "/0/ServiceTags/0", "v1"),),
        causes=(),
        remedies=(
            Remedy(
                f"Write the tag of {service} as a key and a value.",
                patch='    environment:\n      - SERVICE_TAGS="version|v1"\n',
            ),
        ),
        references=(),
    )


def _alone(finding: ReportedFinding) -> Diagnosis:
    return Diagnosis(
        finding.id, (finding.id,), finding.message, finding.severity, finding.remedies
    )


_TAGS: Final = tuple(
    _warning(
        number,
        "MD205",
        "tag-without-value",
        f"The tag v1 of {service} is no `key|value`, so Pilot makes no label of it.",
        service,
    )
    for number, service in enumerate(("details", "ratings"), start=1)
)
_BY_LUCK: Final = replace(
    _warning(
        3,
        "MD403",
        "mixed-protocol-port",
        "Port 9080 works now, but only by luck: ratings is TCP there and three services are HTTP,"
        " and which of them is served changes with any change in the catalogue.",
        "ratings",
    ),
    remedies=(
        Remedy(
            "Stop ratings until it has a protocol.",
            ("docker stop consul_ratings-v1_1",),
            effect="Calls to ratings fail as long as it is stopped.",
            destructive=True,
        ),
    ),
)

DEGRADED: Final = replace(
    HEALTHY,
    seconds=75.0,
    verdict=Verdict.DEGRADED,
    target={"kind": "snapshot", "paths": ["host-a.tgz", "host-b.tgz"]},
    diagnoses=tuple(_alone(each) for each in (*_TAGS, _BY_LUCK)),
    findings=(*_TAGS, _BY_LUCK),
    suppressed=2,
)

UNKNOWN: Final = replace(
    HEALTHY,
    mesh=(),
    verdict=Verdict.UNKNOWN,
    verdict_reason="Docker and Consul did not answer, so there was nothing to examine",
    coverage=Coverage(
        services=0,
        workloads=0,
        sidecars_found=0,
        sidecars_examined=0,
        unreachable=(),
        sources=(
            Source(
                "consul",
                SourceState.MISSING,
                "nothing listens on http://127.0.0.1:8500",
                "Name the address with CONSUL_HTTP_ADDR or --consul.",
            ),
            Source(
                "docker",
                SourceState.MISSING,
                "permission denied for /var/run/docker.sock",
                "Join the group `docker`, or set DOCKER_HOST.",
            ),
            Source("envoy", SourceState.MISSING),
        ),
    ),
    checks=(),
)


def _skipped(code: str, name: str, reason: str, hint: str = "") -> CheckResult:
    return CheckResult(code, name, CheckVerdict.SKIPPED, 0.0, reason, hint)


_NO_DOCKER: Final = "the Docker engine: permission denied for /var/run/docker.sock"
_JOIN: Final = "Join the group `docker`, or set DOCKER_HOST."
SKIPPED: Final = replace(
    UNKNOWN,
    verdict_reason="No check could look",
    checks=(
        _skipped("MD101", "control-plane-component-down", _NO_DOCKER, _JOIN),
        _skipped("MD102", "control-plane-component-missing", _NO_DOCKER, _JOIN),
        _skipped(
            "MD201",
            "service-without-protocol",
            "the Consul catalogue: nothing listens on http://127.0.0.1:8500",
            "Name the address with CONSUL_HTTP_ADDR or --consul.",
        ),
        _skipped("MD302", "sidecar-down", _NO_DOCKER, _JOIN),
        _skipped("MD107", "tracing-unreachable", "no sidecar says where it sends traces"),
    ),
)

CRASHED: Final = replace(
    BROKEN,
    coverage=replace(
        COVERAGE,
        sidecars_examined=4,
        unreachable=(
            Unreachable(
                "consul_reviews-v2-sidecar_1",
                "no curl, wget or bash in it, and its admin interface listens on 127.0.0.1 only",
            ),
            Unreachable("consul_ratings-v1-sidecar_1", "timed out after 5 s"),
        ),
        sources=(
            *SOURCES[:2],
            Source("envoy", SourceState.PARTIAL, "2 of 6 sidecars could not be read"),
            Source(
                "netfilter",
                SourceState.MISSING,
                "reading the rules of another namespace takes root",
                "Run `sudo meshdoctor check`.",
            ),
        ),
    ),
    checks=(
        *BROKEN.checks,
        _skipped(
            "MD303",
            "redirect-not-installed",
            "the netfilter rules: reading the rules of another namespace takes root",
            "Run `sudo meshdoctor check`.",
        ),
        CheckResult(
            "MD404",
            "route-to-missing-cluster",
            CheckVerdict.CRASHED,
            3.5,
            reason="KeyError: 'route'",
            traceback="Traceback (most recent call last):\n  ...\nKeyError: 'route'\n",
        ),
        CheckResult("PLUGIN", "acme", CheckVerdict.CRASHED, 0.0, "ImportError: no module named x"),
    ),
)

_EVIL: Final = "x\x1b]0;pwned\x07\x1b[2J\u202egpj.\u2066\nHEALTHY: all is well\r\ud800[bold]ü"
HOSTILE: Final = replace(
    BROKEN,
    diagnoses=(
        Diagnosis(
            "F1",
            ("F1",),
            f"{_EVIL} is broken.",
            Severity.ERROR,
            (
                Remedy(
                    f"Restart {_EVIL}.",
                    (f"docker restart '{_EVIL}'",),
                    f"  name: {_EVIL}\n",
                    f"Restarts {_EVIL}.",
                ),
            ),
        ),
    ),
    findings=(
        replace(
            COLLISION,
            id="F1",
            message=f"{_EVIL} is broken.",
            subjects=(Subject(SubjectKind.SERVICE, _EVIL),),
            seen_in=(Citation(f"consul/catalog/service/{_EVIL}.json", "/0", _EVIL),),
            causes=(),
            remedies=(),
            references=(f"https://example.org/{_EVIL}",),
        ),
    ),
    target={"kind": "snapshot", "paths": [_EVIL]},
    coverage=replace(
        COVERAGE,
        sidecars_examined=5,
        unreachable=(Unreachable(_EVIL, f"its name is {_EVIL}"),),
        sources=(Source(_EVIL, SourceState.PARTIAL, _EVIL, _EVIL),),
    ),
    checks=(
        _skipped("MD303", "redirect-not-installed", f"no rules of {_EVIL}", _EVIL),
        CheckResult("MD404", "route", CheckVerdict.CRASHED, 1.0, _EVIL, traceback=_EVIL),
        CheckResult("MD301", "sidecar", CheckVerdict.CLEAN, 1.0, facts=(Fact(_EVIL),)),
    ),
)

_MANY: Final = tuple(
    replace(
        MISROUTED,
        id=f"F{number + 3}",
        message=f"Calls to shop-{number:03} end at ratings.",
        subjects=(Subject(SubjectKind.SERVICE, f"shop-{number:03}"), LISTENER),
    )
    for number in range(1, 901)
)
LARGE: Final = replace(
    BROKEN,
    seconds=7.96,
    diagnoses=(
        Diagnosis(
            "F1",
            ("F1", "F2", "F3", *(each.id for each in _MANY)),
            DROPPED.message,
            Severity.ERROR,
            (MASTER,),
        ),
    ),
    findings=(
        DROPPED,
        NO_PROTOCOL,
        replace(
            COLLISION,
            message="One TCP listener, 0.0.0.0:9080, takes every call to port 9080 in 900"
            " sidecars: ratings owns it now, by chance, and 900 services get no traffic.",
            subjects=(
                LISTENER,
                *subjects(SubjectKind.SIDECAR, (f"shop-{n:03}-sidecar" for n in range(900))),
            ),
            seen_in=tuple(
                Citation(f"envoy/shop-{n:03}-sidecar/config_dump.json", "/configs/2")
                for n in range(900)
            ),
        ),
        *_MANY,
    ),
    coverage=replace(
        COVERAGE,
        services=901,
        workloads=930,
        sidecars_found=930,
        sidecars_examined=900,
        unreachable=tuple(
            Unreachable(f"late-{n:02}-sidecar", "the run's deadline passed") for n in range(30)
        ),
    ),
)

TWO_CAUSES: Final = replace(
    BROKEN,
    diagnoses=(
        BROKEN.diagnoses[1],
        Diagnosis("F6", ("F6", "F3", "F4"), "ratings is TCP", Severity.ERROR, (PORTS,)),
    ),
    findings=(
        *BROKEN.findings[:2],
        replace(COLLISION, causes=("F2", "F6")),
        MISROUTED,
        replace(_BY_LUCK, id="F6", severity=Severity.ERROR, remedies=(PORTS,)),
    ),
)

STORIES: Final = {
    "healthy": HEALTHY,
    "broken": BROKEN,
    "two-causes": TWO_CAUSES,
    "degraded": DEGRADED,
    "unknown": UNKNOWN,
    "skipped": SKIPPED,
    "crashed": CRASHED,
    "hostile": HOSTILE,
    "large": LARGE,
}
"""Each by the name of its golden files."""
