"""The checks that ship with meshdoctor, one module a check, named here one by one."""

from typing import Final

from meshdoctor.check import Check
from meshdoctor_checks.consul_mesh.certificate_unsound import certificate_unsound
from meshdoctor_checks.consul_mesh.intention_denies import intention_denies
from meshdoctor_checks.consul_mesh.protocol_left_at_tcp import protocol_left_at_tcp
from meshdoctor_checks.consul_mesh.protocols_disagree import protocols_disagree
from meshdoctor_checks.consul_mesh.proxy_not_supported import proxy_not_supported
from meshdoctor_checks.consul_mesh.registered_proxy_not_running import registered_proxy_not_running
from meshdoctor_checks.consul_mesh.sidecar_without_service import sidecar_without_service
from meshdoctor_checks.consul_mesh.upstream_not_registered import upstream_not_registered
from meshdoctor_checks.consul_mesh.upstream_port_collision import upstream_port_collision
from meshdoctor_checks.control_plane.consul_dns_unreachable import consul_dns_unreachable
from meshdoctor_checks.control_plane.consul_without_leader import consul_without_leader
from meshdoctor_checks.control_plane.control_plane_component_down import (
    control_plane_component_down,
)
from meshdoctor_checks.control_plane.control_plane_component_missing import (
    control_plane_component_missing,
)
from meshdoctor_checks.control_plane.kubectl_context_mismatch import kubectl_context_mismatch
from meshdoctor_checks.control_plane.proxy_version_skew import proxy_version_skew
from meshdoctor_checks.control_plane.registry_not_followed import registry_not_followed
from meshdoctor_checks.control_plane.tracing_unreachable import tracing_unreachable
from meshdoctor_checks.probe.call_failed import call_failed
from meshdoctor_checks.probe.name_not_resolved import name_not_resolved
from meshdoctor_checks.probe.prediction_differs import prediction_differs
from meshdoctor_checks.probe.wrong_service_answered import wrong_service_answered
from meshdoctor_checks.registry.control_plane_registered import control_plane_registered
from meshdoctor_checks.registry.instance_failing_health import instance_failing_health
from meshdoctor_checks.registry.instances_disagree_on_protocol import (
    instances_disagree_on_protocol,
)
from meshdoctor_checks.registry.name_changed_by_port import name_changed_by_port
from meshdoctor_checks.registry.name_not_a_host_name import name_not_a_host_name
from meshdoctor_checks.registry.registered_off_the_mesh import registered_off_the_mesh
from meshdoctor_checks.registry.registrator_drops_metadata import registrator_drops_metadata
from meshdoctor_checks.registry.running_but_not_registered import running_but_not_registered
from meshdoctor_checks.registry.service_without_protocol import service_without_protocol
from meshdoctor_checks.registry.stale_registration import stale_registration
from meshdoctor_checks.registry.tag_without_value import tag_without_value
from meshdoctor_checks.registry.unknown_protocol import unknown_protocol
from meshdoctor_checks.rules.host_not_registered import host_not_registered
from meshdoctor_checks.rules.http_rule_on_tcp_port import http_rule_on_tcp_port
from meshdoctor_checks.rules.rule_never_reached import rule_never_reached
from meshdoctor_checks.rules.rule_not_in_effect import rule_not_in_effect
from meshdoctor_checks.rules.subset_not_defined import subset_not_defined
from meshdoctor_checks.rules.subset_without_instance import subset_without_instance
from meshdoctor_checks.rules.two_rules_one_host import two_rules_one_host
from meshdoctor_checks.rules.weights_do_not_add_up import weights_do_not_add_up
from meshdoctor_checks.sidecars.admin_port_exposed import admin_port_exposed
from meshdoctor_checks.sidecars.listener_not_active import listener_not_active
from meshdoctor_checks.sidecars.redirect_not_installed import redirect_not_installed
from meshdoctor_checks.sidecars.sidecar_down import sidecar_down
from meshdoctor_checks.sidecars.sidecar_in_dead_namespace import sidecar_in_dead_namespace
from meshdoctor_checks.sidecars.sidecar_not_connected import sidecar_not_connected
from meshdoctor_checks.sidecars.sidecar_of_another_service import sidecar_of_another_service
from meshdoctor_checks.sidecars.sidecar_out_of_date import sidecar_out_of_date
from meshdoctor_checks.sidecars.sidecar_unreachable import sidecar_unreachable
from meshdoctor_checks.sidecars.update_rejected import update_rejected
from meshdoctor_checks.sidecars.workload_without_sidecar import workload_without_sidecar
from meshdoctor_checks.traffic.cluster_without_endpoint import cluster_without_endpoint
from meshdoctor_checks.traffic.host_name_not_served import host_name_not_served
from meshdoctor_checks.traffic.inbound_collision import inbound_collision
from meshdoctor_checks.traffic.misrouted_call import misrouted_call
from meshdoctor_checks.traffic.mixed_protocol_port import mixed_protocol_port
from meshdoctor_checks.traffic.really_tcp_on_one_port import really_tcp_on_one_port
from meshdoctor_checks.traffic.route_configuration_missing import route_configuration_missing
from meshdoctor_checks.traffic.route_to_missing_cluster import route_to_missing_cluster
from meshdoctor_checks.traffic.sidecars_disagree import sidecars_disagree
from meshdoctor_checks.traffic.tcp_listener_collision import tcp_listener_collision

CHECKS: Final[tuple[Check, ...]] = (
    # 1xx control plane
    control_plane_component_down,
    control_plane_component_missing,
    registry_not_followed,
    consul_without_leader,
    consul_dns_unreachable,
    kubectl_context_mismatch,
    tracing_unreachable,
    proxy_version_skew,
    # 2xx registry
    service_without_protocol,
    registrator_drops_metadata,
    unknown_protocol,
    instances_disagree_on_protocol,
    tag_without_value,
    stale_registration,
    running_but_not_registered,
    registered_off_the_mesh,
    control_plane_registered,
    name_changed_by_port,
    instance_failing_health,
    name_not_a_host_name,
    # 3xx sidecars
    workload_without_sidecar,
    sidecar_down,
    redirect_not_installed,
    sidecar_in_dead_namespace,
    sidecar_of_another_service,
    sidecar_not_connected,
    sidecar_out_of_date,
    update_rejected,
    listener_not_active,
    admin_port_exposed,
    sidecar_unreachable,
    # 4xx traffic
    tcp_listener_collision,
    misrouted_call,
    mixed_protocol_port,
    route_to_missing_cluster,
    cluster_without_endpoint,
    route_configuration_missing,
    host_name_not_served,
    inbound_collision,
    sidecars_disagree,
    really_tcp_on_one_port,
    # 5xx rules
    subset_not_defined,
    subset_without_instance,
    host_not_registered,
    rule_never_reached,
    weights_do_not_add_up,
    two_rules_one_host,
    rule_not_in_effect,
    http_rule_on_tcp_port,
    # 6xx probe
    wrong_service_answered,
    name_not_resolved,
    call_failed,
    prediction_differs,
    # 7xx Consul service mesh
    upstream_port_collision,
    upstream_not_registered,
    registered_proxy_not_running,
    intention_denies,
    protocol_left_at_tcp,
    protocols_disagree,
    certificate_unsound,
    proxy_not_supported,
    sidecar_without_service,
)
