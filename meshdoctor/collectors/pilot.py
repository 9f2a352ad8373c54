"""Pilot's debug pages and metrics."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from meshdoctor.collectors import ways
from meshdoctor.collectors.docker import Engine
from meshdoctor.collectors.http import Get
from meshdoctor.collectors.interface import AnswerError, CollectError, Run, is_json
from meshdoctor.evidence import layout
from meshdoctor.evidence.docker import Container
from meshdoctor.topology.roles import Role, role_of

_REGISTRY: Final = "registryz.json"
_PAGES: Final = ("endpointz", "syncz", "push_status", "configz")
_METRICS: Final = "metrics.txt"

# Debug pages: Istio's default, the one of its Compose files, and where newer ones have them.
_DEBUG_PORTS: Final = (8080, 15007, 15014)
_METRICS_PORTS: Final = (15014, 9093)
_HTTP_ADDRESS: Final = re.compile(r"--httpAddr[= ]\S*:(\d{2,5})\b")
_MONITORING: Final = re.compile(r"--(?:monitoringAddr|monitoring-addr)[= ]\S*:(\d{2,5})\b")


def collect_given(run: Run) -> None:
    """Have Pilot's pages fetched at the address that was given."""
    given = run.options.pilot
    if given is not None:
        url = given if "://" in given else f"http://{given}"
        found = (ways.ByAddress([url], run.deadline, "url"),)
        run.recorder.expect(layout.pilot(_REGISTRY))
        run.workers.submit(_debug_pages, run, found)
        run.workers.submit(_metrics, run, found)


def collect(run: Run, engine: Engine, containers: Iterable[Container]) -> None:
    """Have them fetched from the container that runs it, unless an address was given."""
    if run.options.pilot is not None:
        return
    for container in containers:
        if role_of(container) is not Role.PILOT:
            continue
        if not container.running:
            reason = f"{container.name} does not run ({container.status})"
            run.recorder.absent(layout.pilot(_REGISTRY), reason)
            continue
        command = " ".join(container.command)
        debug = _ports(_HTTP_ADDRESS, command, _DEBUG_PORTS)
        monitoring = _ports(_MONITORING, command, _METRICS_PORTS)
        run.recorder.expect(layout.pilot(_REGISTRY), layout.pilot(_METRICS))
        for fetch, ports in ((_debug_pages, debug), (_metrics, monitoring)):
            found = ways.into(engine, container, ports, run.deadline)
            run.workers.submit(fetch, run, found)
        return


def _ports(pattern: re.Pattern[str], command: str, usual: tuple[int, ...]) -> tuple[int, ...]:
    named = pattern.search(command)
    return (int(named[1]),) if named else usual


def _debug_pages(run: Run, found: Iterable[ways.Way]) -> None:
    def reading(get: Get) -> None:
        registry = get("/debug/registryz")
        if not is_json(registry):
            raise AnswerError("what answers there is not Pilot")
        run.recorder.put(layout.pilot(_REGISTRY), registry)
        for page in _PAGES:
            run.record(layout.pilot(f"{page}.json"), lambda page=page: get(f"/debug/{page}"))  # type: ignore[misc] # bound now

    ahead = ["/debug/registryz", *(f"/debug/{page}" for page in _PAGES)]
    _try(run, layout.pilot(_REGISTRY), found, reading, ahead)


def _metrics(run: Run, found: Iterable[ways.Way]) -> None:
    def reading(get: Get) -> None:
        metrics = get("/metrics")
        if b"# TYPE " not in metrics:
            raise AnswerError("what answers there gives no metrics")
        run.recorder.put(layout.pilot(_METRICS), metrics)

    _try(run, layout.pilot(_METRICS), found, reading, ["/metrics"])


def _try(
    run: Run,
    document: str,
    found: Iterable[ways.Way],
    reading: Callable[[Get], None],
    ahead: Sequence[str],
) -> None:
    try:
        ways.read(found, reading, ahead)
    except CollectError as error:
        reason = f"Pilot was not reached ({error}); point meshdoctor at it with --pilot"
        run.recorder.absent(document, reason)


def say_unreached(run: Run) -> None:
    """Where there is no engine to ask, Pilot is only found by hand."""
    if run.options.pilot is None:
        reason = "not looked for without Docker: point meshdoctor at it with --pilot"
        run.recorder.absent("pilot/", reason)
