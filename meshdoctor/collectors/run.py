"""One collecting run: every source at once, within one deadline."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from meshdoctor.collectors import (
    compose,
    consul,
    docker,
    envoy,
    istio,
    kube,
    netfilter,
    pilot,
    processes,
    zipkin,
)
from meshdoctor.collectors.interface import (
    CollectError,
    Deadline,
    HungError,
    NamedEngine,
    Options,
    Recorder,
    Run,
    Workers,
)
from meshdoctor.evidence import layout
from meshdoctor.evidence.docker import Container
from meshdoctor.evidence.times import in_writing
from meshdoctor.snapshot import Snapshot
from meshdoctor.snapshot.merging import Part, merge
from meshdoctor.topology.roles import runs_envoy

# Reaching an engine takes several answers: a connection, for ssh a handshake, its version.
_CONNECTING: Final = 4
_HOSTS_AT_ONCE: Final = 16
"""Each has workers of its own."""


def collect(options: Options, progress: Callable[[str], None]) -> Snapshot:
    """See `meshdoctor.collectors.collect`."""
    say = _one_at_a_time(progress)
    if options.engines:
        return _collect_hosts(options, say)
    created = _now()
    with _run(options, say) as run:
        # What is asked at addresses that are known need not wait for Docker, which may hang.
        begun = _begin(run)
        run.say("looking for Docker")
        engine = _engine(run)
        containers = docker.collect(run, engine) if engine is not None else ()
        consul.collect(run, begun, engine, containers)
        envoy.collect(run, engine, containers)
        if engine is not None:
            _collect_from_containers(run, engine, containers)
        _collect_own(run, containers, Snapshot({}))
        if engine is None:
            pilot.say_unreached(run)
        return run.recorder.snapshot(run.deadline.reason(), created)


@contextmanager
def _run(options: Options, say: Callable[[str], None]) -> Iterator[Run]:
    deadline = Deadline(options.deadline, options.request_timeout)
    run = Run(options, deadline, Workers(options.workers), Recorder(), say)
    try:
        yield run
    finally:
        # Also on Ctrl-C: what is under way finds the deadline over and ends by itself.
        deadline.end()
        run.workers.stop()
        run.closing.close()


def _begin(run: Run) -> consul.Begun:
    """Ask what is at addresses that are given or usual."""
    begun = consul.begin(run)
    pilot.collect_given(run)
    istio.collect_given(run)
    return begun


def _collect_from_containers(
    run: Run, engine: docker.Engine, containers: tuple[Container, ...]
) -> None:
    """What is read of containers, but for Consul and the Envoys."""
    pilot.collect(run, engine, containers)
    istio.collect(run, engine, containers)
    netfilter.collect(run, engine, containers)
    zipkin.collect(run, engine, containers)
    kube.collect(run, containers)
    compose.collect(run, engine, containers)


def _collect_own(run: Run, containers: tuple[Container, ...], seen: Snapshot) -> None:
    """The Envoys that run on this machine in no container, once all the rest is read.

    `seen` is what other runs recorded of the same mesh.
    """
    in_docker = any(map(runs_envoy, containers))
    if not processes.are_seen() and not run.options.envoys and not in_docker:
        envoy.collect_unnamed(run)
    run.workers.settle(run.deadline)
    # Consul must have told first which of this machine's Envoys are its own.
    envoy.collect_processes(run, containers, _both(seen, run.recorder.so_far()))
    run.workers.settle(run.deadline)
    if not in_docker:
        envoy.say_unreached(run, containers, _both(seen, run.recorder.so_far()))


def _both(seen: Snapshot, own: Snapshot) -> Snapshot:
    return Snapshot({**seen.documents, **own.documents})


def _engine(run: Run, name: str = "") -> docker.Engine | None:
    """The engine, None with the reason where it cannot be read; `name` is one of several's."""
    connecting = run.workers.submit(docker.connect, run.options, run.deadline)
    patience = min(run.deadline.remaining(), _CONNECTING * run.options.request_timeout)
    wait([connecting], patience)
    try:
        if not connecting.done():
            raise HungError(f"Docker's engine did not answer within {patience:.3g} seconds")
        engine = connecting.result()
    except CollectError as error:
        said = str(error)
        if name:
            said = f"host {name} could not be read: {said.removesuffix(docker.HINT)}"
        run.recorder.absent("docker/", said)
        return None
    run.closing.callback(engine.close)
    return engine


# ---------------------------------------------------------------- several Docker hosts


def _collect_hosts(options: Options, say: Callable[[str], None]) -> Snapshot:
    """One run over several engines, each with a deadline of its own, as one snapshot.

    What was given by hand, and what runs on this machine without Docker, comes last: only then
    is it known what the hosts did not show.
    """
    created = _now()
    hosts = Workers(min(len(options.engines), _HOSTS_AT_ONCE))
    begun: list[Run] = []
    try:
        asked = {
            name: hosts.submit(_collect_host, options, name, created, begun, say)
            for name in options.engines
        }
        parts = [Part(str(name), each.result(), name.short) for name, each in asked.items()]
    finally:
        # On Ctrl-C they are in the midst of it.
        hosts.stop()
        for run in begun:
            run.deadline.end()
    seen = merge(parts)
    own = _collect_beside(options, seen, created, say)
    return merge([Part("the Docker hosts", seen), Part("this machine", own)])


def _collect_host(
    options: Options,
    name: NamedEngine,
    created: str,
    begun: list[Run],
    say: Callable[[str], None],
) -> Snapshot:
    """What one engine and its containers tell."""
    with _run(replace(options.of(name), envoys={}), say) as run:
        begun.append(run)
        run.say(f"looking for Docker at {name}")
        engine = _engine(run, str(name))
        if engine is not None:
            containers = docker.collect(run, engine)
            consul.collect_shown(run, engine, containers)
            envoy.collect(run, engine, containers)
            _collect_from_containers(run, engine, containers)
            run.workers.settle(run.deadline)
        return run.recorder.snapshot(run.deadline.reason(), created)


def _collect_beside(
    options: Options, seen: Snapshot, created: str, say: Callable[[str], None]
) -> Snapshot:
    """What is beside the Docker hosts; of Envoys given by hand, those that no host showed."""
    read = {layout.name_of(each.split("/")[1]) for each in seen.names("envoy/")}
    by_hand = {name: url for name, url in options.envoys.items() if name not in read}
    with _run(replace(options, engines=(), envoys=by_hand), say) as run:
        if consul.is_given(options) or not seen.names("consul/"):
            consul.collect(run, consul.begin(run), None, ())
        pilot.collect_given(run)
        istio.collect_given(run)
        envoy.collect(run, None, ())
        _collect_own(run, docker.containers_of(seen), seen)
        if not seen.names("docker/"):
            pilot.say_unreached(run)
        return run.recorder.snapshot(run.deadline.reason(), created)


def _now() -> str:
    return in_writing(datetime.now(UTC))


def _one_at_a_time(progress: Callable[[str], None]) -> Callable[[str], None]:
    lock = threading.Lock()

    def say(message: str) -> None:
        with lock:
            progress(message)

    return say
