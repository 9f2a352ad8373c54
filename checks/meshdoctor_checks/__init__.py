"""The checks that ship with meshdoctor, one module a check, named here one by one."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Final, overload

from meshdoctor.check import Check


class _Catalogue(Sequence[Check]):
    """The checks by code; the module of one is imported when it is asked for."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules: Final = modules

    def find(self, word: str) -> Check | None:
        """The check whose code or name that is, in either case; no other is imported."""
        wanted = word.lower().replace("-", "_")
        for code, module in self._modules.items():
            if wanted in {code.lower(), module.rpartition(".")[2]}:
                return _imported(module)
        return None

    @overload
    def __getitem__(self, index: int) -> Check: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Check]: ...
    def __getitem__(self, index: int | slice) -> Check | Sequence[Check]:
        return tuple(self)[index]

    def __iter__(self) -> Iterator[Check]:
        return map(_imported, self._modules.values())

    def __len__(self) -> int:
        return len(self._modules)


def _imported(module: str) -> Check:
    check: Check = getattr(import_module(f"{__name__}.{module}"), module.rpartition(".")[2])
    return check


CHECKS: Final = _Catalogue(
    {
        # 1xx control plane
        "MD101": "control_plane.control_plane_component_down",
        "MD102": "control_plane.control_plane_component_missing",
        "MD103": "control_plane.registry_not_followed",
        "MD104": "control_plane.consul_without_leader",
        "MD105": "control_plane.consul_dns_unreachable",
        "MD106": "control_plane.kubectl_context_mismatch",
        "MD107": "control_plane.tracing_unreachable",
        "MD108": "control_plane.proxy_version_skew",
        # 2xx registry
        "MD201": "registry.service_without_protocol",
        "MD202": "registry.registrator_drops_metadata",
        "MD203": "registry.unknown_protocol",
        "MD204": "registry.instances_disagree_on_protocol",
        "MD205": "registry.tag_without_value",
        "MD206": "registry.stale_registration",
        "MD207": "registry.running_but_not_registered",
        "MD208": "registry.registered_off_the_mesh",
        "MD209": "registry.control_plane_registered",
        "MD210": "registry.name_changed_by_port",
        "MD211": "registry.instance_failing_health",
        "MD212": "registry.name_not_a_host_name",
        # 3xx sidecars
        "MD301": "sidecars.workload_without_sidecar",
        "MD302": "sidecars.sidecar_down",
        "MD303": "sidecars.redirect_not_installed",
        "MD304": "sidecars.sidecar_in_dead_namespace",
        "MD305": "sidecars.sidecar_of_another_service",
        "MD306": "sidecars.sidecar_not_connected",
        "MD307": "sidecars.sidecar_out_of_date",
        "MD308": "sidecars.update_rejected",
        "MD309": "sidecars.listener_not_active",
        "MD310": "sidecars.admin_port_exposed",
        "MD311": "sidecars.sidecar_unreachable",
        # 4xx traffic
        "MD401": "traffic.tcp_listener_collision",
        "MD402": "traffic.misrouted_call",
        "MD403": "traffic.mixed_protocol_port",
        "MD404": "traffic.route_to_missing_cluster",
        "MD405": "traffic.cluster_without_endpoint",
        "MD406": "traffic.route_configuration_missing",
        "MD407": "traffic.host_name_not_served",
        "MD408": "traffic.inbound_collision",
        "MD409": "traffic.sidecars_disagree",
        "MD410": "traffic.really_tcp_on_one_port",
        # 5xx rules
        "MD501": "rules.subset_not_defined",
        "MD502": "rules.subset_without_instance",
        "MD503": "rules.host_not_registered",
        "MD504": "rules.rule_never_reached",
        "MD505": "rules.weights_do_not_add_up",
        "MD506": "rules.two_rules_one_host",
        "MD507": "rules.rule_not_in_effect",
        "MD508": "rules.http_rule_on_tcp_port",
        # 6xx probe
        "MD601": "probe.wrong_service_answered",
        "MD602": "probe.name_not_resolved",
        "MD603": "probe.call_failed",
        "MD604": "probe.prediction_differs",
        # 7xx Consul service mesh
        "MD701": "consul_mesh.upstream_port_collision",
        "MD702": "consul_mesh.upstream_not_registered",
        "MD703": "consul_mesh.registered_proxy_not_running",
        "MD704": "consul_mesh.intention_denies",
        "MD705": "consul_mesh.protocol_left_at_tcp",
        "MD706": "consul_mesh.protocols_disagree",
        "MD707": "consul_mesh.certificate_unsound",
        "MD708": "consul_mesh.proxy_not_supported",
        "MD709": "consul_mesh.sidecar_without_service",
    }
)
