"""MD707: a proxy's certificate is expired, or of another authority than Consul's."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence import layout
from meshdoctor.evidence.connect import ROOTS, ConsulConnect
from meshdoctor.evidence.envoy import Certificate, Certificates, EnvoyProxies, EnvoyProxy
from meshdoctor.evidence.times import moment
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
from meshdoctor_checks import commands
from meshdoctor_checks.neighbours import workload_named
from meshdoctor_checks.upstreams import sidecar_named
from meshdoctor_checks.wording import count

_LEFT: Final = 0.1
"""Consul renews a leaf long before this share of its life is left."""


@check(
    code="MD707",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD402", "MD405", "MD603"),
    kinds=(Kind.CONSUL_CONNECT,),
)
def certificate_unsound(
    mesh: Mesh, connect: ConsulConnect, proxies: EnvoyProxies
) -> Iterator[Finding | Fact]:
    """A proxy shows a certificate that is expired or of another authority than Consul's.

    ## Why it matters

    Proxies of the mesh prove to each other who they are. With an expired certificate, or one of
    another trust domain, each call to it and from it fails while both services are well.

    ## How it is found

    Each Envoy's `/certs` lists what it shows and whom it believes. Its leaf is compared with the
    time of the recording; the trust domain in its name, and the serial numbers of the authorities
    it believes, with Consul's own roots. Where a tenth of its life is left and it was not renewed,
    or the authority it believes is not the active one any more, it is a warning.

    ## How to fix it

    Start the proxy again with a bootstrap of this Consul; see why it no longer hears from it.
    """
    read = [proxy for proxy in proxies.proxies.values() if proxy.certificates is not None]
    if not read:
        raise CannotLookError("no sidecar's certs.json was recorded")
    now = moment(proxies.recorded)
    sound = 0
    for proxy in read:
        if proxy.certificates is None or not proxy.certificates.chains:
            continue
        faults = tuple(_faults(proxy, proxy.certificates, connect, now))
        sound += not faults
        for message, proof, severity in faults:
            yield _finding(mesh, proxy, message, proof, severity)
    if sound:
        yield Fact(
            f"the certificates of {count(sound, 'sidecar')} are of Consul's authority"
            f"{'' if now is None else ' and in force'}"
        )


_Fault = tuple[str, Citation, Severity]


def _faults(
    proxy: EnvoyProxy, held: Certificates, connect: ConsulConnect, now: datetime | None
) -> Iterator[_Fault]:
    document = layout.envoy(proxy.name, "certs.json")
    for leaf in (chain[0] for chain in held.chains if chain):
        domain = next((_domain(uri) for uri in leaf.uris), "")
        if domain and connect.trust_domain and domain != connect.trust_domain:
            said = f"{domain}, and this Consul's is {connect.trust_domain}"
            yield (
                f"shows a certificate of the trust domain {said}",
                Citation(document, leaf.pointer, leaf.uris[0]),
                Severity.ERROR,
            )
        elif now is not None:
            yield from _expiry(document, leaf, now)
    yield from _trust(document, held, connect)


def _expiry(document: str, leaf: Certificate, now: datetime) -> Iterator[_Fault]:
    begins, ends = moment(leaf.valid_from), moment(leaf.expires)
    if ends is None:
        return
    proof = Citation(document, leaf.pointer, f"{leaf.valid_from} to {leaf.expires}")
    if ends <= now:
        yield f"shows a certificate that expired at {leaf.expires}", proof, Severity.ERROR
    elif begins is not None and begins < ends and (ends - now) < _LEFT * (ends - begins):
        yield (
            f"shows a certificate that expires at {leaf.expires} and was not renewed",
            proof,
            Severity.WARNING,
        )


def _trust(document: str, held: Certificates, connect: ConsulConnect) -> Iterator[_Fault]:
    """By serial number: Envoy writes it in hexadecimal digits, Consul as a number."""
    known = {root.serial: root for root in connect.roots if root.serial}
    believed = {number for each in held.authorities if (number := _serial(each)) is not None}
    if not known or not believed:
        return
    proof = Citation(document, held.authorities[0].pointer, f"serial {held.authorities[0].serial}")
    if not believed & set(known):
        yield "believes an authority that is none of this Consul's", proof, Severity.ERROR
        return
    active = next((root for root in known.values() if root.active), None)
    if active is not None and active.serial not in believed:
        yield (
            f"does not believe the active root {active.name} yet, so a rotation is not complete",
            proof,
            Severity.WARNING,
        )


def _serial(certificate: Certificate) -> int | None:
    try:
        return int(certificate.serial, 16)
    except ValueError:
        return None


def _domain(uri: str) -> str:
    """`spiffe://<trust domain>/ns/...`."""
    return uri.removeprefix("spiffe://").partition("/")[0]


def _finding(
    mesh: Mesh, proxy: EnvoyProxy, message: str, proof: Citation, severity: Severity
) -> Finding:
    sidecar = sidecar_named(mesh, proxy.name)
    workload = None if sidecar is None else workload_named(mesh, sidecar.workload)
    services = () if workload is None else workload.services
    return Finding(
        message=f"{proxy.name} {message}.",
        subjects=(
            Subject(SubjectKind.SIDECAR, proxy.name),
            *subjects(SubjectKind.SERVICE, services if severity is Severity.ERROR else ()),
            *subjects(
                SubjectKind.WORKLOAD,
                (sidecar.workload,) if sidecar is not None and sidecar.workload else (),
            ),
        ),
        seen_in=(proof, Citation(ROOTS, "", "the roots that Consul knows")),
        remedies=(
            _start_again(proxy, services[0] if services else "")
            if severity is Severity.ERROR
            else _WAIT,
        ),
        severity=severity,
    )


_WAIT: Final = Remedy(
    summary=(
        "Consul sends certificates and roots by itself: look again in a minute, and where it "
        "stays, see whether the sidecar still hears from Consul."
    ),
    commands=(commands.see_that_it_worked("MD707", "MD306"),),
)


def _start_again(proxy: EnvoyProxy, service: str) -> Remedy:
    return Remedy(
        summary=(
            f"Start {proxy.name} again with a bootstrap of this Consul, which gives it a new "
            "certificate."
        ),
        commands=(
            *(
                (commands.quoted("consul", "connect", "envoy", "-sidecar-for", service),)
                if service
                else ()
            ),
            commands.see_that_it_worked("MD707", "MD306"),
        ),
    )
