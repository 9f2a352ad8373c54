"""One collecting run: every source at once, within one deadline."""

import threading
from collections.abc import Callable
from concurrent.futures import wait
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
    Options,
    Recorder,
    Run,
    Workers,
)
from meshdoctor.snapshot import Snapshot
from meshdoctor.topology.roles import runs_envoy

# Reaching an engine takes several answers: a connection, for ssh a handshake, its version.
_CONNECTING: Final = 4


def collect(options: Options, progress: Callable[[str], None]) -> Snapshot:
    """See `meshdoctor.collectors.collect`."""
    created = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    deadline = Deadline(options.deadline, options.request_timeout)
    workers = Workers(options.workers)
    run = Run(options, deadline, workers, Recorder(), _one_at_a_time(progress))
    try:
        # What is asked at addresses that are known need not wait for Docker, which may hang.
        begun = consul.begin(run)
        pilot.collect_given(run)
        istio.collect_given(run)
        run.say("looking for Docker")
        engine = _engine(run)
        containers = docker.collect(run, engine) if engine is not None else ()
        consul.collect(run, begun, engine, containers)
        if engine is not None:
            pilot.collect(run, engine, containers)
            istio.collect(run, engine, containers)
        envoy.collect(run, engine, containers)
        if engine is not None:
            netfilter.collect(run, engine, containers)
            zipkin.collect(run, engine, containers)
            kube.collect(run, containers)
            compose.collect(run, engine, containers)
        in_docker = any(map(runs_envoy, containers))
        if not processes.are_seen() and not run.options.envoys and not in_docker:
            envoy.collect_unnamed(run)
        workers.settle(deadline)
        # Consul must have told first which of this machine's Envoys are its own.
        envoy.collect_processes(run, containers, run.recorder.so_far())
        workers.settle(deadline)
        if not in_docker:
            envoy.say_unreached(run, containers, run.recorder.so_far())
        if engine is None:
            pilot.say_unreached(run)
        return run.recorder.snapshot(deadline.reason(), created)
    finally:
        # Also on Ctrl-C: what is under way finds the deadline over and ends by itself.
        deadline.end()
        workers.stop()
        run.closing.close()


def _engine(run: Run) -> docker.Engine | None:
    connecting = run.workers.submit(docker.connect, run.options, run.deadline)
    patience = min(run.deadline.remaining(), _CONNECTING * run.options.request_timeout)
    wait([connecting], patience)
    try:
        if not connecting.done():
            raise HungError(f"Docker's engine did not answer within {patience:.3g} seconds")
        engine = connecting.result()
    except CollectError as error:
        run.recorder.absent("docker/", str(error))
        return None
    run.closing.callback(engine.close)
    return engine


def _one_at_a_time(progress: Callable[[str], None]) -> Callable[[str], None]:
    lock = threading.Lock()

    def say(message: str) -> None:
        with lock:
            progress(message)

    return say
