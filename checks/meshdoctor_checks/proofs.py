"""Citations of the documents that checks quote most."""

import re
from typing import Final

from meshdoctor.evidence import docker, layout
from meshdoctor.evidence.consul import Instance
from meshdoctor.evidence.docker import Container
from meshdoctor.evidence.envoy import ListenerEntry
from meshdoctor.findings import Citation

_LONGEST: Final = 160


def service_meta(instance: Instance) -> Citation:
    """The instance's metadata in Consul's catalogue."""
    import json  # noqa: PLC0415 # a healthy mesh is not quoted

    excerpt = json.dumps(dict(instance.meta), sort_keys=True, ensure_ascii=False)
    return Citation(instance.document, f"{instance.pointer}/ServiceMeta", shorten(excerpt))


def tags(instance: Instance) -> Citation:
    """The instance's tags in Consul's catalogue."""
    import json  # noqa: PLC0415

    excerpt = json.dumps(list(instance.tags), ensure_ascii=False)
    return Citation(instance.document, f"{instance.pointer}/ServiceTags", shorten(excerpt))


def registration(instance: Instance) -> Citation:
    """The instance's id and address in Consul's catalogue."""
    where = f"{instance.id} at {instance.address}:{instance.port}"
    return Citation(instance.document, instance.pointer, shorten(where))


def container(it: Container, field: str, excerpt: str) -> Citation:
    """A field of `docker inspect`; `field` is a JSON pointer below the container."""
    return Citation(docker.CONTAINERS, f"{it.pointer}{field}", shorten(excerpt))


def untimed(line: str) -> str:
    """A line of a container's log without the time that Docker writes before it."""
    return re.sub(r"^\d{4}-\d\d-\d\dT[\d:.]+Z\s+", "", line)


def log_line(it: Container, line: str) -> Citation:
    """A line that a container wrote."""
    return Citation(layout.docker_log(it.name), "", shorten(line.strip()))


def listener(document: str, entry: ListenerEntry, excerpt: str) -> Citation:
    """A listener in a sidecar's dump."""
    return Citation(document, entry.pointer, shorten(excerpt))


def shorten(text: str) -> str:
    """`text`, short enough to print."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rstrip(' .,;:')}..."
