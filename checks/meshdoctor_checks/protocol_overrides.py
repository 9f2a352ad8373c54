"""Where the registration of a proxy says a protocol, besides the config entries."""

from collections.abc import Iterator

import msgspec

from meshdoctor.findings import Citation, Subject, SubjectKind
from meshdoctor.topology import Mesh
from meshdoctor_checks.upstreams import field, proxies_of, upstreams_to


class Override(msgspec.Struct, frozen=True):
    """A protocol in the registration of the proxy of `service`, about `of`.

    `where` is how a sentence names it, `place` where it stands in the service's definition.
    """

    service: str
    of: str
    protocol: str
    is_upstream: bool
    where: str
    place: str
    subjects: tuple[Subject, ...]
    proof: Citation


def overrides(mesh: Mesh, of: str) -> Iterator[Override]:
    """What the service's own proxies, and its callers' upstreams, say of its protocol."""
    for instance in proxies_of(mesh, of):
        proxy = instance.proxy
        if proxy is not None and proxy.protocol:
            yield Override(
                service=of,
                of=of,
                protocol=proxy.protocol,
                is_upstream=False,
                where=f"its own proxy {instance.id}",
                place="in the proxy of its sidecar_service",
                subjects=(Subject(SubjectKind.INSTANCE, instance.id),),
                proof=Citation(
                    instance.document,
                    f"{instance.pointer}/{field(instance)}/Config/protocol",
                    proxy.protocol,
                ),
            )
    for held in upstreams_to(mesh, of):
        if held.is_here and held.upstream.protocol:
            base = held.proof(held.upstream.protocol)
            yield Override(
                service=held.service,
                of=of,
                protocol=held.upstream.protocol,
                is_upstream=True,
                where=f"the upstream {of} of {held.instance.id}",
                place=f"in its upstream {of}",
                subjects=(Subject(SubjectKind.INSTANCE, held.instance.id), *held.listeners),
                proof=Citation(base.document, f"{base.pointer}/Config/protocol", base.excerpt),
            )
