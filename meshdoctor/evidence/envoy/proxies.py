"""The sidecars' Envoys as evidence: every proxy of a snapshot, and those that told nothing."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final, Self

import msgspec

from meshdoctor.evidence import layout
from meshdoctor.evidence.envoy.facts import (
    DECIDING,
    Certificates,
    ClusterEndpoints,
    EndpointTable,
    EnvoyProxy,
)
from meshdoctor.evidence.interface import (
    DecodeError,
    Documents,
    MissingEvidenceError,
    Problem,
)

if TYPE_CHECKING:
    from meshdoctor.evidence.envoy.dump import Dump, Shared

_PREFIX: Final = "envoy/"
_DUMP: Final = "config_dump.json"


class EnvoyProxies(msgspec.Struct, frozen=True):
    """What the sidecars' Envoys say of themselves.

    `proxies` are those whose `/config_dump` could be decoded, by the sidecar's name, sorted;
    `unreachable` the others that are known of, with the reason. `problems` are documents, or
    parts of them, that are damaged and cost nothing but themselves.
    """

    title: ClassVar[str] = "the sidecars' Envoys"
    hint: ClassVar[str] = (
        "run meshdoctor where Docker and the sidecars run, or give a sidecar's admin address with "
        "--envoy NAME=URL"
    )

    proxies: Mapping[str, EnvoyProxy]
    unreachable: Mapping[str, str]
    problems: tuple[Problem, ...]
    recorded: str = ""
    """When they were asked, in RFC 3339; "" where nobody wrote it down."""

    @classmethod
    def load(cls, documents: Documents) -> Self:
        """Decode every sidecar's pages.

        Raises MissingEvidenceError where there is no page of any sidecar.
        """
        names = documents.names(_PREFIX)
        if not names:
            raise MissingEvidenceError(_why_nothing(documents.missing(_PREFIX)), cls.hint)
        # The decoders are half of all that evidence imports, and `explain` decodes nothing.
        from meshdoctor.evidence.envoy.dump import Shared  # noqa: PLC0415

        pages: dict[str, dict[str, str]] = {}
        for name in names:
            sidecar, page = _sidecar_and_page(name)
            pages.setdefault(sidecar, {})[page] = name
        unreachable = dict(tried_in_vain(documents))
        proxies: dict[str, EnvoyProxy] = {}
        problems: list[Problem] = []
        shared = Shared(several=len(pages) > 1)
        for sidecar in sorted(pages):
            if _DUMP not in pages[sidecar]:
                unreachable.setdefault(sidecar, f"no {_DUMP} was recorded")
                continue
            try:
                proxies[sidecar] = _load(documents, sidecar, pages[sidecar], shared, problems)
            except DecodeError as error:
                unreachable[sidecar] = str(error)
            except MissingEvidenceError as error:
                unreachable[sidecar] = error.reason
        return cls(
            proxies=MappingProxyType(proxies),
            unreachable=MappingProxyType(dict(sorted(unreachable.items()))),
            problems=tuple(problems),
            recorded=documents.created,
        )


def tried_in_vain(documents: Documents) -> Mapping[str, str]:
    """The sidecars whose dump was asked for and is not there, with the reason.

    They are known of also where no page of any sidecar was recorded.
    """
    held = {
        sidecar
        for sidecar, page in map(_sidecar_and_page, documents.names(_PREFIX))
        if page == _DUMP
    }
    tried: dict[str, str] = {}
    for problem in documents.missing(_PREFIX):
        sidecar, page = _sidecar_and_page(problem.document)
        if sidecar and page in {"", _DUMP} and sidecar not in held:
            tried[sidecar] = problem.message
    return tried


def _why_nothing(missing: Sequence[Problem]) -> str:
    if not missing:
        return "no sidecar's admin interface was recorded"
    first, more = missing[0], len(missing) - 1
    sidecar, _ = _sidecar_and_page(first.document)
    if not sidecar:
        return first.message
    others = f" (and {more} more)" if more else ""
    return f"no sidecar could be read: {first.document}: {first.message}{others}"


def _sidecar_and_page(document: str) -> tuple[str, str]:
    """`envoy/<sidecar>/<page>`."""
    _, _, below = document.partition("/")
    segment, _, page = below.partition("/")
    return layout.name_of(segment), page


def _load(
    documents: Documents,
    sidecar: str,
    pages: Mapping[str, str],
    shared: "Shared",
    problems: list[Problem],
) -> EnvoyProxy:
    from meshdoctor.evidence.envoy.dump import decode_dump  # noqa: PLC0415
    from meshdoctor.evidence.envoy.pages import (  # noqa: PLC0415
        decode_clusters,
        decode_server_info,
        decode_stats,
    )

    table: EndpointTable | None = None
    server = None
    certificates: Certificates | None = None
    stats: dict[str, int] = {}
    accepted: dict[str, str] = {}
    for page, document in sorted(pages.items()):
        try:
            match page:
                case "clusters.json":
                    table = decode_clusters(document, documents.read(document), shared)
                case "server_info.json":
                    server = decode_server_info(document, documents.read(document))
                case "certs.json":
                    from meshdoctor.evidence.envoy.certificates import (  # noqa: PLC0415
                        decode_certificates,
                    )

                    decoded = decode_certificates(document, documents.read(document))
                    certificates = msgspec.structs.replace(decoded, read=documents.created)
                case "stats.json":
                    stats, accepted = decode_stats(document, documents.read(document))
        except DecodeError as error:
            problems.append(Problem(document, error.problem))
        except MissingEvidenceError as error:
            problems.append(Problem(document, error.reason))
    document = pages[_DUMP]
    dump = decode_dump(document, documents.read(document), shared, endpoints=table is None)
    problems.extend(dump.problems)
    held = set(dump.held)
    if table is not None:
        held.add("endpoints")
    return EnvoyProxy(
        name=sidecar,
        api=dump.api,
        held=frozenset(held),
        listeners=tuple(dump.listeners),
        routes=tuple(dump.routes),
        clusters=tuple(dump.clusters),
        endpoints=_endpoints(document, dump) if table is None else table,
        rejected=tuple(dump.rejected),
        node=dump.node if dump.node is not None else (server.node if server else None),
        admin_address=dump.admin_address,
        admin_port=dump.admin_port,
        control_plane=dump.control_plane,
        server=server,
        stats=MappingProxyType(stats),
        version_info=MappingProxyType(dump.version_info),
        accepted=MappingProxyType(accepted),
        certificates=certificates,
    )


def _endpoints(document: str, dump: "Dump") -> Mapping[str, ClusterEndpoints]:
    """The endpoint section, and what clusters that it lacks say of their own endpoints.

    Of a cluster that gets its endpoints over EDS, a dump without that section tells nothing.
    """
    table: Mapping[str, ClusterEndpoints] = dump.endpoints if dump.endpoints is not None else {}
    own = {
        entry.cluster.name: ClusterEndpoints(
            cluster=entry.cluster.name,
            endpoints=entry.cluster.endpoints,
            document=document,
            pointer=entry.pointer,
        )
        for entry in dump.clusters
        if entry.state in DECIDING
        and entry.cluster.name not in table
        and (entry.cluster.endpoints or entry.cluster.type == "STATIC")
    }
    return MappingProxyType({**table, **own}) if own else table
