"""Who is in the shop and who calls whom: one table, read by the services, the load generator and the manifests."""

from __future__ import annotations

from dataclasses import dataclass, field

PORT = 8080
CACHE_PORT = 6379


@dataclass(frozen=True, slots=True)
class Call:
    """One request to another service while answering one's own."""

    method: str
    host: str
    path: str

    @property
    def url(self) -> str:
        return f"http://{self.host}:{PORT}{self.path}"


@dataclass(frozen=True, slots=True)
class Route:
    """`path` is aiohttp's (`/users/{id}`). Work takes `latency_ms`, give or take a half; `slow_share` of the requests
    take ten times as long. `calls` are made one after the other."""

    method: str
    path: str
    latency_ms: float = 2.0
    slow_share: float = 0.01
    error_share: float = 0.0
    calls: tuple[Call, ...] = ()
    cache_key: str = ""
    ledger: bool = False
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """A deployment with its Service. `kind`: `http`, `grpc` (the ledger), `cache` (plain TCP), `load` (calls only)."""

    name: str
    namespace: str = "production"
    kind: str = "http"
    replicas: int = 1
    routes: tuple[Route, ...] = ()
    meshed: bool = True
    variant_of: str = ""
    rate: float = 0.0
    targets: tuple[Call, ...] = field(default=())

    @property
    def port(self) -> int:
        return CACHE_PORT if self.kind == "cache" else PORT


def _get(host: str, path: str) -> Call:
    return Call("GET", host, path)


def _post(host: str, path: str) -> Call:
    return Call("POST", host, path)


_API_ROUTES = (
    Route("GET", "/api/v1/users", 3, calls=(_get("user-service", "/users"),), summary="List users"),
    Route("POST", "/api/v1/users", 12, error_share=0.005, summary="Create a user"),
    Route("GET", "/api/v1/users/{id}", 3, calls=(_get("user-service", "/users/7"),), summary="Read one user"),
    Route("GET", "/api/v1/orders", 6, calls=(_get("order-service", "/orders"),), summary="List orders"),
    Route("POST", "/api/v1/orders", 8, calls=(_post("order-service", "/orders"),), summary="Place an order"),
    Route("GET", "/api/v1/orders/{id}", 10, error_share=0.01, summary="Read one order"),
)

SERVICES: tuple[Service, ...] = (
    Service(
        "frontend",
        routes=(
            Route("GET", "/", 2, calls=(_get("api-gateway", "/api/v1/users"), _get("backend", "/api/items"))),
            Route("GET", "/orders", 2, calls=(_get("api-gateway", "/api/v1/orders/42"),)),
            Route("POST", "/checkout", 3, calls=(_post("api-gateway", "/api/v1/orders"),)),
            Route("GET", "/reports", 2, calls=(_get("slow-service", "/api/reports"),)),
            Route("GET", "/data", 2, calls=(_get("backend-service", "/api/data"),)),
        ),
    ),
    Service(
        "api-gateway",
        routes=(
            Route("GET", "/api/v1/users", 1, calls=(_get("api-service", "/api/v1/users"),)),
            Route("POST", "/api/v1/users", 1, calls=(_post("api-service", "/api/v1/users"),)),
            Route("GET", "/api/v1/users/{id}", 1, calls=(_get("api-service", "/api/v1/users/7"),)),
            Route("GET", "/api/v1/orders/{id}", 1, calls=(_get("api-service", "/api/v1/orders/42"),)),
            Route("POST", "/api/v1/orders", 1, calls=(_post("api-service", "/api/v1/orders"),)),
        ),
    ),
    Service("api-service", routes=_API_ROUTES),
    Service("api-service-stable", routes=_API_ROUTES, variant_of="api-service"),
    Service("api-service-canary", routes=_API_ROUTES, variant_of="api-service"),
    Service(
        "user-service",
        replicas=3,
        routes=(
            Route("GET", "/users", 2, cache_key="users", calls=(_get("database", "/query/users"),)),
            Route("GET", "/users/{id}", 1, cache_key="user-7"),
        ),
    ),
    Service(
        "order-service",
        replicas=2,
        routes=(
            Route("GET", "/orders", 8, error_share=0.01, calls=(_get("database", "/query/orders"),)),
            Route(
                "POST",
                "/orders",
                10,
                error_share=0.01,
                calls=(
                    _get("database", "/query/stock"),
                    _post("payment-service", "/payments"),
                    _get("external-api", "/rates"),
                    _post("billing.legacy", "/invoices"),
                ),
            ),
        ),
    ),
    Service("payment-service", routes=(Route("POST", "/payments", 6, ledger=True), Route("GET", "/payments", 4))),
    Service("ledger-service", kind="grpc"),
    Service(
        "backend",
        routes=(Route("GET", "/api/items", 4), Route("GET", "/api/items/{id}", 2), Route("POST", "/api/items", 6)),
    ),
    Service(
        "backend-service",
        replicas=2,
        routes=(Route("GET", "/api/data", 3, slow_share=0.02), Route("POST", "/api/process", 15)),
    ),
    Service("slow-service", routes=(Route("GET", "/api/reports", 350), Route("GET", "/api/reports/{id}", 500))),
    Service("target-service", routes=(Route("GET", "/api/target", 2),)),
    Service(
        "database",
        routes=(Route("GET", "/query/{table}", 3, slow_share=0.03), Route("POST", "/query/{table}", 5)),
    ),
    Service("external-api", routes=(Route("GET", "/rates", 25, slow_share=0.05),)),
    Service("cache", kind="cache"),
    Service(
        "load-generator",
        kind="load",
        rate=10,
        targets=(
            _get("frontend", "/"),
            _get("frontend", "/orders"),
            _get("frontend", "/data"),
            _get("frontend", "/"),
            _post("frontend", "/checkout"),
            _get("frontend", "/orders"),
            _get("frontend", "/data"),
            _get("frontend", "/reports"),
        ),
    ),
    Service(
        "batch-processor",
        kind="load",
        rate=2,
        targets=(_post("backend-service", "/api/process"), _get("target-service", "/api/target")),
    ),
    Service(
        "smoke-tests",
        namespace="staging",
        kind="load",
        rate=1,
        targets=(_get("backend.production", "/api/items"), _get("backend.production", "/api/items/1")),
    ),
    Service(
        "web",
        namespace="frontend",
        kind="load",
        rate=2,
        targets=(
            _get("api-gateway.production", "/api/v1/users"),
            _get("database.production", "/query/sessions"),
            _get("order-service.production", "/orders"),
        ),
    ),
    Service("billing", namespace="legacy", meshed=False, routes=(Route("POST", "/invoices", 5),)),
    Service(
        "nightly-export",
        namespace="legacy",
        kind="load",
        meshed=False,
        rate=1,
        targets=(_get("payment-service.production", "/payments"),),
    ),
)

BY_NAME = {service.name: service for service in SERVICES}
NAMESPACES = tuple(dict.fromkeys(service.namespace for service in SERVICES))
