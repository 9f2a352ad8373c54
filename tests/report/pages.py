"""Checks built by hand, for what lists and explains checks."""

from collections.abc import Iterator
from typing import Final

from meshdoctor.check import Check, Need
from meshdoctor.findings import Finding, Severity


class Catalog:
    title = "the Consul catalogue"


class Proxies:
    title = "the sidecars' configuration"


def tcp_listener_collision() -> Iterator[Finding]:
    """Find nothing: these checks are only looked at."""
    yield from ()


COLLISION: Final = Check(
    code="MD401",
    name="tcp-listener-collision",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD402", "MD508"),
    needs=(
        Need("catalog", Catalog, optional=False),
        Need("proxies", Proxies, optional=False),
    ),
    title="One TCP listener takes the traffic of every service on its port.",
    page="""One TCP listener takes the traffic of every service on its port.

## Why it matters
A listener is bound to `address:port`, and Pilot gives **every** service the address `0.0.0.0`. So
all services of one port share one listener. HTTP services share it well, for the `Host` header
tells them apart; *TCP services cannot*:

- the first in Pilot's list gets the listener, and
- the others get nothing. Which one is first is the order of a map, so the winner may change with
  any change in the catalogue.

## How it is found
1. Every listener whose chain is one `tcp_proxy` is read from the sidecars.
2. Its port is looked up in the catalogue: see
   [Registrator](https://github.com/gliderlabs/registrator/issues/633).

> A port that one service has alone is never reported.

## How to fix it
Declare the protocol of each service:

```yaml
environment:
  - SERVICE_PROTOCOL=http
```

    docker-compose -f docker-compose.yaml -p consul up -d --no-deps --force-recreate registrator

Then look again with `meshdoctor check --select MD401`. [bold]This is no markup[/bold], and
neither is this \x1b[31m escape.
""",
    function=tcp_listener_collision,
)

NAME: Final = Check(
    code="MD212",
    name="name-not-a-host-name",
    severity=Severity.WARNING,
    since="0.2",
    explains=(),
    needs=(
        Need("catalog", Catalog, optional=False),
        Need("proxies", Proxies, optional=True),
    ),
    title="A service has a name that DNS cannot carry.",
    page="A service has a name that DNS cannot carry.\n\n## Why it matters\nNobody can call it.\n",
    function=tcp_listener_collision,
)

CHECKS: Final = (COLLISION, NAME)
