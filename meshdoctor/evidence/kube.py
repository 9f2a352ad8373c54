"""The kubeconfig of whoever runs meshdoctor: which API server `kubectl` talks to."""

from collections.abc import Mapping
from typing import ClassVar, Final, Self

import msgspec

from meshdoctor.evidence.interface import (
    Documents,
    MissingEvidenceError,
    Problem,
    decode,
    not_recorded,
)

CONFIG: Final = "kube/config.json"


class KubeConfig(msgspec.Struct, frozen=True):
    """Contexts by name, each with its server's URL, "" where its cluster is not defined.

    `current` is the context in use, "" where none is: then kubectl asks localhost:8080.
    """

    title: ClassVar[str] = "the kubeconfig"
    hint: ClassVar[str] = "name the file with KUBECONFIG, or put it at ~/.kube/config"

    current: str
    contexts: Mapping[str, str]
    problems: tuple[Problem, ...]

    @classmethod
    def load(cls, documents: Documents) -> Self:
        """Decode kube/config.json. Raises MissingEvidenceError or DecodeError."""
        try:
            config = decode(documents, CONFIG, _Config)
        except MissingEvidenceError as error:
            raise not_recorded(documents, "kube/", error.reason, cls.hint) from error
        servers = {each.name: each.cluster.server for each in config.clusters or ()}
        return cls(
            current=config.current_context,
            contexts={
                each.name: servers.get(each.context.cluster, "") for each in config.contexts or ()
            },
            problems=(),
        )


class _Cluster(msgspec.Struct, gc=False):
    server: str = ""


class _NamedCluster(msgspec.Struct, gc=False):
    name: str = ""
    cluster: _Cluster = msgspec.field(default_factory=_Cluster)


class _Context(msgspec.Struct, gc=False):
    cluster: str = ""


class _NamedContext(msgspec.Struct, gc=False):
    name: str = ""
    context: _Context = msgspec.field(default_factory=_Context)


class _Config(msgspec.Struct, gc=False):
    """{"current-context": "istio", "contexts": [...], "clusters": [...]}, as kubectl writes it."""

    current_context: str = msgspec.field(default="", name="current-context")
    contexts: list[_NamedContext] | None = None
    clusters: list[_NamedCluster] | None = None
