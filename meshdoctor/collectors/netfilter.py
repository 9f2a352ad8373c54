"""The nat rules beside each sidecar, as `iptables-save` sees them from inside."""

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from meshdoctor.collectors import namespace
from meshdoctor.collectors.docker import Engine
from meshdoctor.collectors.interface import CollectError, NotAnsweringError, Run
from meshdoctor.evidence import layout
from meshdoctor.evidence.docker import Container
from meshdoctor.topology.roles import runs_envoy

_SEARCHED: Final = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
_REDIRECTS: Final = (b"-j REDIRECT", b"-j TPROXY", b"ISTIO_", b"CONSUL_")


def collect(run: Run, engine: Engine, containers: Iterable[Container]) -> None:
    """Have the nat rules of every running sidecar's network namespace read."""
    for container in containers:
        if runs_envoy(container) and container.running:
            run.later(
                layout.netfilter(container.name),
                lambda container=container: _rules(run, engine, container),  # type: ignore[misc] # bound now
            )


def _rules(run: Run, engine: Engine, container: Container) -> bytes:
    reasons = []
    for way, read in (("namespace", _by_namespace), ("exec", _by_exec)):
        try:
            return _telling(list(read(run, engine, container)))
        except CollectError as error:
            reasons.append(f"{way}: {error}")
    raise NotAnsweringError(f"the nat rules beside it could not be read ({'; '.join(reasons)})")


def _telling(answers: list[bytes]) -> bytes:
    """Old and new rules live side by side: the answer that redirects, else the longest."""
    for answer in answers:
        if any(sign in answer for sign in _REDIRECTS):
            return answer
    return max(answers, key=len)


def _by_namespace(run: Run, _engine: Engine, container: Container) -> Iterator[bytes]:
    namespace.check_reachable(container.pid, container.id, container.started_at)
    programs = list(_programs(legacy=_has_legacy_rules(container.pid)))
    if not programs:
        raise NotAnsweringError("this machine has no iptables-save: install iptables")
    failures = []
    for program in programs:
        timeout = run.deadline.request()

        def save(program: str = program, timeout: float = timeout) -> bytes:
            return _run(program, timeout)

        try:
            # The process is started by the thread that went in, so it is inside as well.
            yield namespace.within(container.pid, save, timeout)
        except CollectError as error:
            failures.append(str(error))
    if len(failures) == len(programs):
        raise NotAnsweringError("; ".join(dict.fromkeys(failures)))


def _programs(*, legacy: bool) -> Iterator[str]:
    """What to run, by full path; where only `iptables-save` is there, it may be either kind.

    The legacy one would create the table that it is asked for: it is run only where there is one.
    """
    plain = shutil.which("iptables-save", path=_SEARCHED)
    plain_is_legacy = plain is not None and "legacy" in Path(plain).resolve().name
    old = shutil.which("iptables-legacy-save", path=_SEARCHED) or plain
    new = shutil.which("iptables-nft-save", path=_SEARCHED)
    if legacy and old is not None:
        yield old
    if new is None and not plain_is_legacy and plain != old:
        new = plain
    if new is not None:
        yield new


def _has_legacy_rules(pid: int) -> bool:
    try:
        return "nat" in Path(f"/proc/{pid}/net/ip_tables_names").read_text().split()
    except OSError:
        return False


def _run(program: str, timeout: float) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 # found in the system's own folders
            [program, "-t", "nat"], capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotAnsweringError(f"{program} did not end within {timeout:.3g} seconds") from None
    except OSError as error:
        raise NotAnsweringError(f"{program} cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise NotAnsweringError(said[-1] if said else f"{program} failed")
    return done.stdout


def _by_exec(_run: Run, engine: Engine, container: Container) -> Iterator[bytes]:
    # Only root may read the rules; the sidecar's own user is another on purpose.
    output = engine.execute(container.id, ["iptables-save", "-t", "nat"], user="0")
    if output.code != 0:
        lines = (output.err or output.out.decode("utf-8", "replace")).strip().splitlines()
        raise NotAnsweringError(lines[-1] if lines else f"exit code {output.code}")
    yield output.out
