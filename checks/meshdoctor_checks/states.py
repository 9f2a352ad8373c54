"""How it is said that a container does not run."""

from typing import Final

from meshdoctor.evidence.docker import Container
from meshdoctor_checks.wording import count, verb

_MEANINGS: Final = {
    126: "{its} program may not be run",
    127: "{its} program is not there",
    134: "aborted",
    137: "killed",
    139: "crashed",
    143: "told to stop",
}
"""What exit codes mean that a shell or a signal (128 and its number) makes."""

_STOPPED_FROM_OUTSIDE: Final = frozenset({0, 130, 137, 143})


def how(container: Container, number: int = 1) -> str:
    """The verb of a sentence about a container that does not run, or about several as this one."""
    code = container.exit_code
    match container.status:
        case "restarting":
            times = count(container.restart_count, "time")
            again = verb(number, "restarts", "restart")
            return f"{again} again and again ({times} so far, last exit code {code})"
        case "created":
            return f"{verb(number, 'was', 'were')} created and never started"
        case "paused":
            return f"{verb(number, 'is', 'are')} paused"
        case _:
            meaning = "out of memory" if container.oom_killed else _MEANINGS.get(code, "")
            meaning = meaning.format(its=verb(number, "its", "their"))
            return f"stopped with exit code {code}{f' ({meaning})' if meaning else ''}"


def stopped_from_outside(container: Container) -> bool:
    """True where somebody stopped it, so that its log tells nothing of why."""
    code = container.exit_code
    return container.status == "exited" and code in _STOPPED_FROM_OUTSIDE


def seen(container: Container) -> str:
    """Its state as a citation quotes it."""
    return f"{container.status}, exit code {container.exit_code}"
