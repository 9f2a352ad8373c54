"""Which containers share a network namespace, and which sit in one that is gone."""

from collections import defaultdict
from collections.abc import Iterable

from meshdoctor.evidence.docker import Container
from meshdoctor.evidence.times import moment


class Namespaces:
    """Which containers share a network namespace, by `NetworkMode: container:<id>`."""

    def __init__(self, containers: Iterable[Container]) -> None:
        self.containers = {each.id: each for each in containers}
        self.names = {each.name: each for each in containers}
        self.guests: dict[str, list[Container]] = defaultdict(list)
        for each in self.containers.values():
            host = self.host(each)
            if host is not None and host.id != each.id:
                self.guests[host.id].append(each)

    def host(self, container: Container) -> Container | None:
        """The container whose namespace it is: itself, another, or None where that is gone."""
        seen = set()
        while container.network_container and container.id not in seen:
            seen.add(container.id)
            target = container.network_container
            found = self.containers.get(target) or self.names.get(target)
            if found is None:
                return None
            container = found
        return container

    def beside(self, container: Container) -> tuple[Container, ...]:
        """The others in its namespace: the host first, then what runs, by name."""
        host = self.host(container)
        if host is None:
            return ()
        guests = sorted(self.guests[host.id], key=lambda each: (not each.running, each.name))
        return tuple(each for each in (host, *guests) if each.id != container.id)

    def is_dead(self, container: Container) -> bool:
        """True where a running container still holds a namespace that its host has left."""
        if not container.network_container or not container.running:
            return False
        host = self.host(container)
        if host is None:
            return True
        if not host.running:
            return False
        mine, theirs = moment(container.started_at), moment(host.started_at)
        return mine is not None and theirs is not None and theirs > mine
