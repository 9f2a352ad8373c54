"""The evidence of a command: recorded or gathered, or why there is none."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from meshdoctor.cli.choice import live_options, typed
from meshdoctor.cli.exits import no_verdict, say
from meshdoctor.files import is_there

if TYPE_CHECKING:
    from meshdoctor.check import Examination
    from meshdoctor.collectors import Options
    from meshdoctor.evidence.interface import Evidence, EvidenceError
    from meshdoctor.snapshot import Snapshot


T = TypeVar("T")


DEMO: Final = "demo"
"""What `--snapshot` calls the recording that `meshdoctor demo` examines."""


def open_recorded(paths: tuple[Path | str, ...]) -> "Snapshot":
    """The snapshots as one; `demo` is a name for the recording that is always there."""
    from meshdoctor.snapshot import SnapshotError, open_snapshots  # noqa: PLC0415

    if paths == (Path(DEMO),) and not is_there(Path(DEMO)):
        return recorded_demo()
    if unused := live_options():
        say(
            f"meshdoctor: what is recorded is examined, so {' and '.join(unused)} "
            f"{'is' if len(unused) == 1 else 'are'} not used"
        )
    here = [path for path in paths if isinstance(path, Path)]
    try:
        if len(here) == len(paths):
            return open_snapshots(here)
        from meshdoctor.collectors.remote import open_places  # noqa: PLC0415

        return open_places(paths)
    except SnapshotError as error:
        hides = Path(DEMO) in paths and is_there(Path(DEMO))
        other = f"; for the recording called {DEMO}, run this in another folder" if hides else ""
        no_verdict(f"{error}{nearest(paths)}{other}")


def nearest(paths: Iterable[Path | str]) -> str:
    """The end of a sentence about files: the name that was meant, where one is not there."""
    from difflib import get_close_matches  # noqa: PLC0415

    for path in paths:
        if isinstance(path, str) or is_there(path):
            # What a URL may have meant, only its store knows.
            continue
        try:
            names = [each.name for each in path.parent.iterdir()]
        except OSError:
            continue
        if path.parent == Path():
            names.append(DEMO)
        for name in get_close_matches(path.name, sorted(names), n=1, cutoff=0.75):
            return f"; did you mean {path.with_name(name)}?"
    return ""


def recorded_demo() -> "Snapshot":
    from importlib import resources  # noqa: PLC0415

    recording = resources.files("meshdoctor.snapshot") / "recordings" / "broken.tgz"
    with resources.as_file(recording) as path:
        return open_recorded((path,))


def laid_over(snapshot: "Snapshot", rules: tuple[Path, ...]) -> "Snapshot":
    from meshdoctor.collectors.rules import RulesError, lay_over  # noqa: PLC0415

    try:
        return lay_over(snapshot, rules)
    except RulesError as error:
        raise click.UsageError(f"{error}{nearest(rules)}") from error


def examination_of(snapshots: tuple[Path | str, ...], options: Mapping[str, Any]) -> "Examination":
    from meshdoctor.check import Examination  # noqa: PLC0415

    examination = Examination(open_recorded(snapshots) if snapshots else gather(options))
    if (nothing := nothing_there(examination, snapshots)) is not None:
        no_verdict(nothing)
    return examination


def required(examination: "Examination", wanted: type[T]) -> T:
    """The evidence that a command cannot do without; there is no verdict where it is missing."""
    from meshdoctor.evidence.interface import (  # noqa: PLC0415
        EvidenceError,
        MissingEvidenceError,
    )

    try:
        return examination.get(wanted)
    except EvidenceError as error:
        hint = error.hint if isinstance(error, MissingEvidenceError) else ""
        no_verdict(f"{error}; {hint}" if hint else str(error))


def gather(options: Mapping[str, Any], *, whole: bool = False) -> "Snapshot":
    """The evidence of a live mesh; `whole` for a recording of it."""
    from meshdoctor.collectors import collect  # noqa: PLC0415

    with progress() as under_way:
        return collect(where(options, whole=whole), under_way)


def where(options: Mapping[str, Any], *, whole: bool = False) -> "Options":
    from meshdoctor.collectors import NamedEngine, Options  # noqa: PLC0415

    hosts, contexts = options["docker_host"], options["docker_context"]
    on_line = typed()
    # What is not typed is the settings file's: an engine that is typed beats it by either name.
    if "docker_context" in on_line and "docker_host" not in on_line:
        hosts = ()
    if "docker_host" in on_line and "docker_context" not in on_line:
        contexts = ()
    engines = [NamedEngine(host=each) for each in hosts]
    engines += [NamedEngine(context=each) for each in contexts]
    engines = list(dict.fromkeys(engines))
    alone = engines[0] if len(engines) == 1 else NamedEngine()
    return Options(
        docker_host=alone.host,
        docker_context=alone.context,
        engines=tuple(engines) if len(engines) > 1 else (),
        consul=options["consul"],
        consul_token_file=options["consul_token_file"],
        pilot=options["pilot"],
        apiserver=options["apiserver"],
        kubeconfig=options["kubeconfig"],
        envoys=options["envoys"],
        helper_image=options["helper_image"],
        deadline=options["timeout"],
        request_timeout=options["request_timeout"],
        whole=whole,
    )


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """One moving line on stderr while evidence is gathered, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda _message: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    with Console(stderr=True).status(Text("looking for the mesh")) as status:
        yield lambda message: status.update(Text(message))


_CALLED: Final[Mapping[str, str]] = {
    "docker": "Docker",
    "consul": "Consul",
    "envoy": "sidecars",
    "pilot": "Pilot",
    "istio": "Istio's rules",
}


def nothing_there(examination: "Examination", recorded: Sequence[object] = ()) -> str | None:
    """What to say where no part of a mesh is to be seen, with where it was looked for; or None.

    `recorded` are the paths of a snapshot; none of a live mesh.
    """
    from meshdoctor.evidence.consul import ConsulCatalog  # noqa: PLC0415
    from meshdoctor.evidence.docker import DockerEngine  # noqa: PLC0415
    from meshdoctor.topology import Mesh  # noqa: PLC0415

    documents = examination.documents
    mesh = examination.find(Mesh)
    if mesh is not None and not mesh.is_empty and documents.names():
        return None
    docker, catalog = examination.look(DockerEngine), examination.look(ConsulCatalog)
    if _is_damaged(docker) or _is_damaged(catalog):
        # It may have held a mesh: that is another story, and told in full.
        return None
    looked = []
    if isinstance(docker, DockerEngine):
        number = len(docker.containers)
        among = f" among {number} containers" if number > 1 else ""
        said = f"no Envoy, Pilot, Consul or Registrator{among}" if number else "no container"
        looked.append(f"  Docker: {said}")
    if isinstance(catalog, ConsulCatalog):
        looked.append("  Consul: no service of an application is registered")
    for each in documents.missing():
        folder, _, below = each.document.rstrip("/").partition("/")
        # Of sidecars there are many: one that was named is named.
        of_one = folder == "envoy" and below
        called = f"sidecar {below.split('/')[0]}" if of_one else _CALLED.get(folder, each.document)
        if ".." in below:
            # Of no source: a name in an archive that leads out of it.
            called = each.document
        looked.append(f"  {called}: {each.message}")
    looked = list(dict.fromkeys(looked))
    if recorded:
        return "\n".join(
            [
                f"nothing could be examined: no mesh is recorded in {recorded[0]}",
                *looked,
                "Record it where the mesh runs: meshdoctor snapshot -o evidence.tgz",
            ]
        )
    return "\n".join(
        [
            "nothing could be examined, for no mesh was found. This was looked for:",
            *looked,
            "",
            "Start the mesh and run this again, or point meshdoctor at it:",
            "  meshdoctor check --docker-host ssh://me@mesh-host",
            "  meshdoctor check --consul http://127.0.0.1:8500 --envoy web=http://127.0.0.1:15000",
            "  meshdoctor check --snapshot evidence.tgz",
            "Or see one without a mesh: meshdoctor demo",
        ]
    )


def _is_damaged(evidence: "Evidence | EvidenceError") -> bool:
    from meshdoctor.evidence.interface import DecodeError, EvidenceError  # noqa: PLC0415

    if isinstance(evidence, EvidenceError):
        return isinstance(evidence, DecodeError)
    return bool(evidence.problems)
