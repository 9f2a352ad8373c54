"""Compose files without what no remedy needs: each line stays in its place, or is masked.

A patch must quote lines as they are. So the text is kept, and in it every value that is not on
the list below is masked where it stands: a line without a mask is the file's own, to the letter.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeGuard

import yaml

from meshdoctor.snapshot.redaction import (
    ENVIRONMENT_NAMES,
    LABEL_NAMES,
    MASK,
    RedactionError,
    is_secret_setting,
    redact_arguments,
    redact_text,
)
from meshdoctor.yaml_loader import LOADER

_MERGE: Final = "tag:yaml.org,2002:merge"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MOST_NODES: Final = 200_000

# What is kept: True every value, a mapping the keys that it names ("*" any), a pattern the
# settings whose names it matches, None no value at all.
_ARGUMENTS: Final = object()
_SERVICE: Final[Mapping[str, Any]] = {
    **dict.fromkeys(
        (
            *("cap_add", "container_name", "depends_on", "dns", "dns_search", "env_file"),
            *("expose", "extends", "hostname", "image", "links", "net", "network_mode"),
            *("networks", "platform", "ports", "privileged", "profiles", "restart", "tty", "user"),
        ),
        True,
    ),
    "command": _ARGUMENTS,
    "entrypoint": _ARGUMENTS,
    "environment": ENVIRONMENT_NAMES,
    "labels": LABEL_NAMES,
}
_FILE: Final[Mapping[str, Any]] = {
    "name": True,
    "version": True,
    "services": {"*": _SERVICE},
    "networks": True,
}


def redact_compose(raw: bytes) -> tuple[bytes, int]:
    """The file with as many lines, and how many values and comments were masked in it.

    Raises RedactionError for what is no Compose file.
    """
    try:
        text = raw.decode()
        root = yaml.compose(text, Loader=LOADER)
        tokens = list(yaml.scan(text, Loader=LOADER))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # What the parser quotes may be a secret.
        raise RedactionError(f"{len(raw)} bytes that are not YAML") from error
    if not _has_services(root):
        raise RedactionError("a file without services is no Compose file")
    kept = _Kept()
    kept.mapping(root, _FILE)
    clean, count = _masked(text, tokens, kept.ends)
    return clean.encode(), count


def _has_services(root: yaml.Node | None) -> TypeGuard[yaml.MappingNode]:
    return isinstance(root, yaml.MappingNode) and any(
        isinstance(key, yaml.ScalarNode)
        and key.value == "services"
        and isinstance(value, yaml.MappingNode)
        for key, value in root.value
    )


class _Kept:
    """The scalars that stay, by where each ends."""

    def __init__(self) -> None:
        self.ends: set[int] = set()
        self._seen: set[tuple[int, int]] = set()

    def node(self, node: yaml.Node, shape: Any) -> None:
        if shape is None or (id(node), id(shape)) in self._seen:
            return
        self._seen.add((id(node), id(shape)))
        if len(self._seen) > _MOST_NODES:
            raise RedactionError("with its anchors it is larger than any Compose file")
        if isinstance(node, yaml.ScalarNode):
            self._scalar(node, shape)
        elif shape in (ENVIRONMENT_NAMES, LABEL_NAMES):
            self._settings(node, shape)
        elif isinstance(node, yaml.SequenceNode):
            if shape is _ARGUMENTS:
                self._arguments(node)
            else:
                for each in node.value:
                    self.node(each, shape)
        elif isinstance(node, yaml.MappingNode):
            self.mapping(node, shape)

    def _scalar(self, node: yaml.ScalarNode, shape: Any) -> None:
        if shape in (True, _ARGUMENTS) and redact_text(node.value) == node.value:
            self._keep(node)

    def mapping(self, node: yaml.MappingNode, shape: Any) -> None:
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.tag == _MERGE:
                self._keep(key)
                for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    self.node(each, shape)
            elif shape is True:
                self.node(key, True)  # noqa: FBT003 # a shape
                self.node(value, True)  # noqa: FBT003 # likewise
            elif isinstance(shape, Mapping):
                # The format's own words and services' names tell nothing of what is below them.
                if _NAME.fullmatch(key.value):
                    self.node(key, True)  # noqa: FBT003 # likewise
                self.node(value, shape.get(key.value, shape.get("*")))

    def _settings(self, node: yaml.Node, names: Any) -> None:
        """`{NAME: value}` or `[NAME=value]`: those with a name that is wanted."""
        if isinstance(node, yaml.SequenceNode):
            for each in node.value:
                if isinstance(each, yaml.ScalarNode):
                    name, _, value = each.value.partition("=")
                    if self._is_wanted(names, name, value):
                        self._keep(each)
            return
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.tag == _MERGE:
                self._keep(key)
                for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    self.node(each, names)
            elif isinstance(value, yaml.ScalarNode) and self._is_wanted(
                names, key.value, value.value
            ):
                self._keep(key)
                self._keep(value)

    @staticmethod
    def _is_wanted(names: Any, name: str, value: str) -> bool:
        wanted = names.match(name) is not None and not is_secret_setting(name)
        return wanted and redact_text(value) == value

    def _arguments(self, node: yaml.SequenceNode) -> None:
        words = [each.value if isinstance(each, yaml.ScalarNode) else None for each in node.value]
        for each, word, clean in zip(node.value, words, redact_arguments(words), strict=True):
            if word is not None and word == clean:
                self._keep(each)

    def _keep(self, node: yaml.Node) -> None:
        self.ends.add(node.end_mark.index)


def _masked(text: str, tokens: list[yaml.Token], kept: set[int]) -> tuple[str, int]:
    pieces: list[str] = []
    count = at = 0
    for token in tokens:
        start, end = token.start_mark.index, token.end_mark.index
        if end <= start:
            continue
        gap, comments = _without_comments(text[at:start])
        span = text[start:end]
        masks = isinstance(token, yaml.ScalarToken) and end not in kept
        pieces += [gap, _mask(span) if masks else span]
        count += comments + masks
        at = end
    gap, comments = _without_comments(text[at:])
    return "".join((*pieces, gap)), count + comments


def _mask(span: str) -> str:
    """A quoted scalar of as many lines, none of which looks like one that was kept."""
    lines = span.split("\n")
    tail = "\n" if len(lines) > 1 and not lines[-1] else ""
    number = len(lines) - bool(tail)
    masks = "\n".join([MASK] * number)
    return f"'{masks}'{tail}"


def _without_comments(gap: str) -> tuple[str, int]:
    """What stands between two tokens, the words of its comments masked."""
    lines = list(_lines_without_comments(gap))
    return "\n".join(line for line, _ in lines), sum(masked for _, masked in lines)


def _lines_without_comments(gap: str) -> Iterator[tuple[str, bool]]:
    for line in gap.split("\n"):
        before, sign, comment = line.partition("#")
        masks = bool(sign and comment.strip())
        yield f"{before}# {MASK}" if masks else line, masks
