"""`completion`: a shell's script."""

import click


@click.command(short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the completion script of a shell: `source <(meshdoctor completion bash)`."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(
        found(
            click.get_current_context().find_root().command,
            {},
            "meshdoctor",
            "_MESHDOCTOR_COMPLETE",
        ).source()
    )
