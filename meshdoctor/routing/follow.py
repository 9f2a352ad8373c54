"""A call followed through one proxy's real configuration, decision by decision, as Envoy would."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from meshdoctor.evidence.addresses import bracketed, host_port, is_loopback
from meshdoctor.evidence.envoy import (
    ClusterEntry,
    Endpoint,
    EnvoyProxy,
    FilterChain,
    HttpConnectionManager,
    Listener,
    ListenerEntry,
    NetworkFilter,
    RouteConfiguration,
    TcpProxy,
    VirtualHost,
    spelling,
)
from meshdoctor.evidence.netfilter import NatTable
from meshdoctor.routing.chains import find_chain
from meshdoctor.routing.clusters import Choice, balance, balance_levels, by_priority, in_subset
from meshdoctor.routing.configuration import Configuration, configuration
from meshdoctor.routing.connection_manager import judge_settings, require_tls, scheme, seen_path
from meshdoctor.routing.filters import Passage, pass_http_filters, pass_network_filter
from meshdoctor.routing.hosts import find_virtual_host, seen_host
from meshdoctor.routing.matching import Headers, request_headers
from meshdoctor.routing.model import (
    Answered,
    Bypassed,
    Call,
    Closed,
    Destination,
    Hop,
    HopKind,
    NotTaken,
    Outcome,
    Reached,
    UndecidedError,
    Unknown,
    Walk,
)
from meshdoctor.routing.not_taken import (
    NAMED,
    other_chains,
    other_hosts,
    other_listeners,
    other_routes,
)
from meshdoctor.routing.redirect import NotRedirected, redirect
from meshdoctor.routing.routes import Picked, ToCluster, act, notes, pick_routes, route_name, split
from meshdoctor.routing.version import injects_tls_inspector, since_1_39

Part = tuple[float, Reached | Answered | Closed | Unknown]


def follow(
    proxy: EnvoyProxy,
    call: Call,
    *,
    nat: NatTable | None = None,
    own_addresses: frozenset[str] = frozenset(),
    explain: bool = False,
    config: Configuration | None = None,
) -> Walk:
    """Follow `call` through `proxy`.

    `nat` are the rules of the network namespace that the call starts in (or, for an inbound one,
    arrives in), and `own_addresses` the addresses of that namespace. Without rules, a proxy with
    a listener that uses the original destination is taken to get every call that is not to
    localhost; the hop says that this is assumed. With `explain`, the walk also holds what was
    nearly taken. `config` is the proxy's index, for who has it at hand. Nothing is raised: what
    cannot be told is an Unknown outcome.
    """
    if config is None:
        config = configuration(proxy)
    walker = _Walker(config, call, nat, own_addresses, explain=explain)
    try:
        outcome = walker.walk()
    except UndecidedError as error:
        outcome = Unknown(str(error))
    return Walk(
        proxy=proxy.name,
        call=call,
        hops=tuple(walker.hops),
        outcome=outcome,
        notes=tuple(dict.fromkeys(walker.passage.notes)),
        not_taken=tuple(walker.not_taken),
    )


class _Place(msgspec.Struct):
    """A chain of a listener, and where it is written."""

    entry: ListenerEntry
    chain: FilterChain
    pointer: str


class _Walker(msgspec.Struct):
    """One walk under way."""

    config: Configuration
    call: Call
    nat: NatTable | None
    own_addresses: frozenset[str]
    explain: bool
    hops: list[Hop] = msgspec.field(default_factory=list)
    not_taken: list[NotTaken] = msgspec.field(default_factory=list)
    passage: Passage = msgspec.field(default_factory=Passage)
    restored: bool = False

    def walk(self) -> Outcome:
        arrived = self.arrive()
        if not isinstance(arrived, ListenerEntry):
            return arrived
        found = self.chain(arrived.listener)
        if found is None:
            return Closed("NR", f"no filter chain of listener {arrived.listener.key} matches")
        place, chain, why = found
        pointer = (
            spelling.below(arrived.pointer, "default_filter_chain")
            if place is None
            else spelling.below(arrived.pointer, "filter_chains", place)
        )
        name = chain.name or ("default" if place is None else f"{arrived.listener.key} #{place}")
        self.hop(HopKind.FILTER_CHAIN, name, why, pointer)
        if self.explain:
            self.not_taken += other_chains(self.config, self.call, arrived, place)
        return self.through(_Place(arrived, chain, pointer))

    def chain(self, listener: Listener) -> tuple[int | None, FilterChain, str] | None:
        injects = injects_tls_inspector(self.config.proxy)
        return find_chain(listener, self.call, injects_tls_inspector=injects)

    # ------------------------------------------------------------ to a listener

    def arrive(self) -> ListenerEntry | Closed | Bypassed:
        call = self.call
        if self.nat is not None:
            verdict = redirect(self.nat, call, self.own_addresses)
            if isinstance(verdict, NotRedirected):
                rule = verdict.rule
                why = (
                    "no nat rule takes the call"
                    if rule is None
                    else f"the nat rule of line {rule.line} lets it be: {rule.text}"
                )
                self.hop(HopKind.REDIRECT, "none", why, "", self.nat.document)
                return self.straight(why)
            rule = verdict.rule
            self.hop(
                HopKind.REDIRECT,
                f"to port {verdict.port}",
                f"the nat rule of line {rule.line}: {rule.text}",
                "",
                self.nat.document,
            )
            entry = self.config.listening_on(verdict.port)
            if entry is None:
                self.config.need("listeners")
                return Closed("", f"refused: the proxy has no listener on port {verdict.port}")
            return self.hand_over(entry)
        if is_loopback(call.address) or not (entries := self.config.original_destination):
            return self.straight("the nat rules are not known")
        wanted = "INBOUND" if call.inbound else "OUTBOUND"
        entry = min(
            entries,
            key=lambda each: (each.listener.traffic_direction not in (wanted, ""), each.pointer),
        )
        self.hop(
            HopKind.REDIRECT,
            f"to port {entry.listener.port}",
            "assumed, because the nat rules are not known: the listener there takes calls by "
            "their original destination",
            entry.pointer,
        )
        return self.hand_over(entry)

    def straight(self, why: str) -> ListenerEntry | Bypassed:
        """A call that is not redirected meets the proxy only where it listens itself."""
        call = self.call
        local = is_loopback(call.address) or call.address in self.own_addresses or call.inbound
        found = self.config.bound_listener(call.address, call.port, local=local)
        if found is None:
            return Bypassed(
                call.address,
                call.port,
                f"{why}, and the proxy does not listen on {call.destination}",
            )
        entry, reason = found
        self.listener_hop(entry, reason)
        return entry

    def hand_over(self, entry: ListenerEntry) -> ListenerEntry:
        """From the listener that the redirect leads to, to the one the call was meant for."""
        listener = entry.listener
        self.restored = listener.restores_destination
        if not listener.use_original_dst:
            self.listener_hop(entry, "the redirect leads there, and it keeps the call")
            return entry
        found = self.config.listener_for(self.call.address, self.call.port)
        if found is None:
            self.listener_hop(
                entry,
                f"no listener has {self.call.destination}, so the one that took the redirected "
                "call keeps it",
            )
            return entry
        taken, why = found
        self.listener_hop(taken, f"the original destination is {self.call.destination}: {why}")
        return taken

    def listener_hop(self, entry: ListenerEntry, why: str) -> None:
        name = entry.listener.key
        if entry.listener.name and entry.listener.name != name:
            name = f"{name} ({entry.listener.name})"
        self.hop(HopKind.LISTENER, name, why, entry.pointer)
        if self.explain:
            port = self.call.port if self.restored else entry.listener.port
            self.not_taken += other_listeners(self.config, self.call, entry, port)

    # ------------------------------------------------------------ through its filters

    def through(self, place: _Place) -> Outcome:
        chain, call = place.chain, self.call
        terminates = _terminates_tls(chain)
        if terminates and not call.tls:
            return Closed("", "the filter chain expects TLS, and the call is plain")
        for number, each in enumerate(chain.filters):
            match each:
                case NetworkFilter():
                    ended = pass_network_filter(each, self.passage, self.call)
                    if ended is not None:
                        return ended
                case TcpProxy():
                    return self.tcp(each)
                case HttpConnectionManager():
                    if call.host is None:
                        return Closed("", "the filter chain expects HTTP, and the call is none")
                    if call.tls and not terminates:
                        return Closed(
                            "", "the filter chain expects plain HTTP, and the call is TLS"
                        )
                    pointer = spelling.below(place.pointer, "filters", number)
                    return self.http(each, call.host, pointer)
        return Closed("", "the filter chain has no filter that would take the call on")

    def tcp(self, proxy: TcpProxy) -> Outcome:
        if proxy.tunneling:
            self.passage.notes.append("carried in an HTTP CONNECT to the cluster")
        if self.passage.sni_cluster and self.call.tls and self.call.server_name:
            shares = [ToCluster(self.call.server_name, 1.0, "the server name (SNI) names it")]
        elif proxy.weighted_clusters:
            shares = [
                ToCluster(
                    cluster=each.name,
                    share=share,
                    why=f"the TCP proxy sends it {share:.0%} of the connections",
                    metadata_match=each.metadata_match or proxy.metadata_match,
                )
                for each, share in split(proxy.weighted_clusters)
            ]
        else:
            why = "the TCP proxy passes every connection on to it"
            shares = [ToCluster(proxy.cluster, 1.0, why, metadata_match=proxy.metadata_match)]
        return _together([(each.share, self.cluster(each, http=False)) for each in shares])

    # ------------------------------------------------------------ through its routes

    def http(self, manager: HttpConnectionManager, host: str, pointer: str) -> Outcome:
        call = self.call
        if not host:
            return Answered(400, "", "the request has no Host header")
        headers = request_headers(
            authority=seen_host(manager, host, call.port),
            path=seen_path(manager, call.path),
            method=call.method,
            scheme=scheme(call),
            headers=call.headers,
            since_1_39=since_1_39(self.config.proxy),
        )
        judge_settings(manager, headers, self.passage)
        found = self.route_configuration(manager, pointer)
        if isinstance(found, Answered):
            return self.answered(manager, (), found, headers)
        config, config_pointer, cited = found
        authority = headers[":authority"]
        hit = find_virtual_host(config, authority)
        if hit is None:
            if config.vhds:
                raise UndecidedError(
                    f"no virtual host has {authority} yet, but more come on demand (VHDS)"
                )
            if self.explain:
                self.not_taken += other_hosts(
                    self.config, config, authority, config_pointer, inside=cited
                )
            answer = Answered(404, "NR", f"no virtual host takes the host {authority}")
            return self.answered(manager, (), answer, headers)
        place, virtual_host, domain = hit
        below = spelling.below(config_pointer, "virtual_hosts", place) if cited else config_pointer
        why = (
            f"the host {authority} is none of the others'"
            if domain == "*"
            else f"its domain {domain} takes the host {authority}"
        )
        self.hop(HopKind.VIRTUAL_HOST, virtual_host.name, why, below)
        return self.virtual_host(manager, config, virtual_host, headers, below if cited else "")

    def route_configuration(
        self, manager: HttpConnectionManager, pointer: str
    ) -> Answered | tuple[RouteConfiguration, str, bool]:
        """The configuration, where it is written, and whether the pointer leads into it."""
        if manager.route_config is not None:
            config = manager.route_config
            why = "it is written in the listener"
            self.hop(HopKind.ROUTE_CONFIGURATION, config.name, why, pointer)
            return config, pointer, False
        if manager.rds is None:
            raise UndecidedError("the routes are picked by scopes, which are not followed")
        entry = self.config.routes.get(manager.rds)
        if entry is None:
            self.config.need("routes")
            return Answered(
                404,
                "NR",
                f"the route configuration {manager.rds} never came, so there is no route",
            )
        why = "the listener asks for it by that name"
        self.hop(HopKind.ROUTE_CONFIGURATION, entry.route_config.name, why, entry.pointer)
        return entry.route_config, entry.pointer, True

    def virtual_host(
        self,
        manager: HttpConnectionManager,
        config: RouteConfiguration,
        host: VirtualHost,
        headers: Headers,
        pointer: str,
    ) -> Outcome:
        secured = require_tls(host, headers)
        if secured is not None:
            return self.answered(manager, (), secured, headers)
        picked, left = pick_routes(config, host, headers)
        if self.explain:
            self.not_taken += other_routes(
                self.config, config, host, headers, picked, pointer, self.hops[-1].pointer
            )
        parts: list[Part] = []
        for each in picked:
            parts += self.route(manager, config, host, headers, each, pointer)
        if left > 0:
            answer = Answered(
                404,
                "NR",
                f"no route of virtual host {host.name} matches",
                others_pass=bool(host.routes) and not picked,
            )
            parts.append((left, self.answered(manager, (), answer, headers)))
        return _together(parts)

    def route(
        self,
        manager: HttpConnectionManager,
        config: RouteConfiguration,
        host: VirtualHost,
        headers: Headers,
        picked: Picked,
        pointer: str,
    ) -> list[Part]:
        route = picked.route
        why = f"the first route that takes {headers[':method']} {headers[':path']}"
        if picked.share < 1:
            why = f"{picked.share:.0%} of the requests: {why}"
        self.hop(
            HopKind.ROUTE,
            route_name(route),
            why,
            spelling.below(pointer, "routes", picked.place) if pointer else self.hops[-1].pointer,
        )
        self.passage.notes += notes(route)
        overrides = (route.overrides, host.overrides, config.overrides)
        acted = act(route, headers)
        if isinstance(acted, Answered):
            return [(picked.share, self.answered(manager, overrides, acted, headers))]
        parts: list[Part] = []
        for each in acted:
            share = picked.share * each.share
            ended = pass_http_filters(
                manager.http_filters,
                (each.overrides, *overrides),
                self.passage,
                self.call,
                headers,
            )
            if ended is not None:
                parts.append((share, ended))
                continue
            parts.append((share, self.cluster(each, http=True)))
        return parts

    def answered(
        self,
        manager: HttpConnectionManager,
        overrides: Sequence[Mapping[str, Any] | None],
        answer: Answered,
        headers: Headers,
    ) -> Answered:
        """The router's own answer, unless a filter before it answers first.

        Per-filter configuration comes with a route, a virtual host's own too: none without one.
        """
        passed = (self.passage, self.call, headers)
        return pass_http_filters(manager.http_filters, overrides, *passed) or answer

    # ------------------------------------------------------------ to a cluster

    def cluster(self, to: ToCluster, *, http: bool) -> Reached | Answered | Closed | Unknown:
        entry = self.config.clusters.get(to.cluster)
        if entry is None:
            try:
                self.config.need("clusters")
            except UndecidedError as error:
                return Unknown(str(error))
            why = f"the proxy has no cluster {to.cluster}" if to.cluster else "no cluster is named"
            return Answered(to.missing_status, "NC", why) if http else Closed("NC", why)
        self.hop(HopKind.CLUSTER, entry.cluster.name, to.why, entry.pointer)
        try:
            chosen = self.endpoints(entry, to.metadata_match, ())
        except UndecidedError as error:
            return Unknown(str(error))
        if not chosen.endpoints:
            why = f"cluster {to.cluster}: {chosen.why}"
            return Answered(503, "UH", why) if http else Closed("UH", why)
        held = self.config.endpoints_of(entry)
        document = self.config.proxy.document if held is None else held.document
        pointer = entry.pointer if held is None else held.pointer
        # A cluster of a thousand endpoints is one decision: some are named, the outcome has all.
        for endpoint, _ in chosen.endpoints[:NAMED]:
            name = _endpoint_name(endpoint)
            self.hop(HopKind.ENDPOINT, name, chosen.why, pointer, document)
        return Reached(
            tuple(
                [
                    Destination(entry.cluster.name, endpoint, share)
                    for endpoint, share in chosen.endpoints
                ]
            )
        )

    def endpoints(
        self, entry: ClusterEntry, match: Mapping[str, Any] | None, within: tuple[str, ...]
    ) -> Choice:
        cluster = entry.cluster
        if cluster.unmodelled:
            raise UndecidedError(
                f"cluster {cluster.name} picks its endpoints by {', '.join(cluster.unmodelled)}, "
                "which is not followed"
            )
        if cluster.aggregate:
            return self.aggregate(entry, match, within)
        if cluster.type == "ORIGINAL_DST":
            if not self.restored:
                return Choice((), "it has only the original destination, and the call has none")
            endpoint = Endpoint(address=self.call.address, port=self.call.port)
            return Choice(((endpoint, 1.0),), "the call's own destination")
        held = self._held(entry)
        return balance(cluster, in_subset(cluster, held, match))

    def _held(self, entry: ClusterEntry) -> Sequence[Endpoint]:
        held = self.config.endpoints_of(entry)
        if held is not None:
            return held.endpoints
        cluster = entry.cluster
        if cluster.type not in ("STATIC", "EDS", "STRICT_DNS", "LOGICAL_DNS"):
            raise UndecidedError(
                f"cluster {cluster.name} is of type {cluster.type}, whose endpoints are not known"
            )
        if cluster.endpoints:
            return cluster.endpoints
        self.config.need("endpoints")
        return ()

    def aggregate(
        self, entry: ClusterEntry, match: Mapping[str, Any] | None, within: tuple[str, ...]
    ) -> Choice:
        """Its members are priorities, one below the other."""
        levels: list[list[Endpoint]] = []
        for name in entry.cluster.aggregate:
            member = self.config.clusters.get(name)
            if member is None:
                self.config.need("clusters")
                continue
            if name in within or member.cluster.aggregate:
                raise UndecidedError(f"cluster {entry.cluster.name} aggregates aggregates")
            held = in_subset(member.cluster, self._held(member), match)
            levels += by_priority(held)
        return balance_levels(levels)

    # ------------------------------------------------------------ what is said of it

    def hop(
        self, kind: HopKind, name: str, why: str, pointer: str, document: str | None = None
    ) -> None:
        held = self.config.proxy.document if document is None else document
        self.hops.append(Hop(kind, name, why, held, pointer))


def _endpoint_name(endpoint: Endpoint) -> str:
    address, port = endpoint.address, endpoint.port
    return host_port(address, port) if port else bracketed(address)


def _terminates_tls(chain: FilterChain) -> bool:
    name = chain.transport_socket
    if not name:
        return False
    if name == "tls" or name.endswith(".tls"):
        return True
    raise UndecidedError(f"the filter chain's transport socket {name} is not followed")


def _together(parts: Sequence[Part]) -> Reached | Answered | Closed | Unknown:
    """One outcome of the shares that a split makes."""
    if len(parts) == 1:
        return parts[0][1]
    destinations: list[Destination] = []
    otherwise: list[tuple[float, Answered | Closed | Unknown]] = []
    for share, outcome in parts:
        if isinstance(outcome, Reached):
            destinations += [
                replace(each, share=each.share * share) for each in outcome.destinations
            ]
            otherwise += [(share * part, each) for part, each in outcome.otherwise]
        else:
            otherwise.append((share, outcome))
    if destinations:
        return Reached(tuple(destinations), tuple(otherwise))
    kinds = {_kind(outcome) for _, outcome in otherwise}
    if len(kinds) == 1:
        return otherwise[0][1]
    said = "; ".join(f"{share:.0%}: {outcome.why}" for share, outcome in otherwise)
    return Unknown(f"calls end in different ways: {said}")


def _kind(outcome: Answered | Closed | Unknown) -> tuple[str, int | None, str, str]:
    if isinstance(outcome, Answered):
        return "Answered", outcome.status, outcome.flag, outcome.location
    return type(outcome).__name__, None, "", ""
