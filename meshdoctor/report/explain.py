"""The page of a check and the list of checks: `meshdoctor explain` and `meshdoctor checks`."""

from collections.abc import Iterable, Sequence
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

from meshdoctor.check import Check, Need
from meshdoctor.report.page import STYLES, Page, Part, Text
from meshdoctor.report.terminal import Terminal

CHECKS_SCHEMA: Final = "meshdoctor.checks/v1"


_INDENT: Final = "  "


def render_page(check: Check, terminal: Terminal | None = None) -> str:
    """What a finding of `check` means: its docstring as a page, by default for a pipe."""
    page = Page(terminal or Terminal())
    page.paragraph(
        page.text((check.code, STYLES[check.severity]), (f" {check.name}", "bold")), "", "  "
    )
    _, _, body = check.page.partition("\n")
    page.gap()
    _write_markdown(page, check.title)
    _write_markdown(page, body)
    page.heading("In short")
    page.paragraph(page.text(f"Severity: {check.severity} by default."), _INDENT)
    page.paragraph(page.text(f"Looks at: {_needs(check.needs)}."), "  ")
    if check.explains:
        page.paragraph(page.text(f"Can be the cause of: {', '.join(check.explains)}."), "  ")
    page.paragraph(page.text(f"Since version {check.since}; written in {check.module}."), "  ")
    return str(page)


def render_checks(checks: Iterable[Check], terminal: Terminal | None = None) -> str:
    """The checks installed, by the package they come from."""
    page = Page(terminal or Terminal())
    ordered = sorted(checks, key=lambda each: each.code)
    packages: dict[str, list[Check]] = {}
    for check in ordered:
        packages.setdefault(check.module.partition(".")[0], []).append(check)
    for package, members in packages.items():
        if len(packages) > 1:
            page.heading(f"From {package}")
        page.gap()
        for check in members:
            _write_check(page, check)
    page.gap()
    total = f"{len(ordered)} {'check' if len(ordered) == 1 else 'checks'}."
    page.paragraph(page.text(total, (" More about one: meshdoctor explain CODE", "dim")))
    return str(page)


def render_checks_json(checks: Iterable[Check]) -> str:
    """The checks installed as one JSON document, `meshdoctor.checks/v1`."""
    import json  # noqa: PLC0415

    document = {
        "schema": CHECKS_SCHEMA,
        "checks": [
            {
                "code": check.code,
                "name": check.name,
                "title": check.title,
                "severity": check.severity.value,
                "since": check.since,
                "explains": list(check.explains),
                "needs": [
                    {"evidence": need.title, "optional": need.optional} for need in check.needs
                ],
                "module": check.module,
            }
            for check in sorted(checks, key=lambda each: each.code)
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=True) + "\n"


def _write_check(page: Page, check: Check) -> None:
    severity = f"{check.severity:<7}"
    page.paragraph(
        page.text(
            (check.code, "bold"),
            "  ",
            (severity, STYLES[check.severity]),
            f"  {check.name}",
        ),
        "",
        "  ",
    )
    explains = f"; can cause {', '.join(check.explains)}" if check.explains else ""
    page.paragraph(page.text((f"looks at {_needs(check.needs)}{explains}", "dim")), " " * 7)


def _needs(needs: Sequence[Need]) -> str:
    wanted = [need.title for need in needs if not need.optional]
    optional = [f"{need.title} (if there)" for need in needs if need.optional]
    return ", ".join((*wanted, *optional))


def _write_markdown(page: Page, source: str) -> None:  # noqa: C901 # one case a kind of token
    """Markdown as sentences and blocks."""
    # What stands before the next line of text, and before those after it.
    first = rest = ""
    outer: list[str] = []
    close = heading = False
    for token in MarkdownIt().parse(source):
        match token.type:
            case "heading_open":
                page.gap()
                first = rest = ""
                heading = True
            case "heading_close":
                first = rest = _INDENT
                heading = False
            case "paragraph_open" | "bullet_list_open" | "ordered_list_open" | "hr":
                if not (token.hidden or close or outer):
                    page.gap()
            case "blockquote_open":
                page.gap()
                outer.append(rest)
                first = rest = rest + _INDENT
            case "list_item_open":
                sign = f"{token.info}. " if token.info else "- "
                outer.append(rest)
                first, rest = rest + sign, rest + " " * len(sign)
            case "list_item_close" | "blockquote_close":
                first = rest = outer.pop()
            case "inline":
                page.paragraph(_inline(page, token, "bold" if heading else ""), first, rest)
                first = rest
            case "fence" | "code_block" | "html_block":
                page.gap()
                for line in token.content.rstrip("\n").split("\n"):
                    page.verbatim(line.expandtabs(), rest + _INDENT, "cyan")
                page.gap()
            case _:
                pass
        close = token.type in {"heading_close", "list_item_open", "blockquote_open"}


def _inline(page: Page, token: Token, style: str) -> Text:
    """The text of a paragraph or a heading, with its emphasis."""
    styles = [style]
    address = ""
    text = Text()
    for child in token.children or ():
        match child.type:
            case "strong_open":
                styles.append("bold")
            case "em_open":
                styles.append("italic")
            case "link_open":
                address = str(child.attrs.get("href", ""))
            case "strong_close" | "em_close":
                styles.pop()
            case "link_close":
                if address and address not in text.plain:
                    text.append(page.text(f" ({address})"))
            case "softbreak" | "hardbreak":
                text.append(Text(Part(" ", "")))
            case "code_inline":
                # In colour, code stands out without them.
                quote = "" if page.terminal.color else "`"
                text.append(page.text((f"{quote}{child.content}{quote}", "cyan")))
            case _:
                text.append(page.text((child.content, " ".join(styles).strip())))
    return text
