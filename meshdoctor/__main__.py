"""`python -m meshdoctor` is `meshdoctor`, and both can be interrupted from the first moment on."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """The command line. Loading it takes long enough for somebody to think better of it."""
    try:
        from meshdoctor.cli import main as run  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.stderr.write("meshdoctor: interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
