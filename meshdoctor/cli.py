"""The command line: arguments in, exit code out."""

import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from meshdoctor import __version__

# Start-up is what a person waits for most often: what only some commands need, they import.
if TYPE_CHECKING:
    from meshdoctor.check import Examination
    from meshdoctor.collectors import Options
    from meshdoctor.diagnosis import Checks, Policy
    from meshdoctor.report.document import Report
    from meshdoctor.report.terminal import Terminal
    from meshdoctor.routing.calls import Pair
    from meshdoctor.settings import Settings
    from meshdoctor.snapshot import Snapshot

T = TypeVar("T")

EXIT_CLEAN: Final = 0
EXIT_FINDINGS: Final = 1
EXIT_USAGE: Final = 2
EXIT_NO_VERDICT: Final = 3
EXIT_INTERRUPTED: Final = 130

FORMATS: Final = ("text", "json")
DEMO: Final = "demo"
"""What `--snapshot` calls the recording that `meshdoctor demo` examines."""
SEVERITIES: Final = ("error", "warning", "info")

_PATH: Final = click.Path(path_type=Path)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _option(*names: str, **settings: Any) -> Callable[[Any], Any]:
    return click.option(*names, **settings)


def _options(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def apply(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def _named_urls(
    _context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> Mapping[str, str]:
    named: dict[str, str] = {}
    for value in values:
        name, equals, url = value.partition("=")
        if not (name and equals and url):
            raise click.BadParameter(
                f"{value!r}: write NAME=URL, as in web=http://127.0.0.1:15000", param=parameter
            )
        named[name] = url if "://" in url else f"http://{url}"
    return named


def _headers(
    _context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    headers = []
    for value in values:
        name, colon, content = value.partition(":")
        if not colon or not _HEADER_NAME.fullmatch(name):
            raise click.BadParameter(
                f"{value!r}: write 'Name: value', as in -H 'end-user: jason'", param=parameter
            )
        headers.append((name, content.strip()))
    return tuple(headers)


def _path(_context: click.Context, parameter: click.Parameter, value: str) -> str:
    if re.fullmatch("/[!-~]*", value) is None:
        raise click.BadParameter(
            f"{value!r}: write a path as it stands in a URL, as in /health?full=1", param=parameter
        )
    return value


def _outputs(
    _context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, Path], ...]:
    outputs = []
    for value in values:
        name, equals, path = value.partition("=")
        if name not in FORMATS or not equals or not path:
            raise click.BadParameter(
                f"{value!r}: write FORMAT=FILE, with a format of {', '.join(FORMATS)}, "
                "as in json=report.json",
                param=parameter,
            )
        outputs.append((name, Path(path)))
    return tuple(outputs)


def _configured(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Let the values of the settings file stand where no flag is typed and no variable set."""
    from meshdoctor.settings import SettingsError, discover, load  # noqa: PLC0415

    if context.resilient_parsing:
        return
    try:
        context.obj = discover() if path is None else load(path)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    context.default_map = context.obj.options(os.environ)


config_option = _option(
    "--config",
    type=_PATH,
    envvar="MESHDOCTOR_CONFIG",
    is_eager=True,
    expose_value=False,
    callback=_configured,
    metavar="FILE",
    help="Settings file; else MESHDOCTOR_CONFIG, else the nearest meshdoctor.toml or "
    "[tool.meshdoctor] of a pyproject.toml, here or above.",
)

snapshot_option = _option(
    "--snapshot",
    "snapshots",
    multiple=True,
    type=_PATH,
    metavar="PATH",
    help="Examine recorded evidence, a folder or .tgz, instead of a live mesh; `demo` is the one "
    "that ships with meshdoctor.",
)

where_options = _options(
    _option("--docker-host", metavar="URL", help="Docker engine, as DOCKER_HOST has it."),
    _option("--docker-context", metavar="NAME", help="Docker context, as `docker -c` has it."),
    _option(
        "--consul", metavar="URL", help="Consul's HTTP API; else CONSUL_HTTP_ADDR, else found."
    ),
    _option(
        "--consul-token-file",
        type=_PATH,
        metavar="FILE",
        help="File with the ACL token; else CONSUL_HTTP_TOKEN.",
    ),
    _option("--pilot", metavar="URL", help="Pilot's debug address; else found through Docker."),
    _option(
        "--apiserver",
        metavar="URL",
        help="The API server that holds Istio's rules; else found through Docker.",
    ),
    _option(
        "--kubeconfig",
        type=_PATH,
        metavar="FILE",
        help="Read the rules as the current context of this kubeconfig has access.",
    ),
    _option(
        "--envoy",
        "envoys",
        multiple=True,
        callback=_named_urls,
        metavar="NAME=URL",
        help="A sidecar's admin address, given by hand. Repeat it.",
    ),
    _option(
        "--helper-image",
        metavar="IMAGE",
        help="Allow a helper container of this image (it must hold curl or wget) beside sidecars "
        "that cannot be reached otherwise.",
    ),
    _option(
        "--timeout",
        type=click.FloatRange(min=0.1),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="Deadline for gathering all evidence.",
    ),
    _option(
        "--request-timeout",
        type=click.FloatRange(min=0.1),
        default=5.0,
        show_default=True,
        metavar="SECONDS",
        help="Deadline for one answer.",
    ),
)

report_options = _options(
    _option(
        "--format",
        "format_",
        type=click.Choice(FORMATS),
        default="text",
        show_default=True,
        help="What goes to stdout.",
    ),
    _option(
        "--output",
        "outputs",
        multiple=True,
        callback=_outputs,
        metavar="FORMAT=FILE",
        help="Write the report to a file too, as in json=report.json. Repeat it.",
    ),
    _option("--width", type=click.IntRange(min=20), metavar="COLUMNS", help="Width of the text."),
    _option("--color/--no-color", default=None, help="Colour the text; else as NO_COLOR says."),
)


def fail_on_option(
    meaning: str = "The least severity that gives exit code 1.",
) -> Callable[[Any], Any]:
    """`--fail-on`, and what it means for this command."""
    return _option(
        "--fail-on",
        type=click.Choice(SEVERITIES),
        default="error",
        show_default=True,
        help=meaning,
    )


checks_option = _option(
    "--checks",
    "check_paths",
    multiple=True,
    type=_PATH,
    metavar="PATH",
    help="A file or folder with checks of your own. Repeat it.",
)

select_options = _options(
    _option(
        "--select",
        multiple=True,
        metavar="CODE",
        help="Run only these: a code, its beginning, or a name. Repeat it or separate by commas.",
    ),
    _option("--ignore", multiple=True, metavar="CODE", help="Do not run these; as --select."),
    checks_option,
)


calls_options = _options(
    _option(
        "--caller",
        "callers",
        multiple=True,
        metavar="GLOB",
        help="Only calls of these workloads, as in '*reviews*'. Repeat it.",
    ),
    _option(
        "--callee",
        "callees",
        multiple=True,
        metavar="GLOB",
        help="Only calls to these services. Repeat it.",
    ),
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `meshdoctor demo` (no mesh needed) or `meshdoctor check`.",
)
@click.version_option(__version__, prog_name="meshdoctor")
def cli() -> None:
    """Say what is broken in a Consul and Envoy mesh, why, and what to type.

    Nothing in the mesh is changed, and nothing leaves this machine.
    """


@cli.command(short_help="Examine the mesh and print the diagnosis.")
@snapshot_option
@click.option(
    "--compose",
    "composes",
    multiple=True,
    type=_PATH,
    metavar="FILE",
    help="Judge Compose files alone, before anything runs: what would break, and why. Repeat it, "
    "in the order that `docker compose -f` has them.",
)
@fail_on_option()
@click.option(
    "--rules",
    multiple=True,
    type=_PATH,
    metavar="PATH",
    help="Judge as if the VirtualServices and DestinationRules of this YAML file or folder were "
    "applied: what would break. Repeat it.",
)
@select_options
@report_options
@where_options
@config_option
def check(
    snapshots: tuple[Path, ...],
    composes: tuple[Path, ...],
    rules: tuple[Path, ...],
    **options: Any,
) -> None:
    """Examine the mesh, live, from a snapshot or from Compose files, and print the diagnosis.

    Exit code: 0 nothing found at or above --fail-on, 1 findings, 2 wrong usage, 3 no verdict
    (nothing could be examined, the snapshot is unreadable, or a check crashed).
    """
    checks, policy = _choose(options)
    if composes and rules:
        raise click.UsageError("--rules needs a mesh or a --snapshot; --compose has neither")
    if composes:
        _only_compose(snapshots)
        _judge_compose(composes, checks, policy, options)
    if snapshots:
        snapshot = _open(snapshots)
        target: dict[str, Any] = {
            "kind": "snapshot",
            "paths": [path.name for path in snapshots],
        }
    else:
        snapshot = _gather(options)
        target = {"kind": "live"}
    if rules:
        snapshot = _laid_over(snapshot, rules)
        target["rules"] = [path.name for path in rules]
    _judge(snapshot, checks, policy, target, options)


@cli.command(short_help="Examine a recorded mesh: none of your own is needed.")
@report_options
def demo(**options: Any) -> None:
    """Examine a recorded mesh with the fault that meshdoctor was born from.

    No mesh is needed: the evidence was recorded on a real one, and ships with meshdoctor.
    """
    snapshot = _demo()
    _say(
        "A recorded mesh: Istio 1.1 on Docker Compose with Consul. Calls to port 9080 land on "
        "the wrong service. This is what `meshdoctor check` says of it:\n"
    )
    options |= {"fail_on": "error", "select": (), "ignore": (), "check_paths": ()}
    target = {"kind": "snapshot", "paths": [DEMO]}
    _judge(snapshot, *_choose(options), target, options, demo=True)


@cli.command(short_help="Record the evidence, without secrets, for an issue.")
@click.option(
    "-o",
    "--output",
    "path",
    required=True,
    type=_PATH,
    metavar="FILE.tgz",
    help="Where to write: a .tgz, or a folder that is empty or not there yet.",
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@where_options
@config_option
def snapshot(path: Path, *, force: bool, **options: Any) -> None:
    """Record the evidence of a live mesh, without secrets, to attach to an issue.

    `meshdoctor check --snapshot FILE.tgz` says the same of it as of the live mesh.
    """
    from meshdoctor.snapshot import SnapshotError, write_snapshot  # noqa: PLC0415

    if path.is_file() and not force:
        raise click.UsageError(f"{path} is there already: name another file, or add --force")
    gathered = _gather(options)
    nothing = _nothing_there(gathered)
    if nothing is not None and not gathered.names():
        _no_verdict(nothing)
    try:
        write_snapshot(gathered, path, tool="meshdoctor", version=__version__)
    except SnapshotError as error:
        raise click.UsageError(str(error)) from error
    for problem in gathered.missing() if nothing is None else ():
        _say(f"not recorded: {problem.document}: {problem.message}")
    left_out = sum(gathered.redactions.values())
    click.echo(
        f"{path}: {len(gathered.names())} documents; {left_out} values that no check needs were "
        f"left out. Read it with: meshdoctor check --snapshot {path}",
        err=True,
    )
    if nothing is not None:
        # It is written all the same: a mesh that is not recognised is worth an issue.
        _no_verdict(nothing)


@cli.command(short_help="Show where every workload's calls really land.")
@snapshot_option
@calls_options
@click.option(
    "--wrong", is_flag=True, help="Show only calls that reach another service, or nowhere."
)
@fail_on_option("With warning, calls that are right only by luck give exit code 1 too.")
@report_options
@where_options
@config_option
def matrix(
    snapshots: tuple[Path, ...],
    callers: tuple[str, ...],
    callees: tuple[str, ...],
    *,
    wrong: bool,
    fail_on: str,
    **options: Any,
) -> None:
    """Show where the calls of every workload to every service really land.

    Each call is followed through its caller's own Envoy; nothing is sent. Exit code: 0 all calls
    are right, 1 some reach another service or nowhere, 2 wrong usage, 3 nothing is known.
    """
    from meshdoctor.report import matrix as report  # noqa: PLC0415
    from meshdoctor.routing.calls import Calls, Verdict  # noqa: PLC0415

    pairs = _chosen(_evidence(_examination(snapshots, options), Calls).pairs, callers, callees)
    bad = [pair for pair in pairs if pair.verdict in (Verdict.WRONG, Verdict.NOWHERE)]
    document = report.Matrix(pairs, bad if wrong else pairs, *map(str, snapshots[:1]))
    _deliver(lambda shown: report.render(document, shown), report.render_json(document), options)
    unknown, lucky = document.count(Verdict.UNKNOWN), document.count(Verdict.BY_LUCK)
    if lucky and fail_on == "error" and not bad:
        click.echo(
            f"{_calls(lucky)} right only by luck. With --fail-on warning that is exit code 1.",
            err=True,
        )
    if unknown:
        click.echo(f"{_calls(unknown)} not known.", err=True)
    if bad or (lucky and fail_on != "error"):
        sys.exit(EXIT_FINDINGS)
    sys.exit(EXIT_NO_VERDICT if unknown == len(pairs) else EXIT_CLEAN)


@cli.command(short_help="Follow one call hop by hop.")
@click.argument("source")
@click.argument("url")
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    callback=_headers,
    metavar="'NAME: VALUE'",
    help="A header of the request. Repeat it.",
)
@click.option(
    "-X",
    "--request",
    "method",
    default="GET",
    show_default=True,
    metavar="METHOD",
    help="The method of the request.",
)
@snapshot_option
@report_options
@where_options
@config_option
def trace(
    source: str,
    url: str,
    headers: tuple[tuple[str, str], ...],
    method: str,
    snapshots: tuple[Path, ...],
    **options: Any,
) -> None:
    """Follow one call hop by hop: where it really goes, and where that is written.

    SOURCE is a workload, a service, a sidecar, or a part of such a name that only one has. URL is
    http, https or tcp; its host a service, an address, an instance or a workload. Nothing is
    sent. Exit code: 0 the call reaches the service it names, 1 it does not, 2 wrong usage, 3 that
    cannot be told.
    """
    from meshdoctor.report import trace as report  # noqa: PLC0415
    from meshdoctor.routing import trace as routing  # noqa: PLC0415
    from meshdoctor.routing.calls import Verdict  # noqa: PLC0415
    from meshdoctor.topology import Mesh  # noqa: PLC0415

    mesh = _evidence(_examination(snapshots, options), Mesh)
    if not (mesh.workloads or mesh.sidecars):
        _no_verdict("no workload is known: the evidence has no container or service of one")
    try:
        traced = routing.trace(mesh, source, url, method=method, headers=headers)
    except routing.TraceError as error:
        raise click.UsageError(str(error)) from error
    _deliver(lambda shown: report.render(traced, shown), report.render_json(traced), options)
    match traced.verdict:
        case Verdict.WRONG | Verdict.NOWHERE:
            sys.exit(EXIT_FINDINGS)
        case Verdict.UNKNOWN:
            sys.exit(EXIT_NO_VERDICT)
        case Verdict.RIGHT | Verdict.BY_LUCK:
            sys.exit(EXIT_CLEAN)


@cli.command(short_help="Send one request a pair, and say who answered.")
@calls_options
@click.option(
    "--path",
    default="/",
    show_default=True,
    callback=_path,
    metavar="PATH",
    help="What is asked for.",
)
@click.option(
    "--answer-header",
    default="",
    metavar="NAME",
    help="A response header by which your services say who they are.",
)
@click.option(
    "--fingerprint",
    is_flag=True,
    help="Where nothing better tells who answered, ask the services' own workloads the same on "
    "their localhost, and compare.",
)
@click.option("-y", "--yes", is_flag=True, help="Send many requests without asking first.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0.1, max=1000),
    default=20.0,
    show_default=True,
    metavar="NUMBER",
    help="At most so many requests a second.",
)
@click.option(
    "--probe-timeout",
    type=click.FloatRange(min=1),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Deadline for all probes together.",
)
@click.option(
    "--record",
    type=_PATH,
    metavar="FILE.tgz",
    help="Record the evidence, and what the probe met, as `snapshot` does.",
)
@fail_on_option()
@select_options
@report_options
@where_options
@config_option
def probe(
    callers: tuple[str, ...], callees: tuple[str, ...], record: Path | None, **options: Any
) -> None:
    """Send a request for each caller and callee, and say who answered.

    The one command that sends traffic through the mesh: one GET from inside the caller's own
    network namespace for each caller, callee and port, and nothing else. Shows what the
    configuration predicts beside what was met, then the diagnosis. Above 100 requests it asks
    first. Exit codes are those of `check`.
    """
    from meshdoctor.check import Examination  # noqa: PLC0415
    from meshdoctor.collectors import probe as probing  # noqa: PLC0415
    from meshdoctor.diagnosis import examine  # noqa: PLC0415
    from meshdoctor.evidence.probe import ProbeResults  # noqa: PLC0415
    from meshdoctor.report import probe as report  # noqa: PLC0415
    from meshdoctor.report import text  # noqa: PLC0415
    from meshdoctor.routing.calls import Calls  # noqa: PLC0415
    from meshdoctor.routing.probed import compare  # noqa: PLC0415
    from meshdoctor.snapshot import SnapshotError, write_snapshot  # noqa: PLC0415
    from meshdoctor.topology import Mesh  # noqa: PLC0415

    checks, policy = _choose(options)
    if record is not None and record.exists():
        raise click.UsageError(f"{record} is there already: name another file for --record")
    gathered = _gather(options)
    if (nothing := _nothing_there(gathered)) is not None:
        _no_verdict(nothing)
    examination = Examination(gathered)
    mesh, calls = _evidence(examination, Mesh), _evidence(examination, Calls)
    plan = probing.plan(mesh, _chosen(calls.pairs, callers, callees))
    wanted = probing.Probing(
        path=options["path"],
        answer_header=options["answer_header"],
        fingerprints=options["fingerprint"],
        rate=options["rate"],
        deadline=options["probe_timeout"],
    )
    _announce(plan.announcement(wanted), len(plan.pairs), yes=options["yes"])
    with _progress() as say:
        probed = probing.probe(gathered, mesh, plan, _where(options), wanted, say)
    if record is not None:
        try:
            write_snapshot(probed, record, tool="meshdoctor", version=__version__)
        except SnapshotError as error:
            _say(f"not recorded: {error}")
    judged = examine(probed, checks, {"kind": "live"}, policy)
    results = _evidence(Examination(probed), ProbeResults)
    outcome = report.Outcome(compare(mesh, calls, results), (*plan.left_out, *results.unsent))
    _deliver(
        lambda shown: f"{report.render(outcome, shown)}\n{text.render(judged, shown)}",
        report.render_json(judged, outcome),
        options,
    )
    _warn(judged)
    sys.exit(_exit_code(judged, options["fail_on"]))


@cli.command(short_help="Say what a finding means and how to mend it.")
@click.argument("code")
@click.option("--width", type=click.IntRange(min=20), metavar="COLUMNS", help="Width of the text.")
@checks_option
@config_option
def explain(code: str, width: int | None, check_paths: tuple[Path, ...]) -> None:
    """Say what a finding means, why it matters, how it is found and how to mend it.

    CODE is a check's code, as MD401, or its name.
    """
    from meshdoctor.report import explain as page  # noqa: PLC0415

    with _usage_errors():
        found = _load(check_paths).find(code)
    shown = _terminal(width)
    _print(page.render_page(found, shown), shown)


@cli.command(short_help="List the checks and the evidence each needs.")
@click.option("--format", "format_", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--width", type=click.IntRange(min=20), metavar="COLUMNS", help="Width of the text.")
@checks_option
@config_option
def checks(format_: str, width: int | None, check_paths: tuple[Path, ...]) -> None:
    """List the checks installed, built in and from plug-ins, and what evidence each needs."""
    from meshdoctor.report import explain as page  # noqa: PLC0415

    loaded = _load(check_paths)
    shown = _terminal(width)
    listed = (
        page.render_checks_json(loaded.checks)
        if format_ == "json"
        else page.render_checks(loaded.checks, shown)
    )
    _print(listed, shown)
    for plugin in loaded.broken:
        _say(f"plug-in {plugin.name} was not loaded: {plugin.error}")


@cli.command(short_help="Show the settings in force; check the settings file.")
@click.option("--format", "format_", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--width", type=click.IntRange(min=20), metavar="COLUMNS", help="Width of the text.")
@fail_on_option()
@select_options
@where_options
@config_option
def config(format_: str, width: int | None, **options: Any) -> None:
    """Show the settings in force and where each comes from, and check the settings file.

    Takes the flags of `check`, to show what they change. Exit code: 0 all is well, 2 the file
    or a flag is wrong.
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from meshdoctor.report import config as page  # noqa: PLC0415

    _, policy = _choose(options)
    today = datetime.now(UTC).date()
    found = _settings().in_force(policy, options, _typed(), os.environ, today)
    shown = _terminal(width)
    _print(page.render_json(found) if format_ == "json" else page.render(found, shown), shown)


@cli.command(short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the completion script of a shell: `source <(meshdoctor completion bash)`."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(found(cli, {}, "meshdoctor", "_MESHDOCTOR_COMPLETE").source())


# ---------------------------------------------------------------- what the commands share


def _split(words: tuple[str, ...]) -> list[str]:
    return [piece for word in words for piece in word.split(",") if piece]


@contextmanager
def _usage_errors() -> Iterator[None]:
    from meshdoctor.diagnosis import ChecksError  # noqa: PLC0415
    from meshdoctor.settings import SettingsError  # noqa: PLC0415

    try:
        yield
    except (ChecksError, SettingsError) as error:
        raise click.UsageError(str(error)) from error


def _load(paths: tuple[Path, ...]) -> "Checks":
    from meshdoctor.diagnosis import load_checks  # noqa: PLC0415

    with _usage_errors():
        return load_checks(paths)


def _choose(options: Mapping[str, Any]) -> "tuple[Checks, Policy]":
    """The checks to run, and what the settings say of their findings."""
    loaded = _load(options["check_paths"])
    with _usage_errors():
        policy = _settings().policy(loaded)
        return loaded.choose(_split(options["select"]), _split(options["ignore"])), policy


def _settings() -> "Settings":
    """What the settings file says; nothing for a command that reads none."""
    from meshdoctor.settings import Settings  # noqa: PLC0415

    return click.get_current_context().find_object(Settings) or Settings()


def _typed() -> list[str]:
    """The options that stand on the command line."""
    context = click.get_current_context()
    typed = click.core.ParameterSource.COMMANDLINE
    return [name for name in context.params if context.get_parameter_source(name) is typed]


def _warn(report: "Report") -> None:
    for said in _settings().warnings(report):
        _say(f"meshdoctor: {said}")


def _open(paths: tuple[Path, ...]) -> "Snapshot":
    from meshdoctor.snapshot import SnapshotError, open_snapshot  # noqa: PLC0415

    if len(paths) > 1:
        raise click.UsageError("one --snapshot at a time: merging several is not built yet")
    if paths[0] == Path(DEMO) and not paths[0].exists():
        return _demo()
    try:
        return open_snapshot(paths[0])
    except SnapshotError as error:
        _no_verdict(str(error))


def _demo() -> "Snapshot":
    recording = resources.files("meshdoctor.snapshot") / "recordings" / "broken.tgz"
    with resources.as_file(recording) as path:
        return _open((path,))


def _laid_over(snapshot: "Snapshot", rules: tuple[Path, ...]) -> "Snapshot":
    from meshdoctor.collectors.rules import RulesError, lay_over  # noqa: PLC0415

    try:
        return lay_over(snapshot, rules)
    except RulesError as error:
        raise click.UsageError(str(error)) from error


def _examination(snapshots: tuple[Path, ...], options: Mapping[str, Any]) -> "Examination":
    from meshdoctor.check import Examination  # noqa: PLC0415

    snapshot = _open(snapshots) if snapshots else _gather(options)
    if (nothing := _nothing_there(snapshot, snapshots)) is not None:
        _no_verdict(nothing)
    return Examination(snapshot)


def _evidence(examination: "Examination", wanted: type[T]) -> T:
    """The evidence that a command cannot do without; there is no verdict where it is missing."""
    from meshdoctor.evidence.interface import (  # noqa: PLC0415
        EvidenceError,
        MissingEvidenceError,
    )

    try:
        return examination.get(wanted)
    except EvidenceError as error:
        hint = error.hint if isinstance(error, MissingEvidenceError) else ""
        _no_verdict(f"{error}; {hint}" if hint else str(error))


def _chosen(
    pairs: "Sequence[Pair]", callers: tuple[str, ...], callees: tuple[str, ...]
) -> "list[Pair]":
    """The calls that were asked for. A pattern that fits none of its kind is wrong usage."""
    for patterns, names, kind in (
        (callers, {pair.caller for pair in pairs}, "caller"),
        (callees, {pair.callee for pair in pairs}, "callee"),
    ):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                first = ", ".join(sorted(names)[:12])
                raise click.UsageError(f"no {kind} fits {pattern!r}; there are {first}")
    found = [
        pair
        for pair in pairs
        if (not callers or any(fnmatchcase(pair.caller, each) for each in callers))
        and (not callees or any(fnmatchcase(pair.callee, each) for each in callees))
    ]
    if not found:
        _no_verdict(
            "no call is known: no workload has an upstream, or none of those chosen calls any of "
            "the services chosen"
        )
    return found


def _announce(announcement: str, requests: int, *, yes: bool) -> None:
    """Say what will be sent; where that is much, ask."""
    from meshdoctor.collectors.probe import ASK_ABOVE  # noqa: PLC0415

    _say(announcement)
    if requests <= ASK_ABOVE or yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"{requests} requests are more than {ASK_ABOVE}: add --yes to send them, or name "
            "fewer with --caller and --callee"
        )
    if not click.confirm("Send them?", err=True):
        raise click.Abort


def _calls(number: int) -> str:
    return "1 call is" if number == 1 else f"{number} calls are"


def _gather(options: Mapping[str, Any]) -> "Snapshot":
    from meshdoctor.collectors import collect  # noqa: PLC0415

    with _progress() as say:
        return collect(_where(options), say)


def _where(options: Mapping[str, Any]) -> "Options":
    from meshdoctor.collectors import Options  # noqa: PLC0415

    docker_host = options["docker_host"]
    typed = _typed()
    if "docker_context" in typed and "docker_host" not in typed:
        # The host is the settings file's, and an engine that is typed beats it by either name.
        docker_host = None
    return Options(
        docker_host=docker_host,
        docker_context=options["docker_context"],
        consul=options["consul"],
        consul_token_file=options["consul_token_file"],
        pilot=options["pilot"],
        apiserver=options["apiserver"],
        kubeconfig=options["kubeconfig"],
        envoys=options["envoys"],
        helper_image=options["helper_image"],
        deadline=options["timeout"],
        request_timeout=options["request_timeout"],
    )


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """One moving line on stderr while evidence is gathered, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda _message: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    with Console(stderr=True).status(Text("looking for the mesh")) as status:
        yield lambda message: status.update(Text(message))


def _judge(
    snapshot: "Snapshot",
    checks: "Checks",
    policy: "Policy",
    target: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    demo: bool = False,
) -> NoReturn:
    from meshdoctor.diagnosis import examine  # noqa: PLC0415

    report = examine(snapshot, checks, target, policy)
    blank = report.is_blank or not snapshot.names()
    nothing = _nothing_there(snapshot, target.get("paths", ())) if blank else None
    _publish(report, options, shown=nothing is None or options["format_"] != "text")
    if nothing is not None:
        _no_verdict(nothing)
    code = _exit_code(report, options["fail_on"])
    sys.exit(EXIT_CLEAN if demo and code == EXIT_FINDINGS else code)


def _judge_compose(
    paths: Sequence[Path], checks: "Checks", policy: "Policy", options: Mapping[str, Any]
) -> NoReturn:
    from meshdoctor.collectors.compose import read_compose  # noqa: PLC0415
    from meshdoctor.diagnosis import examine_plan  # noqa: PLC0415
    from meshdoctor.evidence.interface import DecodeError  # noqa: PLC0415
    from meshdoctor.topology.plan import Plan  # noqa: PLC0415

    try:
        plan = Plan.of(read_compose(paths, os.environ))
    except DecodeError as error:
        raise click.UsageError(str(error)) from error
    if not plan.is_mesh:
        _no_verdict(
            "these files describe no mesh: in them is no Consul, Registrator, Pilot or sidecar, "
            "and no service sets a SERVICE_* variable. Name all files of the mesh, each with "
            "--compose, as you do with `docker compose -f`."
        )
    target = {"kind": "compose", "paths": [str(path) for path in paths]}
    report = examine_plan(plan, checks, target, policy)
    _publish(report, options)
    sys.exit(_exit_code(report, options["fail_on"]))


def _only_compose(snapshots: Sequence[Path]) -> None:
    """Files alone are judged: nothing beside them can be asked for. Raises UsageError."""
    given = click.get_current_context().get_parameter_source
    others = {
        "docker_host": "--docker-host",
        "docker_context": "--docker-context",
        "consul": "--consul",
        "consul_token_file": "--consul-token-file",
        "pilot": "--pilot",
        "apiserver": "--apiserver",
        "kubeconfig": "--kubeconfig",
        "envoys": "--envoy",
        "helper_image": "--helper-image",
    }
    named = [
        flag
        for name, flag in others.items()
        if given(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if snapshots:
        named.insert(0, "--snapshot")
    if named:
        raise click.UsageError(
            f"--compose judges files alone, so leave out {' and '.join(named)}, or leave out "
            "--compose to examine what runs"
        )


def _publish(report: "Report", options: Mapping[str, Any], *, shown: bool = True) -> None:
    """Write the report to the files that were asked for, and where `shown`, to stdout."""
    from meshdoctor.report.terminal import Terminal  # noqa: PLC0415

    # Files first, for a pipe may close; errors last, for the report is worth more than they.
    unwritten = [
        error
        for name, path in options["outputs"]
        if (error := _write(path, _render(report, name, Terminal()))) is not None
    ]
    terminal = _terminal(options["width"], options["color"])
    if shown:
        _print(_render(report, options["format_"], terminal), terminal)
    _warn(report)
    if unwritten:
        raise click.UsageError("; ".join(unwritten))


def _exit_code(report: "Report", fail_on: str) -> int:
    from meshdoctor.diagnosis import NOTHING_WOULD_BREAK  # noqa: PLC0415
    from meshdoctor.report.document import Verdict  # noqa: PLC0415

    worst = SEVERITIES.index(fail_on)
    if any(finding.severity in SEVERITIES[: worst + 1] for finding in report.findings):
        return EXIT_FINDINGS
    if report.verdict is not Verdict.UNKNOWN:
        return EXIT_CLEAN
    # Of files alone it is the verdict that nothing in them would break.
    return EXIT_CLEAN if report.verdict_reason == NOTHING_WOULD_BREAK else EXIT_NO_VERDICT


def _render(report: "Report", name: str, terminal: "Terminal") -> str:
    if name == "json":
        from meshdoctor.report import json  # noqa: PLC0415

        return json.render(report)
    from meshdoctor.report import text  # noqa: PLC0415

    return text.render(report, terminal)


def _terminal(width: int | None, color: bool | None = None) -> "Terminal":  # noqa: FBT001 # a tri-state flag
    """What stdout can show, as the flags correct it."""
    from meshdoctor.report.terminal import Terminal  # noqa: PLC0415

    found = Terminal.of(sys.stdout)
    return replace(
        found,
        width=found.width if width is None else width,
        color=found.color if color is None else color,
    )


def _print(text: str, shown: "Terminal") -> None:
    """Write to stdout. Who reads it may stop early, as `head` does: that is no error of ours."""
    try:
        click.echo(text, nl=False, color=shown.color)
    except BrokenPipeError:
        # What is left in the buffer goes nowhere, so that Python's exit does not try again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _deliver(text: "Callable[[Terminal], str]", json: str, options: Mapping[str, Any]) -> None:
    """To stdout and to the files that were asked for; the caller says the exit code."""
    from meshdoctor.report.terminal import Terminal  # noqa: PLC0415

    wrong = [
        problem
        for name, path in options["outputs"]
        if (problem := _write(path, json if name == "json" else text(Terminal())))
    ]
    shown = _terminal(options["width"], options["color"])
    _print(json if options["format_"] == "json" else text(shown), shown)
    if wrong:
        raise click.UsageError("; ".join(wrong))


def _write(path: Path, text: str) -> str | None:
    """Write a file whole or not at all, for its owner's eyes only; what went wrong, or None."""
    import tempfile  # noqa: PLC0415

    target = path.resolve()
    try:
        if target.exists() and not target.is_file():
            # A pipe or a device, as /dev/stderr: there is nothing to replace.
            with target.open("w", encoding="utf-8") as stream:
                stream.write(text)
            return None
        descriptor, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            Path(partial).replace(target)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    except OSError as error:
        return f"{path} was not written: {error.strerror or error}"
    return None


_CALLED: Final[Mapping[str, str]] = {
    "docker": "Docker",
    "consul": "Consul",
    "envoy": "sidecars",
    "pilot": "Pilot",
    "istio": "Istio's rules",
}


def _nothing_there(snapshot: "Snapshot", recorded: Sequence[object] = ()) -> str | None:
    """What to say where no part of a mesh is to be seen, with where it was looked for; or None.

    `recorded` are the paths of a snapshot; none of a live mesh.
    """
    from meshdoctor.check import Examination  # noqa: PLC0415
    from meshdoctor.evidence.consul import ConsulCatalog  # noqa: PLC0415
    from meshdoctor.evidence.docker import DockerEngine  # noqa: PLC0415
    from meshdoctor.evidence.interface import DecodeError, EvidenceError  # noqa: PLC0415
    from meshdoctor.topology import Mesh  # noqa: PLC0415

    examination = Examination(snapshot)
    mesh = examination.find(Mesh)
    if mesh is not None and not mesh.is_empty and snapshot.names():
        return None
    looked = []
    sources: tuple[type[DockerEngine | ConsulCatalog], ...] = (DockerEngine, ConsulCatalog)
    for source in sources:
        try:
            evidence = examination.get(source)
        except DecodeError:
            # What is damaged may have held a mesh: that is another story, and told in full.
            return None
        except EvidenceError:
            continue
        if evidence.problems:
            return None
        if isinstance(evidence, DockerEngine):
            number = len(evidence.containers)
            among = f" among {number} containers" if number > 1 else ""
            said = f"no Envoy, Pilot, Consul or Registrator{among}" if number else "no container"
        else:
            said = "no service of an application is registered"
        looked.append(f"  {_CALLED['docker' if source is DockerEngine else 'consul']}: {said}")
    for each in snapshot.missing():
        folder, _, below = each.document.rstrip("/").partition("/")
        # Of sidecars there are many: one that was named is named.
        called = each.document if folder == "envoy" and below else _CALLED.get(folder, folder)
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


def _no_verdict(message: str) -> NoReturn:
    _say(f"meshdoctor: {message}")
    sys.exit(EXIT_NO_VERDICT)


def _say(message: str) -> None:
    """To stderr, where names come from strangers too: they must not steer the terminal.

    On a terminal sentences wrap between words; commands stay whole.
    """
    from textwrap import wrap  # noqa: PLC0415

    from meshdoctor.report.terminal import Terminal, printable  # noqa: PLC0415

    terminal = Terminal.of(sys.stderr)
    for line in message.split("\n"):
        shown = printable(line.replace("\t", "  "), terminal)
        if sys.stderr.isatty() and not shown.startswith("  meshdoctor "):
            blank = " " * (len(shown) - len(shown.lstrip()))
            shown = "\n".join(
                wrap(
                    shown,
                    terminal.width,
                    subsequent_indent=f"{blank}  " if blank else "",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
        click.echo(shown, err=True)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, `sys.argv` where none is given; Ctrl-C exits 130."""
    try:
        cli.main(arguments, prog_name="meshdoctor", standalone_mode=False)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        _say(shown.getvalue().rstrip("\n"))
        sys.exit(EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("meshdoctor: interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except Exception:  # noqa: BLE001 # ours, whatever it is: exit code 1 would say "findings"
        import traceback  # noqa: PLC0415

        traceback.print_exc()
        _no_verdict("this is a fault of meshdoctor's own: please report it with the lines above")
    sys.exit(EXIT_CLEAN)
