"""MD708: an Envoy of a version that this Consul does not support."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence import layout
from meshdoctor.evidence.connect import ConsulConnect
from meshdoctor.evidence.consul import SELF, ConsulCatalog
from meshdoctor.evidence.envoy import EnvoyProxies, EnvoyProxy, RejectedUpdate
from meshdoctor.evidence.versions import minor
from meshdoctor.findings import (
    Citation,
    Fact,
    Finding,
    Remedy,
    Severity,
    Subject,
    SubjectKind,
    subjects,
)
from meshdoctor.kinds import Kind
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.listeners import listener
from meshdoctor_checks.upstreams import sidecar_of
from meshdoctor_checks.wording import count, listing, verb

_UNKNOWN_TO_ENVOY: Final = (
    "Didn't find a registered implementation",
    "no such field",
    "has unknown fields",
    "Unable to parse JSON as proto",
    "deprecated",
)
"""What Envoy says of configuration that is of another version than its own."""


@check(
    code="MD708",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD308",),
    kinds=(Kind.CONSUL_CONNECT,),
)
def proxy_not_supported(
    mesh: Mesh, connect: ConsulConnect, proxies: EnvoyProxies, catalog: ConsulCatalog | None
) -> Iterator[Finding | Fact]:
    """A proxy runs an Envoy that this Consul does not support.

    ## Why it matters

    Each Consul writes configuration for a few versions of Envoy. Another one may refuse parts of
    it, and then keeps what it had: new listeners do not come, or changes have no effect. It may
    also work, until a service uses a feature that is written in another way.

    ## How it is found

    Consul's agent lists the versions that it supports (`xDS.SupportedProxies` of
    `/v1/agent/self`), and each Envoy says its own version; their major and minor numbers are
    compared. It is an error where the Envoy refuses an update for a reason that only another
    version explains, and a warning where it does not.

    ## How to fix it

    Run an Envoy that this Consul supports, or a Consul that supports this Envoy.
    """
    supported = [each for each in map(_minor, connect.supported_envoys) if each is not None]
    if not supported:
        raise CannotLookError("Consul's agent did not say which Envoys it supports")
    by_version: dict[str, list[EnvoyProxy]] = defaultdict(list)
    told = 0
    for proxy in proxies.proxies.values():
        version = proxy.server.version if proxy.server is not None else ""
        its = _minor(version)
        told += its is not None
        if its is not None and its not in supported:
            by_version[version].append(proxy)
    if not told:
        raise CannotLookError("no sidecar's server_info.json tells its version")
    consul = catalog.version if catalog is not None else ""
    for version, them in sorted(by_version.items()):
        yield _finding(mesh, connect, consul, version, them)
    if not by_version:
        yield Fact(f"{count(told, 'sidecar')} run an Envoy that this Consul supports")


def _finding(
    mesh: Mesh, connect: ConsulConnect, consul: str, version: str, them: Sequence[EnvoyProxy]
) -> Finding:
    refused = [(proxy, each) for proxy in them for each in proxy.rejected if _is_of_version(each)]
    names = [proxy.name for proxy in them]
    number = len(names)
    who = listing(names, most=4) if number <= len("four") else count(number, "sidecar")
    supported = listing([f"{each[0]}.{each[1]}" for each in _supported(connect)])
    called = f"Consul {consul}" if consul else "this Consul"
    which = " and ".join(
        dict.fromkeys(f"the {each.kind} {each.name}".rstrip() for _, each in refused)
    )
    said = (
        f", and {verb(len({proxy.name for proxy, _ in refused}), 'refuses', 'refuse')} {which}"
        if refused
        else ""
    )
    return Finding(
        message=(
            f"{who} {verb(number, 'runs', 'run')} Envoy {version}, which {called} does not "
            f"support (it supports {supported}){said}."
        ),
        subjects=tuple(_subjects(mesh, them, [(one.name, each) for one, each in refused])),
        seen_in=(
            Citation(SELF, "/xDS/SupportedProxies/envoy", listing(list(connect.supported_envoys))),
            *(
                Citation(proxy.document, each.pointer, proofs.shorten(each.details))
                for proxy, each in refused
            ),
            *(
                Citation(layout.envoy(name, "server_info.json"), "/version", version)
                for name in names
            ),
        ),
        remedies=(_remedy(connect, version, consul),),
        severity=Severity.ERROR if refused else Severity.WARNING,
    )


def _is_of_version(update: RejectedUpdate) -> bool:
    return any(sign in update.details for sign in _UNKNOWN_TO_ENVOY)


def _minor(version: str) -> tuple[int, int] | None:
    return minor(version.removeprefix("v"))


def _supported(connect: ConsulConnect) -> Sequence[tuple[int, int]]:
    found = {each for each in map(_minor, connect.supported_envoys) if each is not None}
    return sorted(found, reverse=True)


def _subjects(
    mesh: Mesh, them: Sequence[EnvoyProxy], refused: Sequence[tuple[str, RejectedUpdate]]
) -> Iterator[Subject]:
    """The registrations; the sidecars only where they refuse something for it.

    What a sidecar refuses for another reason is no symptom of its version.
    """
    names = {proxy.name for proxy in them}
    ids = []
    for instance in mesh.proxies:
        sidecar = sidecar_of(mesh, instance)
        if sidecar is not None and sidecar.name in names:
            ids.append(instance.id)
    yield from subjects(SubjectKind.INSTANCE, ids)
    for name, update in refused:
        if update.listener is not None:
            yield listener(update.listener.key, name)
        elif update.kind == "cluster":
            yield Subject(SubjectKind.CLUSTER, update.name)
        elif update.kind == "route":
            yield Subject(SubjectKind.ROUTE, update.name)


def _remedy(connect: ConsulConnect, version: str, consul: str) -> Remedy:
    its = _minor(version)
    newest = connect.supported_envoys[0]
    newer = its is not None and its > max(_supported(connect))
    other = (
        f"or a Consul newer than {consul or 'this one'} that supports {version}"
        if newer
        else "or have the sidecars' Envoy updated with Consul"
    )
    return Remedy(
        summary=f"Run the sidecars with Envoy {newest}, {other}.",
        commands=(commands.see_that_it_worked("MD708", "MD308"),),
        effect=(
            "Each sidecar must be started again: `consul connect envoy` starts the program that "
            "-envoy-binary names, else the `envoy` that it finds."
        ),
    )
