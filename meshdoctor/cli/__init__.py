"""The command line: arguments in, exit code out. A module a command."""

import errno
import io
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Final, NoReturn

import click

from meshdoctor import __version__
from meshdoctor.cli.exits import (
    EXIT_CLEAN,
    EXIT_FINDINGS,
    EXIT_INTERRUPTED,
    EXIT_NO_VERDICT,
    EXIT_USAGE,
    discard,
    no_verdict,
    say,
)
from meshdoctor.cli.options import FORMATS, REPORT_FORMATS

__all__ = [
    "EXIT_CLEAN",
    "EXIT_FINDINGS",
    "EXIT_INTERRUPTED",
    "EXIT_NO_VERDICT",
    "EXIT_USAGE",
    "FORMATS",
    "REPORT_FORMATS",
    "cli",
    "main",
]


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `meshdoctor demo` (no mesh needed) or `meshdoctor check`.",
)
@click.version_option(__version__, prog_name="meshdoctor")
def cli() -> None:
    """Say what is broken in a Consul and Envoy mesh, why, and what to type.

    Nothing in the mesh is changed, and nothing leaves this machine.
    """


_MODULES: Final[Mapping[str, str]] = {
    "check": "check",
    "demo": "check",
    "snapshot": "snapshot",
    "diff": "diff",
    "fleet": "fleet",
    "watch": "watch",
    "matrix": "matrix",
    "trace": "trace",
    "probe": "probe",
    "explain": "explain",
    "checks": "explain",
    "config": "config",
    "completion": "completion",
}
"""The commands, and the module of each."""


class _Commands(Mapping[str, click.Command]):
    """The commands by name. The module of one is imported when it is asked for."""

    def __getitem__(self, name: str) -> click.Command:
        module = import_module(f"{__name__}.{_MODULES[name]}")
        command: click.Command = getattr(module, name)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


cli.commands = _Commands()  # type: ignore[assignment] # click only reads it


def _is_collecting() -> bool:
    """Whether threads are left that still ask the mesh."""
    return any(thread.name.startswith("collector-") for thread in threading.enumerate())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, `sys.argv` where none is given; Ctrl-C exits 130."""
    _open_what_is_closed()
    try:
        cli.main(arguments, prog_name="meshdoctor", standalone_mode=False)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        say(shown.getvalue().rstrip("\n"))
        sys.exit(EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt) as error:
        click.echo("meshdoctor: interrupted", err=True)
        if isinstance(error.__cause__, KeyboardInterrupt) and _is_collecting():
            # Threads in the midst of C++ code, as RE2's, abort the process when Python ends.
            sys.stdout.flush()
            os._exit(EXIT_INTERRUPTED)
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            _our_fault()
        discard(sys.stdout)
        no_verdict(f"what was to be written could not be: {error.strerror}")
    except Exception:  # noqa: BLE001 # ours, whatever it is: exit code 1 would say "findings"
        _our_fault()
    sys.exit(EXIT_CLEAN)


_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""Of a disk that is full, or a terminal that is gone: no fault of ours."""


def _our_fault() -> NoReturn:
    import traceback  # noqa: PLC0415

    traceback.print_exc()
    no_verdict("this is a fault of meshdoctor's own: please report it with the lines above")


def _open_what_is_closed() -> None:
    """A stream that was closed before the start, as by `2>&-`, goes nowhere.

    Its number would be the next file's that is opened, which would get what is meant for it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # It is open until the process ends, as the others are.
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123, SIM115
            setattr(sys, name, stream)
