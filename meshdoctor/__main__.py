"""`python -m meshdoctor` is `meshdoctor`, and both can be interrupted from the first moment on."""

import gc
import sys
from typing import Final, NoReturn

_YOUNG: Final = 100_000
"""Objects that are made before garbage is looked for: more than a small mesh is made of.

Nearly all that a command makes, modules most of all, is in use until it ends.
"""


def main() -> NoReturn:
    """The command line. Loading it takes long enough for somebody to think better of it."""
    gc.set_threshold(_YOUNG)
    try:
        from meshdoctor.cli import main as run  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.stderr.write("meshdoctor: interrupted\n")
        sys.exit(130)
    try:
        run()
    finally:
        _leave_it_standing()


def _leave_it_standing() -> None:
    """Spare Python's end the work of taking apart all that was loaded, object by object.

    That takes a seventh of the time of a small check, and the memory goes back in any case. A
    circle of references is let go by nobody but the search for garbage, and that passes over
    what is frozen. All else is done as ever: threads are waited for, `atexit` is heard, streams
    are flushed.
    """
    # Anything may stand among the modules, None too.
    names = [getattr(module, "__dict__", {}) for module in tuple(sys.modules.values())]
    standing: list[object] = [tuple(each.values()) for each in names]
    standing.append(standing)
    gc.freeze()


if __name__ == "__main__":
    main()
