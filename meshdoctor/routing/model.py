"""A call, and what following it gives: hops, what was nearly taken, and the outcome."""

import enum

import msgspec

from meshdoctor.evidence.addresses import host_port
from meshdoctor.evidence.envoy import Endpoint


class Call(msgspec.Struct, frozen=True):
    """A connection to `address:port`, and the request on it.

    `host` is the Host header; None makes it a connection that is no HTTP. `headers` are in the
    order sent, names in any case. Of a call with `tls`, the request can be read only where a
    filter chain ends the TLS. `inbound` asks how a proxy takes a call to its own workload, from
    outside; else it is a call that the workload makes. `source_address` is asked for only where
    a filter chain depends on it; "" is unknown. `uid` is the user that calls, None for one of no
    special rights. `principals` are the URIs in the certificate that a caller with `tls` shows,
    None where they are not known.
    """

    address: str
    port: int
    host: str | None = None
    path: str = "/"
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    tls: bool = False
    server_name: str = ""
    application_protocols: tuple[str, ...] = ()
    source_address: str = ""
    source_port: int | None = None
    uid: int | None = None
    inbound: bool = False
    principals: tuple[str, ...] | None = None

    @property
    def destination(self) -> str:
        """`address:port`."""
        return host_port(self.address, self.port)


class HopKind(enum.StrEnum):
    """The decisions on a call's way, as `trace` names them."""

    REDIRECT = "redirect"
    LISTENER = "listener"
    FILTER_CHAIN = "filter chain"
    ROUTE_CONFIGURATION = "route configuration"
    VIRTUAL_HOST = "virtual host"
    ROUTE = "route"
    CLUSTER = "cluster"
    ENDPOINT = "endpoint"


class Hop(msgspec.Struct, frozen=True):
    """One decision: what was taken, why, and where that is written."""

    kind: HopKind
    name: str
    why: str
    document: str
    pointer: str


class NotTaken(msgspec.Struct, frozen=True):
    """What nearly decided instead, and why it did not."""

    kind: HopKind
    name: str
    why: str
    document: str
    pointer: str


# ---------------------------------------------------------------- outcomes


class Destination(msgspec.Struct, frozen=True):
    """An endpoint that the call may end at, and its share of such calls (above 0, up to 1)."""

    cluster: str
    endpoint: Endpoint
    share: float

    @property
    def address(self) -> str:
        """The endpoint's address; a host name where the proxy resolves it."""
        return self.endpoint.address

    @property
    def port(self) -> int:
        """The endpoint's port."""
        return self.endpoint.port


class Denial(msgspec.Struct, frozen=True):
    """What denies a call: the RBAC policy of that name, "" where none allows it.

    `every_request`: the caller may ask for nothing else either.
    """

    policy: str
    every_request: bool


class Answered(msgspec.Struct, frozen=True):
    """The proxy answers itself: `status`, and its response flag, as access logs have it.

    404 NR: no route. 503 NC: no such cluster. 503 UH: no endpoint that may be used. `status` is
    None where the answer is no HTTP. `location` is where a redirect sends the caller, and
    `others_pass` is true where the virtual host has routes, and all for other requests.
    """

    status: int | None
    flag: str
    why: str
    location: str = ""
    denied: Denial | None = None
    others_pass: bool = False


class Closed(msgspec.Struct, frozen=True):
    """The proxy closes the connection without an answer."""

    flag: str
    why: str
    denied: Denial | None = None


class Bypassed(msgspec.Struct, frozen=True):
    """The call does not pass this proxy: it goes straight to `address:port`."""

    address: str
    port: int
    why: str


class Unknown(msgspec.Struct, frozen=True):
    """What happens cannot be told from what is known, and why."""

    why: str


class Reached(msgspec.Struct, frozen=True):
    """The call ends at one of `destinations`.

    Where calls are split, `otherwise` has the shares that end in another way (a split to a
    cluster that does not exist).
    """

    destinations: tuple[Destination, ...]
    otherwise: "tuple[tuple[float, Answered | Closed | Unknown], ...]" = ()

    @property
    def clusters(self) -> tuple[str, ...]:
        """The clusters, in the order of the destinations, each once."""
        return tuple(dict.fromkeys(each.cluster for each in self.destinations))


Outcome = Reached | Answered | Closed | Bypassed | Unknown


class Walk(msgspec.Struct, frozen=True):
    """A call followed through one proxy: its hops in order, and how it ends.

    `notes` say what may change the outcome and is not followed: retries, mirrors, rate limits.
    `not_taken` is filled where it was asked for.
    """

    proxy: str
    call: Call
    hops: tuple[Hop, ...]
    outcome: Outcome
    notes: tuple[str, ...] = ()
    not_taken: tuple[NotTaken, ...] = ()

    def hop(self, kind: HopKind) -> Hop | None:
        """The first hop of that kind."""
        for hop in self.hops:
            if hop.kind is kind:
                return hop
        return None


class UndecidedError(Exception):
    """Raised inside the walk where the decision depends on what is not known or not followed."""
