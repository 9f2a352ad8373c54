"""Where Consul's own rules lead, and what a proxy's registration tells of its instance."""

from typing import Any

import pytest

from meshdoctor.evidence.connect import ConsulConnect
from meshdoctor.kinds.consul_connect import leads_to, service_of_identity
from tests.evidence.damage import snapshot


def connect(**documents: Any) -> ConsulConnect:
    held = {f"consul/config/service-{kind}.json": entries for kind, entries in documents.items()}
    return ConsulConnect.load(snapshot(held))


def test_rules_that_lead_on_to_one_another() -> None:
    """Each service once, though two rules lead there, and in a circle."""
    found = connect(
        router=[
            {
                "Name": "api",
                "Routes": [
                    {"Destination": {"Service": "pay"}},
                    {"Destination": {"Service": "db"}},
                ],
            }
        ],
        splitter=[
            {"Name": "pay", "Splits": [{"Weight": 50, "Service": "db"}, {"Weight": 50}]},
        ],
        resolver=[{"Name": "db", "Redirect": {"Service": "api"}}],
    )
    assert leads_to("api", found) == {"pay", "db"}
    assert leads_to("pay", found) == {"db", "api"}
    assert leads_to("nobody", found) == frozenset()


@pytest.mark.parametrize(
    ("uri", "service"),
    [
        ("spiffe://x.consul/ns/default/dc/dc1/svc/web", "web"),
        ("spiffe://x.consul/agent/server/dc/dc1", ""),
        ("https://x.consul/svc/web", ""),
        ("", ""),
    ],
)
def test_the_service_in_an_identity(uri: str, service: str) -> None:
    """Of Consul's names; others name none."""
    assert service_of_identity(uri) == service
