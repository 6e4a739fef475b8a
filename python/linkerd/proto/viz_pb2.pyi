import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CheckStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OK: _ClassVar[CheckStatus]
    FAIL: _ClassVar[CheckStatus]
    ERROR: _ClassVar[CheckStatus]
OK: CheckStatus
FAIL: CheckStatus
ERROR: CheckStatus

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ApiError(_message.Message):
    __slots__ = ("error",)
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: str
    def __init__(self, error: _Optional[str] = ...) -> None: ...

class Resource(_message.Message):
    __slots__ = ("namespace", "type", "name")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    type: str
    name: str
    def __init__(self, namespace: _Optional[str] = ..., type: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class ResourceSelection(_message.Message):
    __slots__ = ("resource", "label_selector")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    resource: Resource
    label_selector: str
    def __init__(self, resource: _Optional[_Union[Resource, _Mapping]] = ..., label_selector: _Optional[str] = ...) -> None: ...

class ResourceError(_message.Message):
    __slots__ = ("resource", "error")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    resource: Resource
    error: str
    def __init__(self, resource: _Optional[_Union[Resource, _Mapping]] = ..., error: _Optional[str] = ...) -> None: ...

class HttpMethod(_message.Message):
    __slots__ = ("registered", "unregistered")
    class Registered(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        GET: _ClassVar[HttpMethod.Registered]
        POST: _ClassVar[HttpMethod.Registered]
        PUT: _ClassVar[HttpMethod.Registered]
        DELETE: _ClassVar[HttpMethod.Registered]
        PATCH: _ClassVar[HttpMethod.Registered]
        OPTIONS: _ClassVar[HttpMethod.Registered]
        CONNECT: _ClassVar[HttpMethod.Registered]
        HEAD: _ClassVar[HttpMethod.Registered]
        TRACE: _ClassVar[HttpMethod.Registered]
    GET: HttpMethod.Registered
    POST: HttpMethod.Registered
    PUT: HttpMethod.Registered
    DELETE: HttpMethod.Registered
    PATCH: HttpMethod.Registered
    OPTIONS: HttpMethod.Registered
    CONNECT: HttpMethod.Registered
    HEAD: HttpMethod.Registered
    TRACE: HttpMethod.Registered
    REGISTERED_FIELD_NUMBER: _ClassVar[int]
    UNREGISTERED_FIELD_NUMBER: _ClassVar[int]
    registered: HttpMethod.Registered
    unregistered: str
    def __init__(self, registered: _Optional[_Union[HttpMethod.Registered, str]] = ..., unregistered: _Optional[str] = ...) -> None: ...

class Scheme(_message.Message):
    __slots__ = ("registered", "unregistered")
    class Registered(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        HTTP: _ClassVar[Scheme.Registered]
        HTTPS: _ClassVar[Scheme.Registered]
    HTTP: Scheme.Registered
    HTTPS: Scheme.Registered
    REGISTERED_FIELD_NUMBER: _ClassVar[int]
    UNREGISTERED_FIELD_NUMBER: _ClassVar[int]
    registered: Scheme.Registered
    unregistered: str
    def __init__(self, registered: _Optional[_Union[Scheme.Registered, str]] = ..., unregistered: _Optional[str] = ...) -> None: ...

class Headers(_message.Message):
    __slots__ = ("headers",)
    class Header(_message.Message):
        __slots__ = ("name", "value_str", "value_bin")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VALUE_STR_FIELD_NUMBER: _ClassVar[int]
        VALUE_BIN_FIELD_NUMBER: _ClassVar[int]
        name: str
        value_str: str
        value_bin: bytes
        def __init__(self, name: _Optional[str] = ..., value_str: _Optional[str] = ..., value_bin: _Optional[bytes] = ...) -> None: ...
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    headers: _containers.RepeatedCompositeFieldContainer[Headers.Header]
    def __init__(self, headers: _Optional[_Iterable[_Union[Headers.Header, _Mapping]]] = ...) -> None: ...

class Eos(_message.Message):
    __slots__ = ("grpc_status_code", "reset_error_code")
    GRPC_STATUS_CODE_FIELD_NUMBER: _ClassVar[int]
    RESET_ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    grpc_status_code: int
    reset_error_code: int
    def __init__(self, grpc_status_code: _Optional[int] = ..., reset_error_code: _Optional[int] = ...) -> None: ...

class StatSummaryRequest(_message.Message):
    __slots__ = ("selector", "time_window", "none", "to_resource", "from_resource", "skip_stats", "tcp_stats")
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    TIME_WINDOW_FIELD_NUMBER: _ClassVar[int]
    NONE_FIELD_NUMBER: _ClassVar[int]
    TO_RESOURCE_FIELD_NUMBER: _ClassVar[int]
    FROM_RESOURCE_FIELD_NUMBER: _ClassVar[int]
    SKIP_STATS_FIELD_NUMBER: _ClassVar[int]
    TCP_STATS_FIELD_NUMBER: _ClassVar[int]
    selector: ResourceSelection
    time_window: str
    none: Empty
    to_resource: Resource
    from_resource: Resource
    skip_stats: bool
    tcp_stats: bool
    def __init__(self, selector: _Optional[_Union[ResourceSelection, _Mapping]] = ..., time_window: _Optional[str] = ..., none: _Optional[_Union[Empty, _Mapping]] = ..., to_resource: _Optional[_Union[Resource, _Mapping]] = ..., from_resource: _Optional[_Union[Resource, _Mapping]] = ..., skip_stats: _Optional[bool] = ..., tcp_stats: _Optional[bool] = ...) -> None: ...

class StatSummaryResponse(_message.Message):
    __slots__ = ("ok", "error")
    class Ok(_message.Message):
        __slots__ = ("stat_tables",)
        STAT_TABLES_FIELD_NUMBER: _ClassVar[int]
        stat_tables: _containers.RepeatedCompositeFieldContainer[StatTable]
        def __init__(self, stat_tables: _Optional[_Iterable[_Union[StatTable, _Mapping]]] = ...) -> None: ...
    OK_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ok: StatSummaryResponse.Ok
    error: ResourceError
    def __init__(self, ok: _Optional[_Union[StatSummaryResponse.Ok, _Mapping]] = ..., error: _Optional[_Union[ResourceError, _Mapping]] = ...) -> None: ...

class StatTable(_message.Message):
    __slots__ = ("pod_group",)
    class PodGroup(_message.Message):
        __slots__ = ("rows",)
        class Row(_message.Message):
            __slots__ = ("resource", "time_window", "meshed_pod_count", "running_pod_count", "stats", "failed_pod_count", "errors_by_pod", "tcp_stats", "status", "ts_stats", "srv_stats")
            class ErrorsByPodEntry(_message.Message):
                __slots__ = ("key", "value")
                KEY_FIELD_NUMBER: _ClassVar[int]
                VALUE_FIELD_NUMBER: _ClassVar[int]
                key: str
                value: PodErrors
                def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[PodErrors, _Mapping]] = ...) -> None: ...
            RESOURCE_FIELD_NUMBER: _ClassVar[int]
            TIME_WINDOW_FIELD_NUMBER: _ClassVar[int]
            MESHED_POD_COUNT_FIELD_NUMBER: _ClassVar[int]
            RUNNING_POD_COUNT_FIELD_NUMBER: _ClassVar[int]
            STATS_FIELD_NUMBER: _ClassVar[int]
            FAILED_POD_COUNT_FIELD_NUMBER: _ClassVar[int]
            ERRORS_BY_POD_FIELD_NUMBER: _ClassVar[int]
            TCP_STATS_FIELD_NUMBER: _ClassVar[int]
            STATUS_FIELD_NUMBER: _ClassVar[int]
            TS_STATS_FIELD_NUMBER: _ClassVar[int]
            SRV_STATS_FIELD_NUMBER: _ClassVar[int]
            resource: Resource
            time_window: str
            meshed_pod_count: int
            running_pod_count: int
            stats: BasicStats
            failed_pod_count: int
            errors_by_pod: _containers.MessageMap[str, PodErrors]
            tcp_stats: TcpStats
            status: str
            ts_stats: TrafficSplitStats
            srv_stats: ServerStats
            def __init__(self, resource: _Optional[_Union[Resource, _Mapping]] = ..., time_window: _Optional[str] = ..., meshed_pod_count: _Optional[int] = ..., running_pod_count: _Optional[int] = ..., stats: _Optional[_Union[BasicStats, _Mapping]] = ..., failed_pod_count: _Optional[int] = ..., errors_by_pod: _Optional[_Mapping[str, PodErrors]] = ..., tcp_stats: _Optional[_Union[TcpStats, _Mapping]] = ..., status: _Optional[str] = ..., ts_stats: _Optional[_Union[TrafficSplitStats, _Mapping]] = ..., srv_stats: _Optional[_Union[ServerStats, _Mapping]] = ...) -> None: ...
        ROWS_FIELD_NUMBER: _ClassVar[int]
        rows: _containers.RepeatedCompositeFieldContainer[StatTable.PodGroup.Row]
        def __init__(self, rows: _Optional[_Iterable[_Union[StatTable.PodGroup.Row, _Mapping]]] = ...) -> None: ...
    POD_GROUP_FIELD_NUMBER: _ClassVar[int]
    pod_group: StatTable.PodGroup
    def __init__(self, pod_group: _Optional[_Union[StatTable.PodGroup, _Mapping]] = ...) -> None: ...

class BasicStats(_message.Message):
    __slots__ = ("success_count", "failure_count", "latency_ms_p50", "latency_ms_p95", "latency_ms_p99", "actual_success_count", "actual_failure_count")
    SUCCESS_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_P50_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_P95_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_P99_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_SUCCESS_COUNT_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_FAILURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    success_count: int
    failure_count: int
    latency_ms_p50: int
    latency_ms_p95: int
    latency_ms_p99: int
    actual_success_count: int
    actual_failure_count: int
    def __init__(self, success_count: _Optional[int] = ..., failure_count: _Optional[int] = ..., latency_ms_p50: _Optional[int] = ..., latency_ms_p95: _Optional[int] = ..., latency_ms_p99: _Optional[int] = ..., actual_success_count: _Optional[int] = ..., actual_failure_count: _Optional[int] = ...) -> None: ...

class TcpStats(_message.Message):
    __slots__ = ("open_connections", "read_bytes_total", "write_bytes_total")
    OPEN_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    READ_BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    WRITE_BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    open_connections: int
    read_bytes_total: int
    write_bytes_total: int
    def __init__(self, open_connections: _Optional[int] = ..., read_bytes_total: _Optional[int] = ..., write_bytes_total: _Optional[int] = ...) -> None: ...

class TrafficSplitStats(_message.Message):
    __slots__ = ("apex", "leaf", "weight")
    APEX_FIELD_NUMBER: _ClassVar[int]
    LEAF_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    apex: str
    leaf: str
    weight: str
    def __init__(self, apex: _Optional[str] = ..., leaf: _Optional[str] = ..., weight: _Optional[str] = ...) -> None: ...

class ServerStats(_message.Message):
    __slots__ = ("allowed_count", "denied_count", "srv", "route", "authz")
    ALLOWED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DENIED_COUNT_FIELD_NUMBER: _ClassVar[int]
    SRV_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    AUTHZ_FIELD_NUMBER: _ClassVar[int]
    allowed_count: int
    denied_count: int
    srv: Resource
    route: Resource
    authz: Resource
    def __init__(self, allowed_count: _Optional[int] = ..., denied_count: _Optional[int] = ..., srv: _Optional[_Union[Resource, _Mapping]] = ..., route: _Optional[_Union[Resource, _Mapping]] = ..., authz: _Optional[_Union[Resource, _Mapping]] = ...) -> None: ...

class PodErrors(_message.Message):
    __slots__ = ("errors",)
    class PodError(_message.Message):
        __slots__ = ("container",)
        class ContainerError(_message.Message):
            __slots__ = ("message", "container", "image", "reason")
            MESSAGE_FIELD_NUMBER: _ClassVar[int]
            CONTAINER_FIELD_NUMBER: _ClassVar[int]
            IMAGE_FIELD_NUMBER: _ClassVar[int]
            REASON_FIELD_NUMBER: _ClassVar[int]
            message: str
            container: str
            image: str
            reason: str
            def __init__(self, message: _Optional[str] = ..., container: _Optional[str] = ..., image: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
        CONTAINER_FIELD_NUMBER: _ClassVar[int]
        container: PodErrors.PodError.ContainerError
        def __init__(self, container: _Optional[_Union[PodErrors.PodError.ContainerError, _Mapping]] = ...) -> None: ...
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    errors: _containers.RepeatedCompositeFieldContainer[PodErrors.PodError]
    def __init__(self, errors: _Optional[_Iterable[_Union[PodErrors.PodError, _Mapping]]] = ...) -> None: ...

class EdgesRequest(_message.Message):
    __slots__ = ("selector",)
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    selector: ResourceSelection
    def __init__(self, selector: _Optional[_Union[ResourceSelection, _Mapping]] = ...) -> None: ...

class EdgesResponse(_message.Message):
    __slots__ = ("ok", "error")
    class Ok(_message.Message):
        __slots__ = ("edges",)
        EDGES_FIELD_NUMBER: _ClassVar[int]
        edges: _containers.RepeatedCompositeFieldContainer[Edge]
        def __init__(self, edges: _Optional[_Iterable[_Union[Edge, _Mapping]]] = ...) -> None: ...
    OK_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ok: EdgesResponse.Ok
    error: ResourceError
    def __init__(self, ok: _Optional[_Union[EdgesResponse.Ok, _Mapping]] = ..., error: _Optional[_Union[ResourceError, _Mapping]] = ...) -> None: ...

class Edge(_message.Message):
    __slots__ = ("src", "dst", "client_id", "server_id", "no_identity_msg")
    SRC_FIELD_NUMBER: _ClassVar[int]
    DST_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    NO_IDENTITY_MSG_FIELD_NUMBER: _ClassVar[int]
    src: Resource
    dst: Resource
    client_id: str
    server_id: str
    no_identity_msg: str
    def __init__(self, src: _Optional[_Union[Resource, _Mapping]] = ..., dst: _Optional[_Union[Resource, _Mapping]] = ..., client_id: _Optional[str] = ..., server_id: _Optional[str] = ..., no_identity_msg: _Optional[str] = ...) -> None: ...

class TopRoutesRequest(_message.Message):
    __slots__ = ("selector", "time_window", "none", "to_resource")
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    TIME_WINDOW_FIELD_NUMBER: _ClassVar[int]
    NONE_FIELD_NUMBER: _ClassVar[int]
    TO_RESOURCE_FIELD_NUMBER: _ClassVar[int]
    selector: ResourceSelection
    time_window: str
    none: Empty
    to_resource: Resource
    def __init__(self, selector: _Optional[_Union[ResourceSelection, _Mapping]] = ..., time_window: _Optional[str] = ..., none: _Optional[_Union[Empty, _Mapping]] = ..., to_resource: _Optional[_Union[Resource, _Mapping]] = ...) -> None: ...

class TopRoutesResponse(_message.Message):
    __slots__ = ("error", "ok")
    class Ok(_message.Message):
        __slots__ = ("routes",)
        ROUTES_FIELD_NUMBER: _ClassVar[int]
        routes: _containers.RepeatedCompositeFieldContainer[RouteTable]
        def __init__(self, routes: _Optional[_Iterable[_Union[RouteTable, _Mapping]]] = ...) -> None: ...
    ERROR_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    error: ResourceError
    ok: TopRoutesResponse.Ok
    def __init__(self, error: _Optional[_Union[ResourceError, _Mapping]] = ..., ok: _Optional[_Union[TopRoutesResponse.Ok, _Mapping]] = ...) -> None: ...

class RouteTable(_message.Message):
    __slots__ = ("rows", "resource")
    class Row(_message.Message):
        __slots__ = ("route", "time_window", "stats", "authority")
        ROUTE_FIELD_NUMBER: _ClassVar[int]
        TIME_WINDOW_FIELD_NUMBER: _ClassVar[int]
        STATS_FIELD_NUMBER: _ClassVar[int]
        AUTHORITY_FIELD_NUMBER: _ClassVar[int]
        route: str
        time_window: str
        stats: BasicStats
        authority: str
        def __init__(self, route: _Optional[str] = ..., time_window: _Optional[str] = ..., stats: _Optional[_Union[BasicStats, _Mapping]] = ..., authority: _Optional[str] = ...) -> None: ...
    ROWS_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[RouteTable.Row]
    resource: str
    def __init__(self, rows: _Optional[_Iterable[_Union[RouteTable.Row, _Mapping]]] = ..., resource: _Optional[str] = ...) -> None: ...

class AuthzRequest(_message.Message):
    __slots__ = ("resource", "time_window")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    TIME_WINDOW_FIELD_NUMBER: _ClassVar[int]
    resource: ResourceSelection
    time_window: str
    def __init__(self, resource: _Optional[_Union[ResourceSelection, _Mapping]] = ..., time_window: _Optional[str] = ...) -> None: ...

class AuthzResponse(_message.Message):
    __slots__ = ("ok", "error")
    class Ok(_message.Message):
        __slots__ = ("stat_table",)
        STAT_TABLE_FIELD_NUMBER: _ClassVar[int]
        stat_table: StatTable
        def __init__(self, stat_table: _Optional[_Union[StatTable, _Mapping]] = ...) -> None: ...
    OK_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ok: AuthzResponse.Ok
    error: ResourceError
    def __init__(self, ok: _Optional[_Union[AuthzResponse.Ok, _Mapping]] = ..., error: _Optional[_Union[ResourceError, _Mapping]] = ...) -> None: ...

class GatewaysRequest(_message.Message):
    __slots__ = ("remote_cluster_name", "gateway_namespace", "time_window")
    REMOTE_CLUSTER_NAME_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TIME_WINDOW_FIELD_NUMBER: _ClassVar[int]
    remote_cluster_name: str
    gateway_namespace: str
    time_window: str
    def __init__(self, remote_cluster_name: _Optional[str] = ..., gateway_namespace: _Optional[str] = ..., time_window: _Optional[str] = ...) -> None: ...

class GatewaysTable(_message.Message):
    __slots__ = ("rows",)
    class Row(_message.Message):
        __slots__ = ("namespace", "name", "cluster_name", "paired_services", "alive", "latency_ms_p50", "latency_ms_p95", "latency_ms_p99")
        NAMESPACE_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        CLUSTER_NAME_FIELD_NUMBER: _ClassVar[int]
        PAIRED_SERVICES_FIELD_NUMBER: _ClassVar[int]
        ALIVE_FIELD_NUMBER: _ClassVar[int]
        LATENCY_MS_P50_FIELD_NUMBER: _ClassVar[int]
        LATENCY_MS_P95_FIELD_NUMBER: _ClassVar[int]
        LATENCY_MS_P99_FIELD_NUMBER: _ClassVar[int]
        namespace: str
        name: str
        cluster_name: str
        paired_services: int
        alive: bool
        latency_ms_p50: int
        latency_ms_p95: int
        latency_ms_p99: int
        def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., cluster_name: _Optional[str] = ..., paired_services: _Optional[int] = ..., alive: _Optional[bool] = ..., latency_ms_p50: _Optional[int] = ..., latency_ms_p95: _Optional[int] = ..., latency_ms_p99: _Optional[int] = ...) -> None: ...
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[GatewaysTable.Row]
    def __init__(self, rows: _Optional[_Iterable[_Union[GatewaysTable.Row, _Mapping]]] = ...) -> None: ...

class GatewaysResponse(_message.Message):
    __slots__ = ("ok", "error")
    class Ok(_message.Message):
        __slots__ = ("gateways_table",)
        GATEWAYS_TABLE_FIELD_NUMBER: _ClassVar[int]
        gateways_table: GatewaysTable
        def __init__(self, gateways_table: _Optional[_Union[GatewaysTable, _Mapping]] = ...) -> None: ...
    OK_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ok: GatewaysResponse.Ok
    error: ResourceError
    def __init__(self, ok: _Optional[_Union[GatewaysResponse.Ok, _Mapping]] = ..., error: _Optional[_Union[ResourceError, _Mapping]] = ...) -> None: ...

class ListPodsRequest(_message.Message):
    __slots__ = ("selector",)
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    selector: ResourceSelection
    def __init__(self, selector: _Optional[_Union[ResourceSelection, _Mapping]] = ...) -> None: ...

class ListPodsResponse(_message.Message):
    __slots__ = ("pods",)
    PODS_FIELD_NUMBER: _ClassVar[int]
    pods: _containers.RepeatedCompositeFieldContainer[Pod]
    def __init__(self, pods: _Optional[_Iterable[_Union[Pod, _Mapping]]] = ...) -> None: ...

class Pod(_message.Message):
    __slots__ = ("name", "podIP", "deployment", "replica_set", "replication_controller", "stateful_set", "daemon_set", "job", "status", "added", "sinceLastReport", "controllerNamespace", "controlPlane", "uptime", "proxyReady", "proxyVersion", "resourceVersion")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PODIP_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    REPLICA_SET_FIELD_NUMBER: _ClassVar[int]
    REPLICATION_CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    STATEFUL_SET_FIELD_NUMBER: _ClassVar[int]
    DAEMON_SET_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    SINCELASTREPORT_FIELD_NUMBER: _ClassVar[int]
    CONTROLLERNAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CONTROLPLANE_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    PROXYREADY_FIELD_NUMBER: _ClassVar[int]
    PROXYVERSION_FIELD_NUMBER: _ClassVar[int]
    RESOURCEVERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    podIP: str
    deployment: str
    replica_set: str
    replication_controller: str
    stateful_set: str
    daemon_set: str
    job: str
    status: str
    added: bool
    sinceLastReport: _duration_pb2.Duration
    controllerNamespace: str
    controlPlane: bool
    uptime: _duration_pb2.Duration
    proxyReady: bool
    proxyVersion: str
    resourceVersion: str
    def __init__(self, name: _Optional[str] = ..., podIP: _Optional[str] = ..., deployment: _Optional[str] = ..., replica_set: _Optional[str] = ..., replication_controller: _Optional[str] = ..., stateful_set: _Optional[str] = ..., daemon_set: _Optional[str] = ..., job: _Optional[str] = ..., status: _Optional[str] = ..., added: _Optional[bool] = ..., sinceLastReport: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., controllerNamespace: _Optional[str] = ..., controlPlane: _Optional[bool] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., proxyReady: _Optional[bool] = ..., proxyVersion: _Optional[str] = ..., resourceVersion: _Optional[str] = ...) -> None: ...

class ListServicesRequest(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    def __init__(self, namespace: _Optional[str] = ...) -> None: ...

class ListServicesResponse(_message.Message):
    __slots__ = ("services",)
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    services: _containers.RepeatedCompositeFieldContainer[Service]
    def __init__(self, services: _Optional[_Iterable[_Union[Service, _Mapping]]] = ...) -> None: ...

class Service(_message.Message):
    __slots__ = ("name", "namespace")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    name: str
    namespace: str
    def __init__(self, name: _Optional[str] = ..., namespace: _Optional[str] = ...) -> None: ...

class SelfCheckRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckResult(_message.Message):
    __slots__ = ("SubsystemName", "CheckDescription", "Status", "FriendlyMessageToUser")
    SUBSYSTEMNAME_FIELD_NUMBER: _ClassVar[int]
    CHECKDESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    FRIENDLYMESSAGETOUSER_FIELD_NUMBER: _ClassVar[int]
    SubsystemName: str
    CheckDescription: str
    Status: CheckStatus
    FriendlyMessageToUser: str
    def __init__(self, SubsystemName: _Optional[str] = ..., CheckDescription: _Optional[str] = ..., Status: _Optional[_Union[CheckStatus, str]] = ..., FriendlyMessageToUser: _Optional[str] = ...) -> None: ...

class SelfCheckResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[CheckResult]
    def __init__(self, results: _Optional[_Iterable[_Union[CheckResult, _Mapping]]] = ...) -> None: ...
