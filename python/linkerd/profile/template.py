"""A ServiceProfile to start from, with everything that one may say explained."""

from __future__ import annotations

from linkerd.profile.routes import Object

_TEXT = """\
### ServiceProfile for {service}.{namespace} ###
apiVersion: linkerd.io/v1alpha2
kind: ServiceProfile
metadata:
  name: {service}.{namespace}.svc.{domain}
  namespace: {namespace}
spec:
  # The first route whose condition matches a request is its route.
  routes:
  # What `linkerd viz routes` shows.
  - name: '/authors/{{id}}'
    # Required. A condition may be a method, a pathRegex or both, or
    #   all:                    (each of the conditions)
    #   - pathRegex: /authors/\\d+
    #   - method: POST
    #   any:                    (at least one of them)
    #   - method: GET
    #   - method: HEAD
    #   not:                    (not this one)
    #     pathRegex: /internal/.*
    condition:
      # Matched against the whole path, without the query.
      pathRegex: '/authors/\\d+'
      method: POST
    # Optional: what counts as a failure. Without it, statuses from 500 on, and gRPC's errors.
    # The first class that matches a response decides; conditions here are `status`, `all`, `any` and `not`.
    responseClasses:
    - condition:
        status:
          min: 500
          max: 599
      isFailure: true
    # Optional: whether a failed request may be sent again. Only what is safe to do twice.
    # isRetryable: true
    # Optional: how long a request may take, retries included.
    # timeout: 250ms
  # Optional: how much load retries may add.
  # retryBudget:
  #   Up to this share of the requests,
  #   retryRatio: 0.2
  #   and so many a second besides,
  #   minRetriesPerSecond: 10
  #   counted over this time.
  #   ttl: 10s
"""


def template_text(service: str, namespace: str, domain: str) -> str:
    return _TEXT.format(service=service, namespace=namespace, domain=domain)


def template_object(service: str, namespace: str, domain: str) -> Object:
    """The same without its comments."""
    failure = {"condition": {"status": {"max": 599, "min": 500}}, "isFailure": True}
    route = {
        "condition": {"method": "POST", "pathRegex": r"/authors/\d+"},
        "name": "/authors/{id}",
        "responseClasses": [failure],
    }
    return {
        "apiVersion": "linkerd.io/v1alpha2",
        "kind": "ServiceProfile",
        "metadata": {"name": f"{service}.{namespace}.svc.{domain}", "namespace": namespace},
        "spec": {"routes": [route]},
    }
