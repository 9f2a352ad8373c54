"""MD703: nothing answers for a proxy that is registered."""

import functools
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence import layout
from meshdoctor.evidence.addresses import host_port
from meshdoctor.evidence.consul import ConsulCatalog, HealthCheck, Instance
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
from meshdoctor.routing.hosts import Identity
from meshdoctor.topology import Mesh, SidecarState
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.upstreams import sidecar_of
from meshdoctor_checks.wording import count, verb

_ADMIN_PORT: Final = 19000
"""Where `consul connect envoy` has Envoy's admin interface unless told otherwise."""
_REFUSED = ("dial tcp", "connection refused", "i/o timeout", "no route to host")
"""What a check of Consul's prints where nothing listens on the proxy's port."""


@check(
    code="MD703",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD211", "MD301", "MD311", "MD402", "MD405", "MD603"),
    kinds=(Kind.CONSUL_CONNECT,),
)
def registered_proxy_not_running(mesh: Mesh, catalog: ConsulCatalog) -> Iterator[Finding | Fact]:
    """A proxy is registered in Consul, and nothing answers on its port.

    ## Why it matters

    Callers reach a service of the mesh only through its proxy. Until Consul holds it for critical
    they go on connecting there; then they have no endpoint, though the service itself is well.

    ## How it is found

    The registration of a `connect-proxy` has a health check of its own that could not connect to
    its port, or its container does not run. That the admin interface cannot be read is no sign of
    it: MD311 says so.

    ## How to fix it

    Start the proxy; where it was taken away on purpose, take its registration out.
    """
    registered = [each for each in catalog.instances if each.proxy is not None]
    if not registered:
        raise CannotLookError("the catalogue lists no connect-proxy")
    silent: dict[str, HealthCheck | None] = {}
    looked = 0
    for each in registered:
        checks = [one for one in catalog.checks_of(each) if one.service_id == each.id]
        sidecar = sidecar_of(mesh, each)
        looked += bool(checks) or (sidecar is not None and sidecar.container is not None)
        refused = next((one for one in checks if _refuses(one)), None)
        down = sidecar is not None and sidecar.state is SidecarState.DOWN
        if refused is not None or down:
            silent[each.id] = refused
    if not looked:
        raise CannotLookError("neither Consul's health checks nor containers tell of the proxies")
    by_service: dict[str, list[Instance]] = defaultdict(list)
    for each in registered:
        by_service[each.service].append(each)
    for each in registered:
        if each.id in silent:
            alone = all(other.id in silent for other in by_service[each.service])
            yield _finding(mesh, each, silent, is_last=alone)
    if not silent:
        yield Fact(
            f"{count(looked, 'registered proxy', 'registered proxies')} "
            f"{verb(looked, 'answers', 'answer')} on {verb(looked, 'its port', 'their ports')}"
        )


def _refuses(check: HealthCheck) -> bool:
    """An alias check tells of the service behind the proxy, in the words of that one's check."""
    is_own = not check.output.startswith("Aliased check")
    return check.status == "critical" and is_own and any(sign in check.output for sign in _REFUSED)


def _finding(
    mesh: Mesh, instance: Instance, silent: Mapping[str, HealthCheck | None], *, is_last: bool
) -> Finding:
    service = instance.proxy.destination if instance.proxy is not None else instance.service
    at = host_port(instance.address, instance.port)
    refused = silent[instance.id]
    sidecar = sidecar_of(mesh, instance)
    reason = (
        f'"{" ".join(refused.output.replace(chr(34), chr(39)).split())}"'
        if refused is not None
        else "its container does not run"
    )
    rest = "no caller reaches it" if is_last else "callers must do with its other instances"
    return Finding(
        message=(
            f"The proxy {instance.id} of {service} is registered at {at}, and nothing answers "
            f"there ({reason}): {rest}."
        ),
        subjects=(
            Subject(SubjectKind.INSTANCE, instance.id),
            # What befalls calls to the service has another cause where other instances are well.
            *subjects(SubjectKind.SERVICE, (service, instance.service) if is_last else ()),
            *subjects(SubjectKind.SIDECAR, () if sidecar is None else (sidecar.name,)),
        ),
        seen_in=(
            proofs.registration(instance),
            *(
                ()
                if refused is None
                else (
                    Citation(
                        layout.health_service(instance.service),
                        "",
                        proofs.shorten(f"{refused.name} is {refused.status}: {refused.output}"),
                    ),
                )
            ),
        ),
        remedies=(_start(mesh, instance), _deregister(instance)),
    )


def _start(mesh: Mesh, instance: Instance) -> Remedy:
    sidecar = sidecar_of(mesh, instance)
    container = sidecar.container if sidecar is not None else None
    admin = _free_admin(mesh, instance)
    if container is not None:
        start = commands.start(container)
        summary = f"Start the proxy {instance.id} again."
    else:
        options = ("-admin-bind", admin) if admin else ()
        start = commands.quoted(
            *("consul", "connect", "envoy"), *_which(instance), *options, *_plain(mesh, instance)
        )
        summary = f"Start the proxy {instance.id} again, with the options it had " + (
            f"(of the proxies that were read on {instance.node}, none has its admin interface at "
            f"{admin})."
            if admin
            else "(a -admin-bind of its own, where several run on one host)."
        )
    return Remedy(
        summary=summary,
        commands=(start, commands.see_that_it_worked("MD703", "MD402")),
        effect="Consul sees it within the interval of its check, and gives it to callers again.",
    )


def _free_admin(mesh: Mesh, instance: Instance) -> str:
    """An admin address for it beside those that its neighbours have; "" where none was read."""
    taken, free = _admin_ports(Identity(mesh)).get(instance.node, (Counter(), _ADMIN_PORT))
    own = _admin_port(mesh, instance)
    is_its_own = taken[own] == 1
    if len(taken) == is_its_own:
        return ""
    port = min(own, free) if is_its_own and own >= _ADMIN_PORT else free
    return host_port("127.0.0.1", port)


@functools.lru_cache(maxsize=2)
def _admin_ports(mesh: Identity[Mesh]) -> Mapping[str, tuple[Counter[int], int]]:
    """By node, how many proxies that were read have each admin port, and the first free one."""
    taken: dict[str, Counter[int]] = defaultdict(Counter)
    for each in mesh.fact.proxies:
        if port := _admin_port(mesh.fact, each):
            taken[each.node][port] += 1
    return {
        node: (ports, next(each for each in itertools.count(_ADMIN_PORT) if each not in ports))
        for node, ports in taken.items()
    }


def _admin_port(mesh: Mesh, instance: Instance) -> int:
    """0 where its Envoy was not read."""
    sidecar = sidecar_of(mesh, instance)
    return 0 if sidecar is None or sidecar.proxy is None else sidecar.proxy.admin_port


def _plain(mesh: Mesh, instance: Instance) -> Sequence[str]:
    """Where its own agent serves Envoys without TLS: left alone, the command prefers TLS."""
    told = mesh.connect
    if told is None or not told.plain_port or told.agent != instance.node:
        return ()
    return "-grpc-addr", f"http://127.0.0.1:{told.plain_port}"


def _which(instance: Instance) -> Sequence[str]:
    served = instance.proxy.destination_id if instance.proxy is not None else ""
    if served and instance.id == f"{served}-sidecar-proxy":
        return "-sidecar-for", served
    return "-proxy-id", instance.id


def _deregister(instance: Instance) -> Remedy:
    return Remedy(
        summary="Where it was taken away on purpose, take its registration out instead.",
        commands=(
            commands.quoted("consul", "services", "deregister", f"-id={instance.id}"),
            commands.see_that_it_worked("MD703"),
        ),
        effect="Callers no longer know of it.",
        destructive=True,
    )
