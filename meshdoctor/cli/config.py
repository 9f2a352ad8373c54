"""`config`: the settings in force."""

import os
from typing import Any

import click

from meshdoctor.cli.choice import choose, settings, typed
from meshdoctor.cli.delivery import print_out, terminal_of
from meshdoctor.cli.options import (
    FORMATS,
    color_option,
    config_option,
    fail_on_option,
    select_options,
    where_options,
    width_option,
)


@click.command(short_help="Show the settings in force; check the settings file.")
@click.option("--format", "format_", type=click.Choice(FORMATS), default="text", show_default=True)
@width_option
@color_option
@fail_on_option()
@select_options
@where_options
@config_option
def config(format_: str, width: int | None, *, color: bool | None, **options: Any) -> None:
    """Show the settings in force and where each comes from, and check the settings file.

    Takes the flags of `check`, to show what they change. Exit code: 0 all is well, 2 the file
    or a flag is wrong.
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from meshdoctor.report import config as page  # noqa: PLC0415

    _, policy = choose(options)
    today = datetime.now(UTC).date()
    found = settings().in_force(policy, options, typed(), os.environ, today)
    shown = terminal_of(width, color)
    print_out(page.render_json(found) if format_ == "json" else page.render(found, shown), shown)
