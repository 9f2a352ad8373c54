"""Who shares a network namespace with whom."""

from meshdoctor.topology.namespaces import Namespaces
from tests.topology.containers import container


def test_who_is_beside_whom() -> None:
    """The host first, then what runs; by id or by name, also over another guest."""
    web = container("web")
    stopped = container("a-job", network=f"container:{web.id}", status="exited")
    sidecar = container("proxy", network="container:web")
    behind = container("zipkin", network="container:proxy")
    found = Namespaces((web, stopped, sidecar, behind))
    assert [each.name for each in found.beside(web)] == ["proxy", "zipkin", "a-job"]
    assert [each.name for each in found.beside(behind)] == ["web", "proxy", "a-job"]


def test_beside_a_container_whose_host_is_gone_is_nobody() -> None:
    """And its namespace is dead while it runs."""
    orphan = container("proxy", network="container:gone")
    found = Namespaces((orphan,))
    assert found.host(orphan) is None
    assert found.beside(orphan) == ()
    assert found.is_dead(orphan)
    assert not found.is_dead(container("web"))
