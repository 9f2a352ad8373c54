"""Patches of Compose files, for the changes of `compose_edits`.

An edit is made in the text, so that comments, order and quotes stay. Then both texts are read
again: what Compose would find must differ by what was wanted, and by nothing else.
"""

import json
import posixpath
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any, Final, NamedTuple

import yaml

from meshdoctor.yaml_loader import LOADER
from meshdoctor_checks.compose_edits import Argument, Change, Edit, Element, Value, Variable

_MASK: Final = "[redacted]"
_MERGE: Final = "tag:yaml.org,2002:merge"
_MOST_NODES: Final = 50_000
_LONGEST: Final = 100_000
"""Letters of a file that is still edited: it is read again for each change."""
_SHOWN: Final = 3
"""Lines around a change, as everybody's patches have them."""
_APPLIED: Final = 1
"""The same in a command, which is long enough: as many as tell that the place is right."""


# ---------------------------------------------------------------- the patch


def patched(
    texts: Mapping[str, str], files: Sequence[str], wanted: Sequence[tuple[str, Sequence[Edit]]]
) -> Change | None:
    """What `compose_edits.change` gives where all files were read."""
    edited = _edited(texts, files, wanted)
    if edited is None:
        return None
    if not edited:
        # The files say so already; what runs was started before they did.
        return Change(None)
    by_folder: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for file, text in edited.items():
        folder, name = posixpath.split(file)
        by_folder[folder].append((name, texts[file], text))
    shown: list[str] = []
    applied: list[str] = []
    for folder, changed in sorted(by_folder.items()):
        around: dict[int, list[str]] = {_SHOWN: [], _APPLIED: []}
        for name, before, after in changed:
            for lines, diff in around.items():
                hunks = list(_hunks(before, after, lines))
                if not hunks:
                    return None
                diff += [f"--- {name}", f"+++ {name}", *hunks]
        shown += [*([f"# in {folder}"] if folder else []), *around[_SHOWN]]
        where = ("-d", folder) if folder else ()
        printed = shlex.join(["printf", "%s\\n", *around[_APPLIED]])
        applied.append(f"{printed} | {shlex.join(['patch', *where, '-p0'])}")
    return Change("\n".join(shown), tuple(applied))


def _hunks(before: str, after: str, around: int) -> Iterator[str]:
    """The hunks of a unified diff, without lines that have something masked.

    Nothing where a line that must be quoted is masked.
    """
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    for group in SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(around):
        piece: list[_Line] = []
        cut = False
        for each in (*_lines(group, old, new), None):
            if each is not None and _MASK not in each.text:
                piece.append(each)
                continue
            if each is not None and each.sign != " ":
                raise _UnsureError("a line that must change is masked")
            if any(line.sign != " " for line in piece):
                yield from _hunk(_evened(piece) if cut or each is not None else piece)
            piece, cut = [], True


def _evened(lines: Sequence["_Line"]) -> Sequence["_Line"]:
    """With as many lines before the change as behind it, one where there is none.

    Of fewer on one side `patch` thinks that the file begins or ends there.
    """
    changed = [number for number, each in enumerate(lines) if each.sign != " "]
    before, behind = changed[0], len(lines) - 1 - changed[-1]
    around = max(1, min(before, behind))
    return lines[max(0, before - around) : changed[-1] + 1 + around]


class _Line(NamedTuple):
    """A line of a hunk, and how many lines of either file are before it."""

    sign: str
    text: str
    old: int
    new: int


def _lines(
    group: Sequence[tuple[str, int, int, int, int]], old: Sequence[str], new: Sequence[str]
) -> Iterator[_Line]:
    for tag, old_from, old_to, new_from, new_to in group:
        if tag == "equal":
            for place in range(old_from, old_to):
                yield _Line(" ", old[place], place, new_from + place - old_from)
            continue
        for place in range(old_from, old_to):
            yield _Line("-", old[place], place, new_from)
        for place in range(new_from, new_to):
            yield _Line("+", new[place], old_to, place)


def _hunk(lines: Sequence[_Line]) -> Iterator[str]:
    counted = Counter(each.sign for each in lines)
    ranges = []
    for sign, place in zip("-+", (lines[0].old, lines[0].new), strict=True):
        length = counted[" "] + counted[sign]
        # Before the first of no lines stands the one before it.
        ranges.append(f"{sign}{place + bool(length)}{'' if length == 1 else f',{length}'}")
    yield f"@@ {' '.join(ranges)} @@"
    for each in lines:
        yield each.sign + each.text.rstrip("\n")
        if not each.text.endswith("\n"):
            yield "\\ No newline at end of file"


# ---------------------------------------------------------------- the text


class _UnsureError(Exception):
    """The edit cannot be made so that it is certain to be right."""


def _edited(
    texts: Mapping[str, str], files: Sequence[str], wanted: Sequence[tuple[str, Sequence[Edit]]]
) -> Mapping[str, str] | None:
    """The files that change, with their new text."""
    current = {file: texts[file] for file in files}
    if any("\r" in text or len(text) > _LONGEST for text in current.values()):
        return None
    made: dict[str, list[tuple[str, Edit]]] = defaultdict(list)
    try:
        for service, edits in wanted:
            for edit in edits:
                file = _chosen(current, service, edit)
                current[file] = _text(current[file]).edit(service, edit)
                made[file].append((service, edit))
        changed = {file: text for file, text in current.items() if text != texts[file]}
        for file, text in changed.items():
            if _expected(texts[file], made[file]) != _compared(_text(text).plain()):
                return None
            # Raises where a line that must be quoted is masked.
            list(_hunks(texts[file], text, 0))
    except (_UnsureError, yaml.YAMLError, ValueError, RecursionError):
        return None
    return changed


def _chosen(current: Mapping[str, str], service: str, edit: Edit) -> str:
    """The last file that sets the value, else the first that has its section, or the service."""
    parsed = {file: _text(text) for file, text in current.items()}
    having = [file for file, text in parsed.items() if text.has(service, edit)]
    if having:
        return having[-1]
    defining = [file for file, text in parsed.items() if text.service(service) is not None]
    if not defining:
        raise _UnsureError(f"no file has the service {service}")
    beside = [file for file in defining if parsed[file].section(service, _section(edit))]
    return (beside or defining)[0]


def _section(edit: Edit) -> str:
    match edit:
        case Variable():
            return "environment"
        case Argument():
            return "command"
        case _:
            return edit.key


_Entries = Mapping[str, tuple[yaml.Node, yaml.Node]]


class _Text:
    """One file: its text, and its YAML."""

    def __init__(self, text: str) -> None:
        self.text = text
        root = yaml.compose(text, Loader=LOADER)
        if not isinstance(root, yaml.MappingNode):
            raise _UnsureError("no mapping")
        self._root = root

    # -- looking

    def _services(self) -> yaml.MappingNode:
        found = _flat(self._root).get("services")
        # Compose's first format has the services at the top.
        node = found[1] if found is not None else self._root
        if not isinstance(node, yaml.MappingNode):
            raise _UnsureError("no services")
        return node

    def service(self, name: str) -> tuple[yaml.Node, yaml.MappingNode] | None:
        found = _flat(self._services()).get(name)
        if found is None or not isinstance(found[1], yaml.MappingNode):
            return None
        return found[0], found[1]

    def section(self, service: str, key: str) -> yaml.Node | None:
        found = self.service(service)
        entry = _flat(found[1]).get(key) if found is not None else None
        return entry[1] if entry is not None else None

    def has(self, service: str, edit: Edit) -> bool:
        """True where the file says itself what the edit changes."""
        match edit:
            case Variable(name=name):
                return any(
                    name in _variables(self.section(service, key))
                    for key in ("environment", "labels")
                )
            case _:
                return self.section(service, _section(edit)) is not None

    def plain(self) -> Any:
        """What the file says, as plain values."""
        return _plain(self._root, [_MOST_NODES])

    # -- changing

    def edit(self, service: str, edit: Edit) -> str:
        match edit:
            case Value():
                node = self._own(service, edit.key)
                if node is None:
                    return self._new_key(service, f"{edit.key}: {_scalar(edit.value, None)}")
                return self._replaced(node, edit.value)
            case Variable():
                return self._variable(service, edit)
            case Element():
                return self._element(service, edit)
            case Argument():
                return self._argument(service, edit)

    def _own(self, service: str, key: str) -> yaml.Node | None:
        """The value that a service has by itself, not by a merge: that one is others' too."""
        found = self.service(service)
        if found is None:
            raise _UnsureError(f"no service {service}")
        for name, value in found[1].value:
            if isinstance(name, yaml.ScalarNode) and name.value == key:
                held: yaml.Node = value
                return held
        return None

    def _variable(self, service: str, edit: Variable) -> str:
        for key in ("labels", "environment"):
            node = self.section(service, key)
            written = _variables(node).get(edit.name)
            if written is None:
                continue
            if isinstance(node, yaml.MappingNode):
                return self._replaced(written, edit.value)
            return self._replaced(written, f"{edit.name}={edit.value}")
        node = self.section(service, "environment")
        pair = f"{edit.name}={edit.value}"
        if node is None:
            step = self._step(service)
            return self._new_key(service, "environment:", f"{step}- {_scalar(pair, None)}")
        if isinstance(node, yaml.MappingNode):
            return self._appended_pair(node, edit.name, edit.value)
        return self._appended(node, pair)

    def _element(self, service: str, edit: Element) -> str:
        node = self.section(service, edit.key)
        if node is None:
            step = self._step(service)
            lines = (f"{edit.key}:", f"{step}- {_scalar(edit.value, None)}")
            return self._new_key(service, *lines)
        if _means(node, edit.value):
            return self.text
        if isinstance(node, yaml.ScalarNode):
            start, end = self._span(node)
            listed = f"[{self.text[start:end]}, {_scalar(edit.value, None)}]"
            return self.text[:start] + listed + self.text[end:]
        if not isinstance(node, yaml.SequenceNode):
            raise _UnsureError(f"{edit.key} is no list")
        if any(_means(each, edit.value) for each in node.value):
            return self.text
        if len(edit.old) == 1:
            number = [each for each in node.value if _means(each, edit.old[0])]
            if len(number) == 1:
                return self._replaced(number[0], edit.value)
        if edit.old:
            raise _UnsureError("what is to go is not there, or stands there several times")
        return self._appended(node, edit.value)

    def _argument(self, service: str, edit: Argument) -> str:
        node = self._own(service, "command")
        if self.section(service, "entrypoint") is not None:
            raise _UnsureError("its command may begin with the program")
        if isinstance(node, yaml.ScalarNode) and node.style not in ("|", ">"):
            return self._replaced(node, f"{edit.value} {node.value}")
        if isinstance(node, yaml.SequenceNode) and node.value:
            first = node.value[0]
            start = self._span(first)[0]
            new = _scalar(edit.value, first.style)
            if node.flow_style:
                return f"{self.text[:start]}{new}, {self.text[start:]}"
            begin = self.text.rfind("\n", 0, start) + 1
            return f"{self.text[:start]}{new}\n{self.text[begin:]}"
        raise _UnsureError("no command")

    # -- in the text

    def _span(self, node: yaml.Node) -> tuple[int, int]:
        start, end = node.start_mark.index, node.end_mark.index
        if not isinstance(node, yaml.ScalarNode) or self.text[start : start + 1] in ("&", "!", ""):
            raise _UnsureError("no plain value")
        if start == end or "\n" in self.text[start:end]:
            raise _UnsureError("no value on one line")
        return start, end

    def _replaced(self, node: yaml.Node, value: str) -> str:
        start, end = self._span(node)
        style = node.style if isinstance(node, yaml.ScalarNode) else None
        return self.text[:start] + _scalar(value, style) + self.text[end:]

    def _appended(self, node: yaml.Node, value: str) -> str:
        if not isinstance(node, yaml.SequenceNode):
            raise _UnsureError("no list")
        last = node.value[-1] if node.value else None
        if not isinstance(last, yaml.ScalarNode):
            raise _UnsureError("no values in it")
        new = _scalar(value, last.style)
        if node.flow_style:
            end = self._span(last)[1]
            return f"{self.text[:end]}, {new}{self.text[end:]}"
        begin = self.text.rfind("\n", 0, last.start_mark.index) + 1
        lead = self.text[begin : last.start_mark.index]
        if not re.fullmatch(r" *- +", lead):
            raise _UnsureError("an element that does not begin its line")
        return self._inserted(_last_line(last), f"{lead}{new}")

    def _appended_pair(self, node: yaml.MappingNode, name: str, value: str) -> str:
        if not node.value:
            raise _UnsureError("no pairs in it")
        key, last = node.value[-1]
        style = '"' if value.isdecimal() else None
        new = f"{name}: {_scalar(value, style)}"
        if node.flow_style:
            end = self._span(last)[1]
            return f"{self.text[:end]}, {new}{self.text[end:]}"
        self._begins_line(key)
        return self._inserted(_end_of_pair(key, last), f"{' ' * key.start_mark.column}{new}")

    def _new_key(self, service: str, *lines: str) -> str:
        found = self.service(service)
        if found is None or found[1].flow_style or not found[1].value:
            raise _UnsureError("a service without lines of its own")
        node = found[1]
        if node.start_mark.index < found[0].start_mark.index:
            raise _UnsureError("the service is an alias of something else")
        self._begins_line(node.value[0][0])
        key, last = node.value[-1]
        indent = " " * node.value[0][0].start_mark.column
        return self._inserted(_end_of_pair(key, last), *(f"{indent}{line}" for line in lines))

    def _step(self, service: str) -> str:
        """By how much the file indents."""
        found = self.service(service)
        if found is None or not found[1].value:
            raise _UnsureError(f"no service {service}")
        columns = found[1].value[0][0].start_mark.column - found[0].start_mark.column
        return " " * max(int(columns), 1)

    def _begins_line(self, node: yaml.Node) -> None:
        begin = self.text.rfind("\n", 0, node.start_mark.index) + 1
        if self.text[begin : node.start_mark.index].strip(" "):
            raise _UnsureError("a key that does not begin its line")

    def _inserted(self, after: int, *new: str) -> str:
        """New lines behind a line, counted from 0."""
        lines = self.text.splitlines(keepends=True)
        added = [f"{line}\n" for line in new]
        if not lines[after].endswith("\n"):
            lines[after] += "\n"
            added[-1] = added[-1].removesuffix("\n")
        return "".join((*lines[: after + 1], *added, *lines[after + 1 :]))


@lru_cache(maxsize=8)
def _text(text: str) -> _Text:
    return _Text(text)


def _flat(node: yaml.Node, depth: int = 0) -> _Entries:
    """Key and value nodes by the key's text, with those that are merged in."""
    if not isinstance(node, yaml.MappingNode) or depth > _DEEPEST:
        raise _UnsureError("no mapping, or one merged into itself")
    own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _UnsureError("a key that is no word")
        if key.tag == _MERGE:
            for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                merged = {**_flat(each, depth + 1), **merged}
        else:
            own[key.value] = (key, value)
    return {**merged, **own}


_DEEPEST: Final = 20


def _variables(node: yaml.Node | None) -> Mapping[str, yaml.Node]:
    """The nodes to replace: of a list the whole element, of a mapping the value."""
    if isinstance(node, yaml.MappingNode):
        return {name: value for name, (_, value) in _flat(node).items()}
    if isinstance(node, yaml.SequenceNode):
        return {
            each.value.partition("=")[0]: each
            for each in node.value
            if isinstance(each, yaml.ScalarNode)
        }
    return {}


def _means(node: yaml.Node, value: str) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == value


def _end_of_pair(key: yaml.Node, value: yaml.Node) -> int:
    """The last line of a pair. An alias has the place of what it stands for, which is before."""
    if value.start_mark.index < key.start_mark.index:
        return key.end_mark.line
    return max(key.end_mark.line, _last_line(value))


def _last_line(node: yaml.Node) -> int:
    if isinstance(node, yaml.ScalarNode) or getattr(node, "flow_style", False) or not node.value:
        mark = node.end_mark
        # What ends at the begin of a line ended on the one before.
        return (
            mark.line - 1 if mark.column == 0 and mark.line > node.start_mark.line else mark.line
        )
    if isinstance(node, yaml.MappingNode):
        return _end_of_pair(*node.value[-1])
    last = node.value[-1]
    if last.start_mark.index < node.start_mark.index:
        raise _UnsureError("an alias at the end of a list")
    return _last_line(last)


def _scalar(value: str, style: str | None) -> str:
    """A string as YAML, in the quotes that those beside it have."""
    if style == "'":
        return "'" + value.replace("'", "''") + "'"
    # `53:8600` would be a number in base 60 to some.
    plain = not style and re.fullmatch(r"[\w./][^\s:#,\[\]{}&*!%@`\"']*", value)
    if plain and yaml.safe_load(value) == value:
        return value
    if not style and re.fullmatch(r"[A-Za-z./][\w./|=:-]*[\w/]", value) and ": " not in value:
        return value
    return json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------- what must come of it


def _plain(node: yaml.Node, budget: list[int]) -> Any:
    budget[0] -= 1
    if budget[0] < 0:
        raise _UnsureError("too much to compare")
    if isinstance(node, yaml.MappingNode):
        return {name: _plain(value, budget) for name, (_, value) in _flat(node).items()}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(each, budget) for each in node.value]
    return node.value


def _expected(before: str, made: Sequence[tuple[str, Edit]]) -> Any:
    """What the file must say after these edits."""
    whole = _text(before).plain()
    services = whole.get("services", whole)
    for service, edit in made:
        held = services[service]
        match edit:
            case Value():
                held[edit.key] = edit.value
            case Variable():
                _expect_variable(held, edit)
            case Element():
                there = held.get(edit.key, [])
                there = [there] if isinstance(there, str) else there
                if edit.value in there:
                    continue
                held[edit.key] = (
                    [edit.value if each in edit.old else each for each in there]
                    if edit.old
                    else [*there, edit.value]
                )
            case Argument():
                there = held["command"]
                held["command"] = (
                    f"{edit.value} {there}" if isinstance(there, str) else [edit.value, *there]
                )
    return _compared(whole)


def _compared(whole: Any) -> Any:
    """Without what only anchors are for: it changes with the services that take it from there."""
    return {key: each for key, each in whole.items() if not key.startswith("x-")}


def _expect_variable(service: dict[str, Any], edit: Variable) -> None:
    labels = service.get("labels", {})
    in_labels = edit.name in _names(labels)
    key = "labels" if in_labels else "environment"
    held = service.get(key, [])
    if isinstance(held, dict):
        service[key] = {**held, edit.name: edit.value}
        return
    pair = f"{edit.name}={edit.value}"
    replaced = [pair if each.partition("=")[0] == edit.name else each for each in held]
    service[key] = replaced if edit.name in _names(held) else [*held, pair]


def _names(settings: Any) -> Sequence[str]:
    if isinstance(settings, dict):
        return list(settings)
    return [str(each).partition("=")[0] for each in settings]
