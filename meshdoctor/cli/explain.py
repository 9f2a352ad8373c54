"""`explain` and `checks`: what there is to find."""

from pathlib import Path

import click

from meshdoctor.cli.choice import load, usage_errors
from meshdoctor.cli.delivery import print_out, terminal_of
from meshdoctor.cli.exits import say
from meshdoctor.cli.options import (
    FORMATS,
    checks_option,
    codes_begun,
    color_option,
    config_option,
    width_option,
)


@click.command(short_help="Say what a finding means and how to mend it.")
@click.argument("code", shell_complete=codes_begun)
@width_option
@color_option
@checks_option
@config_option
def explain(
    code: str, width: int | None, check_paths: tuple[Path, ...], *, color: bool | None
) -> None:
    """Say what a finding means, why it matters, how it is found and how to mend it.

    CODE is a check's code, as MD401, or its name.
    """
    from meshdoctor.diagnosis import find_check  # noqa: PLC0415
    from meshdoctor.report import explain as page  # noqa: PLC0415

    with usage_errors():
        found = find_check(code, check_paths)
    shown = terminal_of(width, color)
    print_out(page.render_page(found, shown), shown)


@click.command(short_help="List the checks and the evidence each needs.")
@click.option("--format", "format_", type=click.Choice(FORMATS), default="text", show_default=True)
@width_option
@color_option
@checks_option
@config_option
def checks(
    format_: str, width: int | None, check_paths: tuple[Path, ...], *, color: bool | None
) -> None:
    """List the checks installed, built in and from plug-ins, and what evidence each needs."""
    from meshdoctor.report import explain as page  # noqa: PLC0415

    loaded = load(check_paths)
    shown = terminal_of(width, color)
    listed = (
        page.render_checks_json(loaded.checks)
        if format_ == "json"
        else page.render_checks(loaded.checks, shown)
    )
    print_out(listed, shown)
    for plugin in loaded.broken:
        say(f"plug-in {plugin.name} was not loaded: {plugin.error}")
