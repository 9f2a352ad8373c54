"""MD108: sidecars of different Envoy versions, or of one that the control plane cannot serve."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence import layout
from meshdoctor.evidence.envoy import CONNECTED_STATE, EnvoyProxies, EnvoyProxy
from meshdoctor.evidence.versions import minor
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds.istio_consul import DISCOVERY_CLUSTER
from meshdoctor.topology import Component, Mesh, Role
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing, verb

_V2_DROPPED: Final = (1, 18)
"""Envoy 1.18 removed the v2 API; up to 1.17 it could still be asked for."""
_V3_SPOKEN: Final = (1, 7)
"""Pilot speaks v3 since Istio 1.7, which still speaks v2 too."""


@check(code="MD108", severity=Severity.WARNING, since="0.1")
def proxy_version_skew(mesh: Mesh, proxies: EnvoyProxies) -> Iterator[Finding | Fact]:
    """Sidecars run different versions of Envoy, or one that the control plane does not serve.

    ## Why it matters

    Versions differ in what configuration they take: what one sidecar does, another refuses, so
    the same call works from one application and not from the next. A Pilot before Istio 1.7
    speaks Envoy's v2 API alone, which Envoy 1.18 and later no longer know: such a sidecar gets
    nothing.

    ## How it is found

    From each proxy's `/server_info`. Versions that differ in the last number only are a note. For
    what Pilot serves, its image's tag counts, and only the proxies that are told to ask it.

    ## How to fix it

    Give all sidecars the proxy image that belongs to the control plane's version.
    """
    versions: dict[str, list[str]] = defaultdict(list)
    for name, proxy in proxies.proxies.items():
        if proxy.server is not None and minor(proxy.server.version) is not None:
            versions[proxy.server.version].append(name)
    if not versions:
        raise CannotLookError("no sidecar's server_info.json tells its version")
    pilot = mesh.component(Role.PILOT)
    too_new = _too_new(proxies.proxies, pilot)
    if pilot is not None and too_new:
        yield _not_served(mesh, pilot, too_new, proxies.proxies)
    if len(versions) > 1:
        yield _skew(mesh, versions)
    elif not too_new:
        (version, names), *_ = versions.items()
        yield Fact(
            f"{count(len(names), 'sidecar')} {verb(len(names), 'runs', 'run')} Envoy {version}"
        )


def _too_new(proxies: Mapping[str, EnvoyProxy], pilot: Component | None) -> Sequence[str]:
    """The sidecars that ask a Pilot of v2 alone and do not know v2 any more."""
    spoken = None if pilot is None else minor(pilot.container.image_tag)
    if spoken is None or spoken >= _V3_SPOKEN:
        return ()
    return [
        name
        for name, proxy in proxies.items()
        if _asks_for_more(proxy) and (_version(proxy) or (0, 0)) >= _V2_DROPPED
    ]


def _version(proxy: EnvoyProxy) -> tuple[int, int] | None:
    return None if proxy.server is None else minor(proxy.server.version)


def _asks_for_more(proxy: EnvoyProxy) -> bool:
    """True of a proxy with a control plane to ask, which one fed by files has not."""
    named = any(entry.cluster.name == DISCOVERY_CLUSTER for entry in proxy.clusters)
    return named or CONNECTED_STATE in proxy.stats


def _seen(name: str, version: str) -> Citation:
    return Citation(layout.envoy(name, "server_info.json"), "/version", version)


def _skew(mesh: Mesh, versions: Mapping[str, Sequence[str]]) -> Finding:
    ordered = sorted(versions.items(), key=lambda each: (-len(each[1]), each[0]))
    said = listing([f"{version} ({_those(names)})" for version, names in ordered])
    usual, odd = ordered[0][0], [name for _, names in ordered[1:] for name in names]
    alike = len({minor(version) for version in versions}) == 1
    return Finding(
        message=f"The sidecars run {len(versions)} versions of Envoy: {said}.",
        subjects=subjects(SubjectKind.SIDECAR, odd),
        seen_in=tuple(_seen(names[0], version) for version, names in ordered),
        remedies=(_replace(mesh, odd, f"the image of the others, which run {usual}"),),
        severity=Severity.INFO if alike else Severity.WARNING,
    )


def _those(names: Sequence[str]) -> str:
    return listing(names) if len(names) <= 2 else count(len(names), "sidecar")  # noqa: PLR2004 # few enough to name


def _not_served(
    mesh: Mesh, pilot: Component, names: Sequence[str], proxies: Mapping[str, EnvoyProxy]
) -> Finding:
    number = len(names)
    version = {name: server.version for name in names if (server := proxies[name].server)}
    newest = listing(sorted(set(version.values())))
    tag = pilot.container.image_tag
    return Finding(
        message=(
            f"{count(number, 'sidecar')} {verb(number, 'runs', 'run')} Envoy {newest}, which no "
            f"longer knows the v2 API, and Pilot {tag} ({pilot.name}) speaks no other, so "
            f"{verb(number, 'it gets', 'they get')} nothing from it."
        ),
        subjects=(
            *subjects(SubjectKind.SIDECAR, names),
            *subjects(SubjectKind.COMPONENT, (pilot.name,)),
        ),
        seen_in=(
            *(_seen(name, each) for name, each in version.items()),
            proofs.container(pilot.container, "/Config/Image", pilot.container.image),
        ),
        remedies=(_replace(mesh, names, f"the proxy image of Istio {tag}"),),
    )


def _replace(mesh: Mesh, names: Sequence[str], image: str) -> Remedy:
    containers = [
        each.container
        for each in mesh.sidecars
        if each.name in names and each.container is not None
    ]
    return Remedy(
        summary=f"Give {listing(names)} {image}, then recreate {verb(len(names), 'it', 'them')}.",
        commands=(*commands.recreate(containers), commands.see_that_it_worked("MD108")),
        effect="Calls to and from their applications fail until they are up again.",
    )
