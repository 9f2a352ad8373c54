"""What a run is about: the checks that were chosen, the settings, the calls."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from meshdoctor.cli.exits import no_verdict, say

if TYPE_CHECKING:
    from meshdoctor.diagnosis import Checks, Policy
    from meshdoctor.report.document import Report
    from meshdoctor.routing.calls import Pair
    from meshdoctor.settings import Settings


def split(words: tuple[str, ...]) -> list[str]:
    """Codes and names, which may be repeated or separated by commas."""
    return [piece for word in words for piece in word.split(",") if piece]


@contextmanager
def usage_errors() -> Iterator[None]:
    from meshdoctor.diagnosis import ChecksError  # noqa: PLC0415
    from meshdoctor.settings import SettingsError  # noqa: PLC0415

    try:
        yield
    except (ChecksError, SettingsError) as error:
        raise click.UsageError(str(error)) from error


def load(paths: tuple[Path, ...]) -> "Checks":
    from meshdoctor.diagnosis import load_checks  # noqa: PLC0415

    with usage_errors():
        return load_checks(paths)


def choose(options: Mapping[str, Any]) -> "tuple[Checks, Policy]":
    """The checks to run, and what the settings say of their findings."""
    loaded = load(options["check_paths"])
    with usage_errors():
        policy = settings().policy(loaded)
        return loaded.choose(split(options["select"]), split(options["ignore"])), policy


def settings() -> "Settings":
    """What the settings file says; nothing for a command that reads none."""
    from meshdoctor.settings import Settings  # noqa: PLC0415

    return click.get_current_context().find_object(Settings) or Settings()


def typed() -> list[str]:
    """The options that stand on the command line."""
    context = click.get_current_context()
    source = context.get_parameter_source
    return [name for name in context.params if source(name) is ParameterSource.COMMANDLINE]


_LIVE: Final = {
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


def live_options() -> list[str]:
    """Those that stand on the command line and say where a mesh runs."""
    on_line = typed()
    return [flag for name, flag in _LIVE.items() if name in on_line]


def warn(report: "Report") -> None:
    for said in settings().warnings(report):
        say(f"meshdoctor: {said}")


def chosen_calls(
    pairs: Sequence["Pair"], callers: tuple[str, ...], callees: tuple[str, ...]
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
        no_verdict(
            "no call is known: no workload has an upstream, or none of those chosen calls any of "
            "the services chosen"
        )
    return found
