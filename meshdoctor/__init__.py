"""The engine of meshdoctor: evidence in, diagnosis out. It knows no check."""

from typing import Final

__version__: Final = "0.1.0"
