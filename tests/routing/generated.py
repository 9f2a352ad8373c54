"""Route configurations, clusters and requests made up by chance, the hard cases more often."""

import random
from dataclasses import dataclass, field
from typing import Any

from tests.routing.real_envoy import MANAGER, ROUTER, address, static_cluster

Json = dict[str, Any]

SERVERS = tuple(f"s{number}" for number in range(10))
DOMAINS = (
    "reviews",
    "reviews:9080",
    "reviews.service.consul",
    "details.service.consul:9080",
    "*.service.consul",
    "*-v1.service.consul",
    "*.consul",
    "*consul",
    "reviews.*",
    "reviews*",
    "reviews.service*",
    "10.0.0.*",
    "Details",
    "[2001:db8::1]",
    "*:9080",
    "ratings.",
    "a.b.c.d",
    "*.b.c.d",
)
HOSTS = (
    "reviews",
    "REVIEWS",
    "reviews:9080",
    "reviews:80",
    "reviews.",
    "reviews.:9080",
    "reviews.service.consul",
    "Reviews.Service.Consul",
    "reviews.service.consul:9080",
    "reviews-v1.service.consul",
    ".service.consul",
    "x.service.consul",
    "service.consul",
    "x.y.consul",
    "consul",
    "reviews.other",
    "reviewsx",
    "reviews.service.x",
    "details.service.consul:9080",
    "details.service.consul:09080",
    "details",
    "DETAILS:1",
    "10.0.0.7",
    "10.0.0.7:9080",
    "10.0.0.",
    "[2001:db8::1]",
    "[2001:db8::1]:9080",
    "ratings",
    "ratings.",
    "a.b.c.d",
    "z.b.c.d",
    "b.c.d",
    "nobody",
)
PATHS = (
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/A",
    "/ab",
    "/a.b",
    "/reviews/1",
    "/v1/x",
    "/a;v=1/b",
    "/b%2Fc",
)
ASKED = (
    *PATHS,
    "/a?x=1",
    "/a?x=2&x=1",
    "/a?y",
    "/a?y=",
    "/?x=1&y=2",
    "/a/b?x=a%20b",
    "/reviews/12",
    "/reviews/x",
    "/v1/x?x=12",
    "//a",
    "/a//b",
    "/a/./b",
    "/a/../b",
    "/..",
    "/a;v=2",
    "/A/B",
    "/nothing",
    "/?",
    "/a/b/c",
    "/a?X=1",
)
REGEXES = ("/a.*", "/reviews/[0-9]+", "(?i)/a", ".*b", "/[^/]*", "/a|/ab", "/v(1|2)/x")
NAMES = ("x-a", "X-B", "x-number")
VALUES = ("", "one", "One", "two", "one,two", "5", "-5", "10", "99", "1.5", "abc", "5 ", "+5")


@dataclass
class Request:
    """One HTTP request."""

    host: str
    path: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()

    def wire(self) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {self.host}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.method == "POST":
            lines.append("Content-Length: 0")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


@dataclass
class World:
    """The clusters every generated route may name, and their files."""

    clusters: list[Json]
    files: dict[str, Json]
    names: tuple[str, ...] = field(default=())


def string_match(rng: random.Random, values: tuple[str, ...] = VALUES) -> Json:
    kind = rng.choice(("exact", "prefix", "suffix", "contains", "safe_regex"))
    if kind == "safe_regex":
        return {"safe_regex": {"regex": rng.choice(("o.e", "[0-9]+", "(?i)one", ".*", "5|10"))}}
    value = rng.choice([each.strip() for each in values])
    if kind != "exact":
        value = value[: rng.randint(1, 3)].strip() or "o"
    return {kind: value, "ignore_case": rng.random() < 0.3}


def header_match(rng: random.Random) -> Json:
    match: Json = {"name": rng.choice((*NAMES, ":method", ":authority", ":path", "host"))}
    kind = rng.choice(("string", "string", "present", "range", "nothing", "old"))
    if kind == "string":
        match["string_match"] = string_match(rng)
        if rng.random() < 0.3:
            match["treat_missing_header_as_empty"] = True
    elif kind == "present":
        match["present_match"] = rng.random() < 0.7
    elif kind == "range":
        match["range_match"] = rng.choice(
            ({"start": 0, "end": 10}, {"start": -10, "end": 0}, {"start": 5, "end": 5}, {"end": 6})
        )
        if rng.random() < 0.2:
            match["treat_missing_header_as_empty"] = True
    elif kind == "old":
        # Deprecated, and still taken.
        field_name = rng.choice(("exact_match", "prefix_match", "suffix_match", "contains_match"))
        match[field_name] = rng.choice([each.strip() for each in VALUES if each.strip()])
    if rng.random() < 0.3:
        match["invert_match"] = True
    return match


def route_match(rng: random.Random) -> Json:  # noqa: C901 # one branch a field
    kind = rng.choice(
        ("prefix", "prefix", "prefix", "path", "path_separated_prefix", "safe_regex")
    )
    match: Json
    if kind == "safe_regex":
        match = {"safe_regex": {"regex": rng.choice(REGEXES)}}
    else:
        path = rng.choice(PATHS)
        if kind == "prefix" and rng.random() < 0.1:
            path = ""
        if kind == "path_separated_prefix":
            path = rng.choice(("/a", "/a/b", "/A", "/v1", "/reviews"))
        match = {kind: path}
        if rng.random() < 0.25:
            match["case_sensitive"] = False
    if rng.random() < 0.45:
        match["headers"] = [header_match(rng) for _ in range(rng.choice((1, 1, 2)))]
    if rng.random() < 0.25:
        query: Json = {"name": rng.choice(("x", "y", "X"))}
        if rng.random() < 0.6:
            query["string_match"] = string_match(rng, ("1", "2", "12", "a%20b", "a b"))
        elif rng.random() < 0.5:
            query["present_match"] = rng.random() < 0.7
        match["query_parameters"] = [query]
    if rng.random() < 0.1:
        numerator, denominator = rng.choice(((0, 0), (100, 0), (50, 0), (10_000, 1), (5, 2)))
        match["runtime_fraction"] = {
            "default_value": {"numerator": numerator, "denominator": denominator}
        }
    if rng.random() < 0.04:
        match["grpc"] = {}
    return match


def action(  # noqa: C901, PLR0912 # one branch a field
    rng: random.Random, world: World
) -> Json:
    chance = rng.random()
    if chance < 0.08:
        redirect: Json = {
            "response_code": rng.choice(("MOVED_PERMANENTLY", "FOUND", "PERMANENT_REDIRECT"))
        }
        if rng.random() < 0.5:
            redirect["host_redirect"] = "elsewhere"
        if rng.random() < 0.3:
            redirect["port_redirect"] = 8443
        if rng.random() < 0.3:
            redirect["https_redirect"] = True
        if rng.random() < 0.3:
            redirect["path_redirect"] = rng.choice(("/new", "/new?q=1"))
        if rng.random() < 0.2:
            redirect["strip_query"] = True
        return {"redirect": redirect}
    if chance < 0.14:
        return {"direct_response": {"status": rng.choice((200, 204, 403, 418, 503))}}
    route: Json = {}
    if chance < 0.22:
        route["cluster_header"] = rng.choice(("x-cluster", "X-A"))
    elif chance < 0.36:
        count = rng.randint(1, 3)
        route["weighted_clusters"] = {
            "clusters": [
                {"name": rng.choice((*world.names, "missing")), "weight": rng.choice((0, 1, 50))}
                for _ in range(count)
            ]
        }
        route["weighted_clusters"]["clusters"][0]["weight"] = rng.choice((1, 99))
    else:
        route["cluster"] = rng.choice((*world.names, *world.names, "missing"))
    if rng.random() < 0.3:
        route["cluster_not_found_response_code"] = rng.choice(
            ("NOT_FOUND", "SERVICE_UNAVAILABLE", "INTERNAL_SERVER_ERROR")
        )
    if rng.random() < 0.2:
        route["prefix_rewrite"] = "/rewritten"
    if rng.random() < 0.1:
        route["host_rewrite_literal"] = "rewritten"
    return {"route": route}


def per_filter(rng: random.Random) -> Json:
    """Sometimes the fault filter is told to abort, or not to."""
    if rng.random() < 0.94:
        return {}
    percent = rng.choice((0, 100))
    fault = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "abort": {"http_status": 555, "percentage": {"numerator": percent}},
    }
    return {"typed_per_filter_config": {"fault": fault}}


def route_configuration(rng: random.Random, name: str, world: World) -> Json:
    domains = list(DOMAINS)
    rng.shuffle(domains)
    hosts: list[Json] = []
    for number in range(rng.randint(1, 5)):
        own = [domains.pop() for _ in range(rng.randint(1, 3))]
        hosts.append(
            {
                "name": f"{name}-{number}",
                "domains": own,
                "routes": [
                    {
                        "match": route_match(rng),
                        **action(rng, world),
                        **per_filter(rng),
                    }
                    for _ in range(rng.randint(0, 6))
                ],
                **({"require_tls": "ALL"} if rng.random() < 0.05 else {}),
                **per_filter(rng),
            }
        )
    if rng.random() < 0.5:
        hosts[-1]["domains"].append("*")
    config: Json = {"name": name, "virtual_hosts": hosts, "validate_clusters": False}
    if rng.random() < 0.25:
        config["ignore_port_in_host_matching"] = True
    if rng.random() < 0.25:
        config["ignore_path_parameters_in_path_matching"] = True
    return config


def rbac(rng: random.Random) -> Json:
    rules: Json = rng.choice(
        (
            {"action": "DENY"},
            {
                "action": "ALLOW",
                "policies": {
                    "all": {"permissions": [{"any": True}], "principals": [{"any": True}]}
                },
            },
            {"action": "ALLOW"},
            {},
        )
    )
    config: Json = {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"}
    if rules:
        config["rules"] = rules
    return {"name": "rbac", "typed_config": config}


def http_listener(rng: random.Random, name: str, port: int, world: World) -> Json:
    config = route_configuration(rng, name, world)
    filters = [
        {
            "name": "fault",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
            },
        },
        ROUTER,
    ]
    if rng.random() < 0.15:
        filters.insert(0, rbac(rng))
    manager: Json = {
        "@type": MANAGER,
        "stat_prefix": name,
        "http_filters": filters,
        "local_reply_config": {
            "body_format": {
                "text_format_source": {"inline_string": "flags=%RESPONSE_FLAGS%\n"},
            }
        },
    }
    if rng.random() < 0.5:
        manager["route_config"] = config
    else:
        world.files[f"{name}.json"] = {
            "version_info": "1",
            "resources": [
                {
                    "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
                    **config,
                }
            ],
        }
        manager["rds"] = {
            "route_config_name": name,
            "config_source": {
                "resource_api_version": "V3",
                "path_config_source": {"path": f"@/{name}.json"},
            },
        }
    stripping = rng.random()
    if stripping < 0.2:
        manager["strip_any_host_port"] = True
    elif stripping < 0.4:
        manager["strip_matching_host_port"] = True
    if rng.random() < 0.3:
        manager["strip_trailing_host_dot"] = True
    if rng.random() < 0.4:
        manager["normalize_path"] = True
    if rng.random() < 0.3:
        manager["merge_slashes"] = True
    return {
        "name": name,
        "address": address("127.0.0.1", port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def requests(rng: random.Random, count: int, world: World, port: int) -> list[Request]:
    """Distinct ones."""
    made: dict[bytes, Request] = {}
    for _ in range(20 * count):
        headers: list[tuple[str, str]] = []
        for name in NAMES:
            while rng.random() < 0.35:
                headers.append((name, rng.choice(VALUES)))
        if rng.random() < 0.2:
            headers.append(("x-cluster", rng.choice((*world.names, "missing"))))
        if rng.random() < 0.04:
            kind = rng.choice(("application/grpc", "application/grpc+proto", "application/grpcx"))
            headers.append(("content-type", kind))
        if rng.random() < 0.05:
            headers.append(("x-forwarded-proto", rng.choice(("https", "http"))))
        host = rng.choice(HOSTS)
        if rng.random() < 0.1 and "[" not in host:
            host = f"{host.partition(':')[0]}:{port}"
        request = Request(
            host=host,
            path=rng.choice(ASKED),
            method=rng.choice(("GET", "GET", "POST", "DELETE")),
            headers=tuple(headers),
        )
        made.setdefault(request.wire(), request)
        if len(made) == count:
            break
    return list(made.values())


# ---------------------------------------------------------------- clusters


def world(ports: dict[str, int]) -> World:
    """Clusters of every kind, over the servers that listen on `ports`."""

    def endpoint(server: str, health: str = "", weight: int = 0) -> Json:
        made: Json = {"endpoint": {"address": address("127.0.0.1", ports[server])}}
        if health:
            made["health_status"] = health
        if weight:
            made["load_balancing_weight"] = weight
        return made

    def eds(name: str, *levels: list[Json], **more: Any) -> Json:
        files[f"eds-{name}.json"] = {
            "version_info": "1",
            "resources": [
                {
                    "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
                    "cluster_name": name,
                    "endpoints": [
                        {"lb_endpoints": level, "priority": priority}
                        for priority, level in enumerate(levels)
                    ],
                }
            ],
        }
        return {
            "name": name,
            "type": "EDS",
            "connect_timeout": "2s",
            "eds_cluster_config": {
                "eds_config": {
                    "resource_api_version": "V3",
                    "path_config_source": {"path": f"@/eds-{name}.json"},
                }
            },
            **more,
        }

    files: dict[str, Json] = {}
    calm = {"common_lb_config": {"healthy_panic_threshold": {"value": 0}}}
    subset = {
        "lb_subset_config": {
            "fallback_policy": "ANY_ENDPOINT",
            "subset_selectors": [{"keys": ["version"]}],
        }
    }
    clusters = [
        static_cluster("one", ports["s0"]),
        static_cluster("three", ports["s1"], ports["s2"], ports["s3"]),
        eds("eds", [endpoint("s4"), endpoint("s5", "HEALTHY")]),
        eds("most-healthy", [endpoint("s1"), endpoint("s2"), endpoint("s3", "UNHEALTHY")]),
        eds("panic", [endpoint("s1"), endpoint("s2", "UNHEALTHY"), endpoint("s3", "DRAINING")]),
        eds("all-down", [endpoint("s1", "UNHEALTHY"), endpoint("s2", "TIMEOUT")]),
        eds("all-down-calm", [endpoint("s1", "UNHEALTHY"), endpoint("s2", "DRAINING")], **calm),
        eds(
            "calm",
            [endpoint("s1"), endpoint("s2", "UNHEALTHY"), endpoint("s3", "DRAINING")],
            **calm,
        ),
        eds("spill", [endpoint("s6", "UNHEALTHY")], [endpoint("s7")]),
        eds(
            "half-spill",
            [endpoint("s4"), endpoint("s5", "UNHEALTHY"), endpoint("s6", "UNHEALTHY")],
            [endpoint("s7")],
            [endpoint("s8")],
        ),
        eds("degraded", [endpoint("s8", "DEGRADED"), endpoint("s9")]),
        eds("only-degraded", [endpoint("s8", "DEGRADED"), endpoint("s9", "UNHEALTHY")]),
        eds("weighted", [endpoint("s0", weight=1), endpoint("s1", weight=100)]),
        eds("empty"),
        eds("subsets", [endpoint("s2"), endpoint("s3")], **subset),
        {"name": "no-endpoint", "connect_timeout": "2s", "type": "STATIC"},
        {
            "name": "dns",
            "type": "STRICT_DNS",
            "dns_lookup_family": "V4_ONLY",
            "connect_timeout": "2s",
            "load_assignment": {
                "cluster_name": "dns",
                "endpoints": [
                    {
                        "lb_endpoints": [
                            {"endpoint": {"address": address("localhost", ports["s9"])}}
                        ]
                    }
                ],
            },
        },
        {
            "name": "all-of",
            "connect_timeout": "2s",
            "lb_policy": "CLUSTER_PROVIDED",
            "cluster_type": {
                "name": "envoy.clusters.aggregate",
                "typed_config": {
                    "@type": "type.googleapis.com/"
                    "envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                    "clusters": ["empty", "all-down", "one", "eds"],
                },
            },
        },
        {
            "name": "original",
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "2s",
        },
    ]
    names = tuple(str(each["name"]) for each in clusters)
    return World(clusters, files, names)
