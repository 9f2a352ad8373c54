"""One call as a person names it: from whom, to what URL, and where it really goes."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from meshdoctor.evidence.addresses import is_ip
from meshdoctor.routing.calls import calling, unexamined
from meshdoctor.routing.configuration import Configuration, configuration
from meshdoctor.routing.ends import Arrival, End, Ends, Judgement, Verdict, judge
from meshdoctor.routing.follow import follow
from meshdoctor.routing.model import Bypassed, Call, HopKind, Reached, Walk
from meshdoctor.routing.registry import Registry, Target, addresses, authority
from meshdoctor.routing.shared import SharedWalks
from meshdoctor.topology import Mesh, Workload

_PORTS: Final[Mapping[str, int | None]] = {"http": 80, "https": 443, "tcp": None}
_HIGHEST_PORT: Final = 65535
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONSUL_NAME: Final = re.compile(
    r"(?:(?P<tag>[^.]+)\.)?(?P<service>[^.]+)\.service(?:\.(?P<datacenter>[^.]+))?(?:\.consul)?"
)
_MOST_ARRIVALS: Final = 20
_MOST_CANDIDATES: Final = 12


class TraceError(Exception):
    """What was asked for is not there, or is not a URL. The message says what to try."""


class Landed(msgspec.Struct, frozen=True):
    """A far side that took the call in, and others that took theirs in alike."""

    arrival: Arrival
    alike: tuple[str, ...] = ()


class Way(msgspec.Struct, frozen=True):
    """A call to one address that the name leads to.

    `alike` are its other addresses, as `address:port`, which the proxy treats alike; `landed`
    is what the far sides' own sidecars make of the call.
    """

    walk: Walk
    alike: tuple[str, ...] = ()
    landed: tuple[Landed, ...] = ()


class Trace(msgspec.Struct, frozen=True):
    """Where a call goes.

    `source` is the calling workload, `sidecar` its Envoy, None where none was read. `expected` is
    the service that the URL names, or None where it is an address that nobody registered.
    `understood` says how the names were taken. The rest is as in a Pair.
    """

    source: str
    sidecar: str | None
    url: str
    expected: str | None
    understood: tuple[str, ...]
    ways: tuple[Way, ...]
    verdict: Verdict
    reached: str | None
    instances: tuple[str, ...]
    status: int | None
    reason: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What may change the outcome and is not followed, each once."""
        return tuple(dict.fromkeys(note for walk in self.walks for note in walk.notes))

    @property
    def walks(self) -> Iterator[Walk]:
        """Every walk, each way's own before those of its far sides."""
        for way in self.ways:
            yield way.walk
            yield from (landed.arrival.walk for landed in way.landed)


def trace(
    mesh: Mesh,
    source: str,
    url: str,
    *,
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (),
) -> Trace:
    """Follow one call. Raises TraceError."""
    registry = Registry(mesh)
    caller, said = find_source(mesh, source)
    asked = _parse(url, method, headers)
    aim = _resolve(registry, caller, asked)
    understood = tuple(sentence for sentence in (said, *aim.understood) if sentence)
    sidecar = calling(caller)
    if sidecar is None or sidecar.proxy is None:
        return Trace(
            source=caller.name,
            sidecar=None,
            url=url,
            expected=aim.expected,
            understood=understood,
            ways=(),
            verdict=Verdict.UNKNOWN,
            reached=None,
            instances=(),
            status=None,
            reason=unexamined(caller),
        )
    proxy, own = sidecar.proxy, addresses(caller)
    calls = [
        replace(asked.call, address=address, port=port, source_address=min(own, default=""))
        for address, port in aim.target.addresses
    ]
    walks = tuple(
        follow(proxy, call, nat=sidecar.nat, own_addresses=own, explain=True) for call in calls
    )
    config = configuration(proxy)
    ends = Ends(registry, SharedWalks())
    judged = _judge(ends, caller, config, aim, walks)
    return Trace(
        source=caller.name,
        sidecar=sidecar.name,
        url=url,
        expected=aim.expected,
        understood=understood,
        ways=tuple(_ways(ends, config, walks)),
        verdict=judged.verdict,
        reached=judged.reached,
        instances=judged.instances,
        status=judged.status,
        reason=judged.reason,
    )


# ---------------------------------------------------------------- who calls


def find_source(mesh: Mesh, name: str) -> tuple[Workload, str]:
    """The workload that a name means, and a sentence where that is not plain. Raises TraceError.

    In this order: a workload, a sidecar, a service (its first workload), a part of such a name.
    """
    known = _sources(mesh)
    exact = known.get(name)
    if exact is None:
        folded = name.casefold()
        found = {each: known[each] for each in known if folded in each.casefold()}
        workloads = {each.name: each for found_ in found.values() for each in found_}
        if not name or not workloads:
            raise TraceError(_no_such_source(name, known))
        if len(workloads) > 1:
            names = _some(sorted(workloads))
            raise TraceError(f"{name!r} may mean any of {names}: name one of them")
        (workload,) = workloads.values()
        return workload, f"{name!r} is taken for {workload.name}."
    workload = exact[0]
    if workload.name == name:
        return workload, ""
    if len(exact) > 1:
        others = ", ".join(each.name for each in exact[1:])
        return workload, f"{name} is a service; the caller is {workload.name} (not {others})."
    return workload, f"{name} is taken for its workload {workload.name}."


def _sources(mesh: Mesh) -> Mapping[str, Sequence[Workload]]:
    """What a caller may be called, the plainest meaning of each name first."""
    known: dict[str, list[Workload]] = {each.name: [each] for each in mesh.workloads}
    for workload in mesh.workloads:
        for sidecar in workload.sidecars:
            known.setdefault(sidecar.name, [workload])
    for sidecar in mesh.sidecars:
        # One that stands beside no workload still has its configuration.
        alone = Workload(sidecar.name, None, (), (sidecar,), (), ())
        known.setdefault(sidecar.name, [alone])
    taken = set(known)
    for workload in mesh.workloads:
        for service in workload.services:
            if service not in taken:
                known.setdefault(service, []).append(workload)
    return known


def _no_such_source(name: str, known: Mapping[str, Sequence[Workload]]) -> str:
    if not known:
        return "no workload is known: the evidence has neither containers nor a catalogue"
    if "://" in name:
        return f"{name!r} is a URL: the caller comes first, then what it calls"
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"no workload, sidecar or service is called {name!r}; near are {_some(near)}"
    workloads = sorted({each.name for found in known.values() for each in found})
    return f"no workload, sidecar or service is called {name!r}; there are {_some(workloads)}"


# ---------------------------------------------------------------- what is called


class _Asked(msgspec.Struct, frozen=True):
    """A URL in parts. `call` lacks the address; `port` is None where the URL names none."""

    url: str
    scheme: str
    authority: str
    host: str
    port: int | None
    call: Call

    @property
    def its_port(self) -> int:
        """The port that is connected to."""
        port = self.port if self.port is not None else _PORTS[self.scheme]
        if port is None:
            raise TraceError(f"{self.url}: name the port, as in tcp://{self.host}:9080")
        return port


class _Aim(msgspec.Struct, frozen=True):
    """What the URL leads to. `expected` is None where nobody registered it."""

    target: Target
    expected: str | None
    understood: tuple[str, ...] = ()


def _parse(url: str, method: str, headers: Sequence[tuple[str, str]]) -> _Asked:
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _PORTS:
        only_lacks_it = re.fullmatch(r"[\w.-]+:\d+(/\S*)?", url)
        example = f"http://{url}" if only_lacks_it else "http://reviews:9080/"
        raise TraceError(
            f"{url!r} is no URL that can be followed: write http, https or tcp, as in {example}"
        )
    if not url.isprintable() or " " in url:
        raise TraceError(f"{url!r} has characters that no URL has")
    cut = re.search(r"[/?#]", rest)
    written = rest if cut is None else rest[: cut.start()]
    path = "" if cut is None else rest[cut.start() :].partition("#")[0]
    written = written.rpartition("@")[2]
    if not written:
        raise TraceError(f"{url!r} names no host, as http://reviews:9080/ does")
    if not _TOKEN.fullmatch(method):
        raise TraceError(f"{method!r} is no HTTP method, as GET is")
    host, port = _host_and_port(url, written)
    named = next((value for name, value in headers if name.lower() == "host"), None)
    plain_host = host.rstrip(".") if host != "." else host
    said = authority(plain_host, port or 0, default=0 if port is None else _PORTS[scheme] or 0)
    call = Call(
        address="",
        port=0,
        host=None if scheme == "tcp" else (named if named is not None else said),
        path=path if path.startswith("/") else f"/{path}",
        method=method,
        headers=tuple((name, value) for name, value in headers if name.lower() != "host"),
        tls=scheme == "https",
        server_name=host if scheme == "https" and not is_ip(host) else "",
        application_protocols=("http/1.1",) if scheme == "https" else (),
    )
    return _Asked(url, scheme, written, host, port, call)


def _host_and_port(url: str, written: str) -> tuple[str, int | None]:
    if written.startswith("["):
        host, bracket, rest = written[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise TraceError(
                f"{url!r}: an IPv6 address stands in brackets, as in http://[::1]:80/"
            )
        port = rest[1:]
    else:
        host, colon, port = written.rpartition(":")
        if not colon:
            host, port = written, ""
    if not port:
        return host, None
    if not (port.isascii() and port.isdigit()) or not 0 < int(port[:6]) <= _HIGHEST_PORT:
        raise TraceError(f"{url!r}: {port!r} is no port; a port is a number from 1 to 65535")
    return host, int(port)


def _resolve(registry: Registry, caller: Workload, asked: _Asked) -> _Aim:
    """The addresses that the application would get for the name. Raises TraceError."""
    instance = _instance(registry, asked)
    if instance is not None:
        return instance
    if is_ip(asked.host) or asked.host == "localhost":
        address = "127.0.0.1" if asked.host == "localhost" else asked.host
        return _at_address(registry, caller, asked, address)
    service, tag = _service_named(registry, asked.host)
    if service is not None:
        return _at_service(registry, caller, asked, service, tag)
    for workload in registry.mesh.workloads:
        if workload.name == asked.host and addresses(workload):
            return _at_workload(registry, asked, workload)
    raise TraceError(_no_such_host(registry, asked.host))


def _instance(registry: Registry, asked: _Asked) -> _Aim | None:
    """An instance's id, which may hold colons itself."""
    for service in registry.mesh.services.values():
        for each in service.instances:
            if each.id not in (asked.authority, asked.authority.rpartition(":")[0]):
                continue
            if each.id == service.name and each.id == asked.host:
                # Consul gives an instance its service's name where nobody gave it another.
                continue
            named = asked.authority.removeprefix(each.id).removeprefix(":")
            port = int(named) if named.isascii() and named.isdigit() else each.port
            host = authority(each.address, port)
            return _Aim(
                Target(each.service, port, host, ((each.address, port),)),
                each.service,
                (f"{each.id} is the instance of {each.service} at {each.address}:{each.port}.",),
            )
    return None


def _at_address(registry: Registry, caller: Workload, asked: _Asked, address: str) -> _Aim:
    port = asked.its_port
    host = authority(asked.host, port)
    for target in registry.upstreams(caller):
        if (address, port) in target.addresses:
            said = f"{host} is where {caller.name} has its upstream {target.service}"
            if target.rivals:
                # An address cannot say which of them is meant: a name, as http://api/, can.
                said += f", and {', '.join(target.rivals)} too: {target.service} is taken as meant"
            return _Aim(target, target.service, (f"{said}.",))
    owner = registry.owner(address, port, at=caller)
    service = owner.service if owner is not None else None
    said = (
        f"{address}:{port} is nobody's address in Consul's catalogue."
        if service is None
        else f"{address}:{port} is an address of {service}."
    )
    return _Aim(Target(service or host, port, host, ((address, port),)), service, (said,))


def _at_service(registry: Registry, caller: Workload, asked: _Asked, name: str, tag: str) -> _Aim:
    upstreams = [each for each in registry.upstreams(caller) if each.service == name]
    for target in upstreams:
        if asked.port in (None, target.port):
            return _Aim(
                target, name, (f"{caller.name} has {name} as upstream, at {target.host}.",)
            )
    service = registry.mesh.services[name]
    instances = [each for each in service.instances if not tag or tag in each.tags]
    if not instances:
        tagged = f" with the tag {tag}" if tag else ""
        raise TraceError(
            f"{name} has no instance{tagged} in Consul's catalogue, so its name leads nowhere"
        )
    port = asked.its_port
    found = tuple(dict.fromkeys((each.address, port) for each in instances))
    said = [
        f"{asked.host} leads to {_some([address for address, _ in found])}, by Consul's catalogue."
    ]
    if port not in service.ports:
        ports = ", ".join(map(str, service.ports))
        said.append(
            f"No instance of {name} has port {port}; did you mean "
            f"{asked.scheme}://{asked.host}:{service.ports[0]}/ (it has {ports})?"
        )
    if upstreams:
        at = ", ".join(each.host for each in upstreams)
        said.append(f"This passes by the upstream that {caller.name} has for it, at {at}.")
    return _Aim(Target(name, port, authority(name, port), found), name, tuple(said))


def _at_workload(registry: Registry, asked: _Asked, workload: Workload) -> _Aim:
    address = min(addresses(workload))
    ports = sorted({each.port for each in workload.instances})
    port = ports[0] if asked.port is None and len(ports) == 1 else asked.its_port
    owner = registry.owner(address, port, at=workload)
    service = owner.service if owner is not None else None
    host = authority(asked.host, port)
    said = f"{workload.name} is the workload at {address}; port {port} is called."
    return _Aim(Target(service or host, port, host, ((address, port),)), service, (said,))


def _service_named(registry: Registry, host: str) -> tuple[str | None, str]:
    """The service, and the tag, that a host name means to Consul's DNS; case does not matter."""
    services = {name.lower(): name for name in registry.mesh.services}
    folded = host.lower().rstrip(".")
    if folded in services:
        return services[folded], ""
    parts = _CONSUL_NAME.fullmatch(folded)
    if parts is None or parts["service"] not in services:
        return None, ""
    return services[parts["service"]], parts["tag"] or ""


def _no_such_host(registry: Registry, host: str) -> str:
    mesh = registry.mesh
    bare = host.partition(".")[0]
    known = [*mesh.services, *(each.name for each in mesh.workloads)]
    near = difflib.get_close_matches(bare, known, n=3, cutoff=0.5)
    names = _some(near or [each.name for each in mesh.applications])
    hint = f"near are {names}" if near else f"there are {names}" if names else "there is none"
    return (
        f"no service, workload or instance is called {host!r}; {hint}. For a name that is not in "
        f"Consul, call its address and give the name with -H 'Host: {host}'"
    )


# ---------------------------------------------------------------- where it goes


def _judge(
    ends: Ends, caller: Workload, config: Configuration, aim: _Aim, walks: tuple[Walk, ...]
) -> Judgement:
    found: list[Sequence[End]] = []
    for walk in walks:
        if aim.expected is None and _keeps_its_address(walk):
            why = "it goes to the very address that was called, which no registered service has"
            found.append((End(Verdict.RIGHT, why=why),))
        else:
            found.append(ends.of(caller, config, walk, aim.target))
    return judge(aim.target, walks, found, lucky=ends.is_lucky(aim.target, walks))


def _keeps_its_address(walk: Walk) -> bool:
    ends = {(address, port) for address, port, _ in _destinations(walk)}
    return ends == {(walk.call.address, walk.call.port)}


def _destinations(walk: Walk) -> Sequence[tuple[str, int, str]]:
    """Address, port and cluster of each end outside of the proxy."""
    match walk.outcome:
        case Reached(destinations):
            found = [(each.address, each.port, each.cluster) for each in destinations]
        case Bypassed(address, port):
            found = [(address, port, "")]
        case _:
            found = []
    return tuple(dict.fromkeys(found))


def _ways(ends: Ends, config: Configuration, walks: Iterable[Walk]) -> Iterator[Way]:
    """The walks, those to addresses that are treated alike together."""
    alike: dict[object, list[Walk]] = {}
    for walk in walks:
        alike.setdefault(_treatment(walk), []).append(walk)
    for first, *others in alike.values():
        yield Way(
            walk=first,
            alike=tuple(walk.call.destination for walk in others),
            landed=tuple(_landed(ends, config, first)),
        )


def _treatment(walk: Walk) -> object:
    """What two walks have in common that took the same decisions."""
    hops = tuple(
        (hop.kind, hop.document, hop.pointer)
        for hop in walk.hops
        if hop.kind is not HopKind.ENDPOINT
    )
    return hops, type(walk.outcome)


def _landed(ends: Ends, config: Configuration, walk: Walk) -> Iterator[Landed]:
    alike: dict[object, list[Arrival]] = {}
    for address, port, through in _destinations(walk)[:_MOST_ARRIVALS]:
        arrival = ends.arrival(config, walk, (address, port), through)
        if arrival is not None:
            taken = tuple(hop.kind for hop in arrival.walk.hops)
            cluster = arrival.walk.hop(HopKind.CLUSTER)
            name = "" if cluster is None else cluster.name
            key = (taken, name, type(arrival.walk.outcome), arrival.workload.services)
            alike.setdefault(key, []).append(arrival)
    for first, *others in alike.values():
        yield Landed(first, tuple(each.workload.name for each in others))


def _some(names: Sequence[str]) -> str:
    if len(names) <= _MOST_CANDIDATES:
        return ", ".join(names)
    return f"{', '.join(names[:_MOST_CANDIDATES])} and {len(names) - _MOST_CANDIDATES} more"
