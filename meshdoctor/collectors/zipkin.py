"""Zipkin's list of the services that sent it traces."""

from collections.abc import Iterable
from typing import Final

from meshdoctor.collectors import ways
from meshdoctor.collectors.docker import Engine
from meshdoctor.collectors.interface import CollectError, NotAnsweringError, OutOfTimeError, Run
from meshdoctor.evidence.docker import Container
from meshdoctor.evidence.zipkin import SERVICES
from meshdoctor.topology.roles import Role, role_of

_PORT: Final = 9411


def collect(run: Run, engine: Engine, containers: Iterable[Container]) -> None:
    """Have the first running tracing server asked; Jaeger, too, may take Zipkin's traces."""
    for container in containers:
        if container.running and role_of(container) is Role.TRACING:
            run.later(SERVICES, lambda container=container: _services(run, engine, container))  # type: ignore[misc] # bound now
            return


def _services(run: Run, engine: Engine, container: Container) -> bytes:
    way = ways.ByAddress(ways.urls(engine, [container], [_PORT]), run.deadline)
    try:
        return way.read(lambda get: get("/api/v2/services"))
    except OutOfTimeError:
        raise
    except CollectError as error:
        raise NotAnsweringError(f"{container.name} was not reached: {error}") from error
