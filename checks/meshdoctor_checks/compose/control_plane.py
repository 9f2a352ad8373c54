"""Whether applications would find services by their names."""

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Final

from meshdoctor.check import CannotLookError
from meshdoctor.evidence.compose import PlannedPort
from meshdoctor.evidence.consul import DNS_DOMAIN
from meshdoctor.evidence.docker import EVERYWHERE
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.topology import Role
from meshdoctor.topology.plan import Plan, PlannedWorkload
from meshdoctor_checks.compose import files
from meshdoctor_checks.compose_edits import Change, Element
from meshdoctor_checks.wording import count, listing, verb

_DNS: Final = 53


def consul_dns_unreachable(plan: Plan) -> Iterator[Finding | Fact]:
    """MD105, from `dns`, `dns_search` and the ports that Consul publishes."""
    files.require_instances(plan)
    consul = plan.component(Role.CONSUL)
    meant = [each for each in plan.workloads if each.has_settings and each.expected]
    asking = [each for each in meant if each.container.dns]
    silent = [each for each in meant if not each.container.dns and not _docker_knows(plan)]
    if consul is None and not asking:
        raise CannotLookError(
            "these files hold no Consul, and no application that names a DNS server",
            "name the control plane's file too, with --compose",
        )
    found = False
    for finding in (
        *_astray(plan, asking),
        *_everywhere(plan),
        *_silent(plan, silent, beside_others=bool(asking)),
        *_without_domain(plan, asking),
    ):
        found = True
        yield finding
    if asking and not found:
        yield Fact(f"{count(len(asking), 'application')} would ask Consul for names")


def _docker_knows(plan: Plan) -> bool:
    """True where Docker's own DNS has every service's name, by a service of the files."""
    known = {
        name
        for each in plan.files.services.values()
        for name in (each.name, *(one for net in each.networks.values() for one in net.aliases))
    }
    return set(plan.services) <= known


def _published(plan: Plan) -> Sequence[PlannedPort]:
    """Where the files publish Consul's DNS as port 53."""
    return [
        port
        for each in plan.components
        if each.role is Role.CONSUL
        for port in plan.files.services[each.name].ports
        if (port.host_port, port.protocol) == (_DNS, "udp")
    ]


def _astray(plan: Plan, asking: Sequence[PlannedWorkload]) -> Iterator[Finding]:
    """Those who ask the host's address on a network of the files, where Consul is not published.

    Other servers are not judged: they may know Consul's names.
    """
    if plan.component(Role.CONSUL) is None:
        return
    published = _published(plan)
    if any(each.host_address in EVERYWHERE for each in published):
        return
    served = {each.host_address for each in published}
    astray: dict[str, list[PlannedWorkload]] = {}
    for each in asking:
        theirs = each.container.dns
        if not served & set(theirs) and all(_is_gateway(plan, one) for one in theirs):
            astray.setdefault(theirs[0], []).append(each)
    for address, group in sorted(astray.items()):
        names = [each.name for each in group]
        change = _publish(plan, address, published)
        there = (
            f"Consul's DNS would be published on {listing(sorted(served))}"
            if served
            else "these files do not publish Consul's DNS as port 53/udp"
        )
        yield Finding(
            message=(
                f"{listing(names)} would ask {address} for names, where no Consul would answer: "
                f"{there}."
            ),
            subjects=subjects(SubjectKind.WORKLOAD, names),
            seen_in=(
                *(files.cite_setting("dns", one) for each in group for one in each.service.dns),
                *(files.cite_setting("ports", each.written) for each in published),
            ),
            remedies=(files.remedy(plan, f"Publish `{address}:53:8600/udp` of Consul.", change),),
        )


def _publish(plan: Plan, address: str, published: Sequence[PlannedPort]) -> Change:
    """Nothing where it is published already: which of the two addresses is meant, who knows."""
    consuls = [
        plan.files.services[each.name] for each in plan.components if each.role is Role.CONSUL
    ]
    if published or len(consuls) != 1:
        return Change(None)
    return files.change(plan, consuls, Element("ports", f"{address}:53:8600/udp"))


def _is_gateway(plan: Plan, address: str) -> bool:
    for network in plan.files.networks.values():
        if address in network.gateways:
            return True
        for subnet in network.subnets:
            try:
                first = next(ipaddress.ip_network(subnet, strict=False).hosts(), None)
            except ValueError:
                continue
            # Docker gives the host the first address where nobody chose another.
            if not network.gateways and first is not None and address == str(first):
                return True
    return False


def _everywhere(plan: Plan) -> Iterator[Finding]:
    """Port 53 of every address, because a variable that should name one is not set."""
    for each in _published(plan):
        if each.host_address not in EVERYWHERE or not each.written.unset:
            continue
        names = sorted(set(each.written.unset))
        number = len(names)
        consuls = [one.name for one in plan.components if one.role is Role.CONSUL]
        gateway = next(
            (one for net in plan.files.networks.values() for one in net.gateways), "172.28.0.1"
        )
        yield Finding(
            message=(
                f"{listing(names)} {verb(number, 'is', 'are')} not set, so Docker would publish "
                "Consul's DNS as port 53 of every address of the host: where the host has a DNS "
                "server of its own, as most Linux hosts have, Consul would not start."
            ),
            subjects=subjects(SubjectKind.COMPONENT, consuls),
            seen_in=(files.cite_setting("ports", each.written),),
            remedies=(
                Remedy(
                    summary=(
                        "On Linux name the network's gateway, with the colon behind it; a .env "
                        "beside the file will do."
                    ),
                    commands=(
                        f"export {names[0]}={gateway}:",
                        files.see_that_it_worked(plan),
                    ),
                ),
            ),
            severity=Severity.WARNING,
        )


def _silent(
    plan: Plan, silent: Sequence[PlannedWorkload], *, beside_others: bool
) -> Iterator[Finding]:
    if not silent:
        return
    names = [each.name for each in silent]
    change = _ask(plan, silent)
    number = len(names)
    yield Finding(
        message=(
            f"{listing(names)} {verb(number, 'names', 'name')} no DNS server (`dns`): Docker's "
            f"own does not know the names that Consul would have, as {plan.services[0]}."
        ),
        subjects=subjects(SubjectKind.WORKLOAD, names),
        seen_in=tuple(files.cite_service(each.service) for each in silent),
        remedies=(
            files.remedy(
                plan,
                f"Give {verb(number, 'it', 'them')} `dns` with the address where Consul's "
                "DNS is published, and "
                f"`dns_search: {DNS_DOMAIN}`.",
                change,
            ),
        ),
        severity=Severity.ERROR if beside_others else Severity.WARNING,
    )


def _ask(plan: Plan, silent: Sequence[PlannedWorkload]) -> Change:
    """The address where Consul's DNS is published, where the files tell one."""
    addresses = {each.host_address for each in _published(plan)} - EVERYWHERE
    if len(addresses) != 1:
        return Change(None)
    services = [each.service for each in silent]
    return files.change(
        plan,
        services,
        Element("dns", addresses.pop(), first=True),
        Element("dns_search", DNS_DOMAIN, first=True),
    )


def _without_domain(plan: Plan, asking: Sequence[PlannedWorkload]) -> Iterator[Finding]:
    lacking = [each for each in asking if DNS_DOMAIN not in each.container.dns_search]
    if not lacking or _docker_knows(plan):
        return
    names = [each.name for each in lacking]
    services = [each.service for each in lacking]
    change = files.change(plan, services, Element("dns_search", DNS_DOMAIN, first=True))
    number = len(names)
    yield Finding(
        message=(
            f"{listing(names)} {verb(number, 'lacks', 'lack')} the search domain {DNS_DOMAIN} "
            f"(`dns_search`): there {plan.services[0]} would not resolve, only "
            f"{plan.services[0]}.{DNS_DOMAIN} would."
        ),
        subjects=subjects(SubjectKind.WORKLOAD, names),
        seen_in=tuple(files.cite_service(each.service) for each in lacking),
        remedies=(
            files.remedy(plan, f"Add `dns_search: {DNS_DOMAIN}` to {listing(names)}.", change),
        ),
        severity=Severity.ERROR if len(lacking) < len(asking) else Severity.WARNING,
    )
