"""What the clusters of a proxy stand for, by the names that control planes give them."""

import re
from typing import Final

from meshdoctor.kinds.istio_consul import service_of_cluster

# `api.default.dc1.internal.<trust domain>.consul`, with a subset `v1.api.default...`
# (`ServiceSNI` in Consul's `agent/connect/sni.go`).
_CONNECT: Final = r"(?:([^.]+)\.)?([^.]+)\.[^.]+\.[^.]+\.internal\.[^.]+\.consul"


def stands_for(cluster: str) -> tuple[str, str]:
    """The service and the subset ("" for all of it); ("", "") for clusters of other names."""
    service = service_of_cluster(cluster)
    if service is not None:
        return service, cluster.split("|")[2]
    connect = re.fullmatch(_CONNECT, cluster)
    return (connect[2], connect[1] or "") if connect is not None else ("", "")


def described(cluster: str) -> str:
    """The cluster's name, and in brackets the service and subset where it tells one."""
    service, subset = stands_for(cluster)
    if not service:
        return cluster
    return f"{cluster} (subset {subset} of {service})" if subset else f"{cluster} ({service})"
