"""Names of the documents in a snapshot: `meshdoctor.snapshot/v1`."""

from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote

SCHEMA: Final = "meshdoctor.snapshot/v1"
MANIFEST: Final = "manifest.json"

SOURCES: Final = frozenset(
    {
        "compose",
        "consul",
        "docker",
        "envoy",
        "istio",
        "kube",
        "netfilter",
        "pilot",
        "probe",
        "zipkin",
    }
)
"""The folders of a snapshot, one for each source."""

COMPOSE: Final = "compose/"
"""Below it, one document for each file, named by its path."""

# What file systems hold everywhere; Docker's and Consul's own names need no more than this.
_SAFE: Final = "-_.~+@"


def segment(name: str) -> str:
    """`name` as one path segment: what a file system cannot hold is percent-encoded."""
    encoded = quote(name, safe=_SAFE)
    return encoded.replace(".", "%2E") if set(encoded) <= {"."} else encoded


def name_of(path_segment: str) -> str:
    """The name that `segment` encoded."""
    return unquote(path_segment)


def compose_file(path: str) -> str:
    """A Compose file by its full path on the host of the engine."""
    return f"{COMPOSE}{segment(path)}"


def docker_log(container: str) -> str:
    return f"docker/logs/{segment(container)}.log"


def catalog_service(service: str) -> str:
    return f"consul/catalog/service/{segment(service)}.json"


def health_service(service: str) -> str:
    return f"consul/health/service/{segment(service)}.json"


# Every step of every call that is followed says in which document it is written.
@lru_cache(maxsize=4096)
def envoy(sidecar: str, page: str) -> str:
    """`page` is the admin page's file: config_dump.json, clusters.json, stats.json, ..."""
    return f"envoy/{segment(sidecar)}/{page}"


def netfilter(sidecar: str) -> str:
    return f"netfilter/{segment(sidecar)}.nat.txt"


def pilot(page: str) -> str:
    return f"pilot/{page}"


def probe(workload: str) -> str:
    return f"probe/{segment(workload)}.json"
