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
        # Python looks through all there is for garbage when it ends, which takes longer than to
        # judge a small mesh. The memory goes back in any case.
        gc.freeze()


if __name__ == "__main__":
    main()
