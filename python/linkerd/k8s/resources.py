"""The kinds this project speaks of, with what the URL of each needs."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of the Kubernetes API: `apps/v1` `deployments`, say."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    metadata_only: bool = False

    def metadata(self) -> Resource:
        """The same objects without spec and status (PartialObjectMetadata): for who needs names, labels and owners."""
        return replace(self, metadata_only=True)

    def accept(self, part: str = "") -> str:
        """The media type to ask for; `part` is `List` for a list."""
        if not self.metadata_only:
            return "application/json"
        return f"application/json;as=PartialObjectMetadata{part};g=meta.k8s.io;v=v1"

    @property
    def name(self) -> str:
        """As a CRD is named: `httproutes.policy.linkerd.io`; `pods` of the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path; without namespace, that of all namespaces (or of the cluster)."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if namespace and self.namespaced:
            base += f"/namespaces/{namespace}"
        base += f"/{self.plural}"
        if name:
            base += f"/{name}"
        if subresource:
            base += f"/{subresource}"
        return base


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
PODS = Resource("", "v1", "pods", "Pod")
SERVICES = Resource("", "v1", "services", "Service")
ENDPOINTS = Resource("", "v1", "endpoints", "Endpoints")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS = Resource("", "v1", "secrets", "Secret")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
EVENTS = Resource("", "v1", "events", "Event")
REPLICATION_CONTROLLERS = Resource("", "v1", "replicationcontrollers", "ReplicationController")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
JOBS = Resource("batch", "v1", "jobs", "Job")
CRON_JOBS = Resource("batch", "v1", "cronjobs", "CronJob")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
POD_DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
CLUSTER_ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDINGS = Resource(
    "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
API_SERVICES = Resource("apiregistration.k8s.io", "v1", "apiservices", "APIService", namespaced=False)
MUTATING_WEBHOOKS = Resource(
    "admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", False
)
VALIDATING_WEBHOOKS = Resource(
    "admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", False
)
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)
SELF_SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)

SERVICE_PROFILES = Resource("linkerd.io", "v1alpha2", "serviceprofiles", "ServiceProfile")
TRAFFIC_SPLITS = Resource("split.smi-spec.io", "v1alpha2", "trafficsplits", "TrafficSplit")
SERVERS = Resource("policy.linkerd.io", "v1beta3", "servers", "Server")
SERVER_AUTHORIZATIONS = Resource("policy.linkerd.io", "v1beta1", "serverauthorizations", "ServerAuthorization")
AUTHORIZATION_POLICIES = Resource("policy.linkerd.io", "v1alpha1", "authorizationpolicies", "AuthorizationPolicy")
MESH_TLS_AUTHENTICATIONS = Resource("policy.linkerd.io", "v1alpha1", "meshtlsauthentications", "MeshTLSAuthentication")
NETWORK_AUTHENTICATIONS = Resource("policy.linkerd.io", "v1alpha1", "networkauthentications", "NetworkAuthentication")
HTTP_ROUTES = Resource("policy.linkerd.io", "v1beta3", "httproutes", "HTTPRoute")
GATEWAY_HTTP_ROUTES = Resource("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
GATEWAY_GRPC_ROUTES = Resource("gateway.networking.k8s.io", "v1", "grpcroutes", "GRPCRoute")
EGRESS_NETWORKS = Resource("policy.linkerd.io", "v1alpha1", "egressnetworks", "EgressNetwork")
HTTP_LOCAL_RATE_LIMIT_POLICIES = Resource(
    "policy.linkerd.io", "v1alpha1", "httplocalratelimitpolicies", "HTTPLocalRateLimitPolicy"
)
EXTERNAL_WORKLOADS = Resource("workload.linkerd.io", "v1beta1", "externalworkloads", "ExternalWorkload")
