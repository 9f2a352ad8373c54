"""Changes of Compose files: the very lines to change, or nothing where that is not certain."""

from collections.abc import Mapping, Sequence

import msgspec


class Value(msgspec.Struct, frozen=True):
    """One value of a service, such as its image; `old` is what runs now."""

    key: str
    value: str
    old: str

    @property
    def fragment(self) -> tuple[str, ...]:
        """The change without the file: lines that go and lines that come."""
        return (f"-    {self.key}: {self.old}", f"+    {self.key}: {self.value}")


class Variable(msgspec.Struct, frozen=True):
    """One variable in the environment of a service; `old` is its value where it has one."""

    name: str
    value: str
    old: str | None = None

    @property
    def fragment(self) -> tuple[str, ...]:
        gone = () if self.old is None else (f"-      - {self.name}={self.old}",)
        return ("     environment:", *gone, f"+      - {self.name}={self.value}")


class Element(msgspec.Struct, frozen=True):
    """One more element of a list; `old` are those that it takes the place of.

    `first` where the service has no such list.
    """

    key: str
    value: str
    old: tuple[str, ...] = ()
    first: bool = False

    @property
    def fragment(self) -> tuple[str, ...]:
        sign = "+    " if self.first else "     "
        written = f'"{self.value}"' if ":" in self.value else self.value
        gone = (f'-      - "{each}"' for each in self.old)
        return (f"{sign}{self.key}:", *gone, f"+      - {written}")


class Argument(msgspec.Struct, frozen=True):
    """An argument to put before the others of a command."""

    value: str
    others: str

    @property
    def fragment(self) -> tuple[str, ...]:
        return ("     command:", f"-      {self.others}", f"+      {self.value} {self.others}")


Edit = Value | Variable | Element | Argument


class Change(msgspec.Struct, frozen=True):
    """A patch to read, and the commands that apply it: none where it is only a fragment."""

    patch: str | None
    commands: tuple[str, ...] = ()


def change(
    texts: Mapping[str, str], files: Sequence[str], wanted: Sequence[tuple[str, Sequence[Edit]]]
) -> Change | None:
    """The patch of these files that makes these edits to these services, None where none is sure.

    `files` are in the order of `docker compose -f`. `texts` have them by path; a line with a mask
    in it is not the file's own, and no patch quotes it.
    """
    # A file that was not read may set the value again.
    if not files or not all(file in texts for file in files):
        return None
    from meshdoctor_checks.compose_patches import patched  # noqa: PLC0415 # YAML, seldom needed

    return patched(texts, files, wanted)
