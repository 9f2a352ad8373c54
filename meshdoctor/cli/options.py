"""The options that commands share, and how their values are read."""

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import click

from meshdoctor.cli.replacing import in_the_way

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

FORMATS: Final = ("text", "json")
REPORT_FORMATS: Final = ("text", "json", "markdown", "html", "junit", "sarif")
"""What a diagnosis can be written in."""


SEVERITIES: Final = ("error", "warning", "info")


class _Named(click.Path):
    """A path. No name is none: Python takes it for the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not value:
            self.fail("no file or folder is named", param, ctx)
        return super().convert(value, param, ctx)


PATH: Final = _Named(path_type=Path)


class _Recorded(_Named):
    """A path, or a URL, which has no place among paths: they would lose a slash of it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and "://" in value:
            return value
        return super().convert(value, param, ctx)


# What is recorded and cannot be read is no wrong usage: whoever reads it says so.
EVIDENCE: Final = _Named(path_type=Path, readable=False)
RECORDED: Final = _Recorded(path_type=Path, readable=False)


_HEADER_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"


class TakesNoFiles(click.Command):
    """A command that takes its files by options, and says by which where one is named alone."""

    by_name: ClassVar = {".yaml": ("--compose", "--rules"), ".yml": ("--compose", "--rules")}

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.context_settings = {**self.context_settings, "allow_extra_args": True}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        super().parse_args(ctx, args)
        if ctx.args and not ctx.resilient_parsing:
            extra = ctx.args[0]
            known = {name for each in self.params for name in each.opts}
            options = self.by_name.get(Path(extra).suffix, ())
            fit = [each for each in options if each in known] or ["--snapshot"]
            meant = " or ".join(f"{each} {extra}" for each in fit)
            ctx.fail(f"Got unexpected extra argument ({extra}). Did you mean {meant}?")
        return ctx.args


class Finite(click.FloatRange):
    """A number that time can be measured in: Python takes "nan" and "inf" for numbers too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not number <= threading.TIMEOUT_MAX:
            self.fail(f"{value!r} is no number that time can be measured in", param, ctx)
        return number


def _option(*names: str, **settings: Any) -> Callable[[Any], Any]:
    """As `click.option`, of a type that can have a name before it decorates anything."""
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


def headers_of(
    _context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    headers = []
    for value in values:
        name, colon, content = value.partition(":")
        if not colon or not re.fullmatch(_HEADER_NAME, name):
            raise click.BadParameter(
                f"{value!r}: write 'Name: value', as in -H 'end-user: jason'", param=parameter
            )
        headers.append((name, content.strip()))
    return tuple(headers)


def url_path(_context: click.Context, parameter: click.Parameter, value: str) -> str:
    if re.fullmatch("/[!-~]*", value) is None:
        raise click.BadParameter(
            f"{value!r}: write a path as it stands in a URL, as in /health?full=1", param=parameter
        )
    return value


def _outputs_in(formats: Sequence[str]) -> Callable[..., tuple[tuple[str, Path], ...]]:
    """Reads FORMAT=FILE, with one of the formats."""

    def read(
        _context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
    ) -> tuple[tuple[str, Path], ...]:
        outputs = []
        for value in values:
            name, equals, path = value.partition("=")
            if name not in formats or not equals or not path:
                raise click.BadParameter(
                    f"{value!r}: write FORMAT=FILE, with a format of {', '.join(formats)}, "
                    "as in json=report.json",
                    param=parameter,
                )
            outputs.append((name, Path(path)))
        return tuple(outputs)

    return read


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
    type=PATH,
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
    type=RECORDED,
    metavar="PATH",
    help="Examine recorded evidence, a folder or .tgz, instead of a live mesh. Repeat it, or name "
    "a folder of .tgz files, for a mesh on several hosts: one snapshot each. `demo` is the one "
    "that ships with meshdoctor. A URL, as s3://bucket/mesh/, is read through fsspec.",
)


reach_options = _options(
    _option(
        "--docker-host",
        multiple=True,
        metavar="URL",
        help="Docker engine, as DOCKER_HOST has it. Repeat it for a mesh on several hosts.",
    ),
    _option(
        "--docker-context",
        multiple=True,
        metavar="NAME",
        help="Docker context, as `docker -c` has it. Repeat it, also beside --docker-host.",
    ),
    _option(
        "--consul", metavar="URL", help="Consul's HTTP API; else CONSUL_HTTP_ADDR, else found."
    ),
    _option(
        "--consul-token-file",
        type=PATH,
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
        type=PATH,
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
        "--request-timeout",
        type=Finite(min=0.1),
        default=5.0,
        show_default=True,
        metavar="SECONDS",
        help="Deadline for one answer.",
    ),
)


def _gathering(*names: str) -> Callable[[Any], Any]:
    return _option(
        *names,
        type=Finite(min=0.1),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="Deadline for gathering all evidence.",
    )


where_options = _options(reach_options, _gathering("--timeout"))
watch_where_options = _options(reach_options, _gathering("--gather-timeout", "timeout"))
"""For a command whose own `--timeout` is about something else."""


width_option = _option(
    "--width", type=click.IntRange(min=20), metavar="COLUMNS", help="Width of the text."
)


color_option = _option(
    "--color/--no-color", default=None, help="Colour the text; else as NO_COLOR says."
)


def _written_in(formats: Sequence[str]) -> Callable[[Any], Any]:
    """The options of a command whose answer is written in those formats."""
    example = "html" if "html" in formats else "json"
    return _options(
        _option(
            "--format",
            "format_",
            type=click.Choice(formats),
            default="text",
            show_default=True,
            help="What goes to stdout.",
        ),
        _option(
            "--output",
            "outputs",
            multiple=True,
            callback=_outputs_in(formats),
            shell_complete=lambda _context, _parameter, typed: [
                f"{each}=" for each in formats if each.startswith(typed)
            ],
            metavar="FORMAT=FILE",
            help=f"Write the report to a file too, as in {example}=report.{example}. Repeat it.",
        ),
        _option(
            "--force",
            is_flag=True,
            help="Let --output write over a file that is no report of the same format.",
        ),
        width_option,
        color_option,
        _sparing,
    )


def _sparing(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command, but for files in the way of its reports: then nothing is begun."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        for name, path in () if options["force"] else options["outputs"]:
            if (why := in_the_way(path, name)) is not None:
                raise click.UsageError(why)
        return command(*arguments, **options)

    return run


answer_options = _written_in(FORMATS)


report_options = _written_in(REPORT_FORMATS)


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
    type=PATH,
    metavar="PATH",
    help="A file or folder with checks of your own. Repeat it.",
)


def codes_begun(
    _context: click.Context, _parameter: click.Parameter, typed: str
) -> "list[CompletionItem]":
    """For a shell: the codes that begin as what is typed does, after commas too."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415

    from meshdoctor.diagnosis import load_checks  # noqa: PLC0415

    before, comma, begun = typed.rpartition(",")
    return [
        CompletionItem(f"{before}{comma}{each.code}", help=each.title)
        for each in load_checks().checks
        if each.code.startswith(begun.upper())
    ]


select_options = _options(
    _option(
        "--select",
        multiple=True,
        shell_complete=codes_begun,
        metavar="CODE",
        help="Run only these: a code, its beginning, or a name. Repeat it or separate by commas.",
    ),
    _option(
        "--ignore",
        multiple=True,
        shell_complete=codes_begun,
        metavar="CODE",
        help="Do not run these; as --select.",
    ),
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
