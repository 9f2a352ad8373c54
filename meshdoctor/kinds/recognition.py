"""Which kinds of mesh the evidence shows: none, one, or several side by side."""

from meshdoctor.kinds import consul_connect, istio_consul
from meshdoctor.kinds.interface import Kind, Signs


def recognise(signs: Signs) -> tuple[Kind, ...]:
    """The kinds that left their signs, in the order of `Kind`."""
    recognisers = {
        Kind.ISTIO_CONSUL: istio_consul.is_there,
        Kind.CONSUL_CONNECT: consul_connect.is_there,
    }
    return tuple(kind for kind in Kind if recognisers[kind](signs))
