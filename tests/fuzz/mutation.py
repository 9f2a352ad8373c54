"""Damage that a fuzzer does to a document: its values first, its letters second."""

import json
import random
from collections.abc import Iterator
from typing import Any, Final

HEAD: Final = b"\n"
"""A case is one line that says whose place the document takes, and then the document."""

_TEXTS: Final = (
    "",
    "x",
    "/",
    ":",
    "*",
    "0.0.0.0",  # noqa: S104 # nobody binds to it
    "::1",
    "10.0.0.0/33",
    "outbound|9080||reviews.service.consul",
    "http",
    "-1",
    "NaN",
    "1e999",
    "9" * 5000,
    "(a+)+$",
    "(?:x*)*y",
    "[",
    "\\",
    "\0",
    "\x1b[31m",
    "\u202e",
    "<script>alert(1)</script>",
    "](javascript:x)",
    "||||||||||",
    "%zz%00%ff",
    "2026-99-99T99:99:99Z",
    "0001-01-01T00:00:00Z",
    "a" * 70_000,
)
_NUMBERS: Final = (0, 1, -1, 65536, 2**31, 2**63, 2**64, -(10**18), 10**40, 0.5, -0.0, 1e308)
_BROKEN: Final = (
    b"\0",
    b"\xff",
    b'"\\ud800"',
    b"[" * 5000,
    b'{"a":' * 2000,
    b"1" * 6000,
    b",",
    b"NaN",
    b"-",
    b"\xef\xbb\xbf",
    b"\x1b]0;t\x07",
)


def damage(case: bytes, generator: random.Random) -> bytes:
    """The case with one to four values of its document dropped, moved, doubled or replaced.

    What is no JSON loses or gains letters.
    """
    head, line, body = case.partition(HEAD)
    try:
        root = [json.loads(body)]
    except (ValueError, RecursionError):
        return head + line + _mangled(body, generator)
    if generator.random() < 0.1:  # now and then
        return head + line + _mangled(body, generator)
    for _ in range(generator.randint(1, 4)):
        try:
            _change(root, generator)
        except RecursionError:
            break
    try:
        return head + line + json.dumps(root[0], separators=(",", ":")).encode()
    except (RecursionError, IndexError):
        return head + line


def _change(root: list[Any], generator: random.Random) -> None:  # noqa: C901 # one case a line
    """Walk down at random, so that the upper levels, where decoders decide, get their share."""
    parent: Any = root
    key: Any = 0
    if not root:
        return
    while True:
        value = parent[key]
        if not isinstance(value, dict | list) or not value or generator.random() < 0.15:
            break
        parent = value
        key = generator.choice(list(value) if isinstance(value, dict) else range(len(value)))
    others = list(_values(root, 200))
    match generator.randrange(8):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, list):
            parent.insert(generator.randint(0, len(parent)), parent[key])
        case 1:
            parent[generator.choice(_TEXTS)] = parent.pop(key)
        case 2 | 3:
            parent[key] = _copied(generator.choice(others))
        case 4 if isinstance(parent[key], str):
            text = parent[key]
            cut = generator.randint(0, len(text))
            parent[key] = text[:cut] + generator.choice(_TEXTS) + text[cut:]
        case 4 | 5:
            parent[key] = generator.choice(_TEXTS)
        case 6:
            parent[key] = generator.choice(_NUMBERS)
        case _:
            wrong: tuple[Any, ...] = (
                None,
                True,
                [],
                {},
                [None],
                [[]],
                {"": {}},
                [{}],
                {"name": 1},
                {"@type": "x"},
            )
            parent[key] = _copied(generator.choice(wrong))


def _values(value: Any, most: int) -> Iterator[Any]:
    stack = [value]
    while stack and most > 0:
        most -= 1
        found = stack.pop()
        yield found
        if isinstance(found, dict):
            stack.extend(found.values())
        elif isinstance(found, list):
            stack.extend(found)


def _copied(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _mangled(body: bytes, generator: random.Random) -> bytes:
    text = bytearray(body)
    cut = generator.randint(0, len(text))
    match generator.randrange(4):
        case 0:
            del text[cut:]
        case 1:
            del text[cut : cut + generator.randint(1, 40)]
        case 2:
            text[cut:cut] = text[cut - generator.randint(0, min(cut, 80)) : cut]
        case _:
            text[cut:cut] = generator.choice(_BROKEN)
    return bytes(text)
