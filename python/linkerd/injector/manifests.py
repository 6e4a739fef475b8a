"""Manifests in, meshed (or unmeshed) manifests out: what `linkerd inject` and `linkerd uninject` do to each object."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from linkerd.injector import annotations as names
from linkerd.injector.containers import DEBUG, INIT, PROXY, volumes
from linkerd.injector.inject import DEFAULT_CONTAINER, Owner, Reason, inject
from linkerd.injector.settings import Settings

Object = dict[str, Any]

_TEMPLATES: dict[str, tuple[str, ...]] = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
"""Where each kind has its pod template."""

_OURS = ("linkerd.io/", "config.linkerd.io/", "config.alpha.linkerd.io/", "config.beta.linkerd.io/", "viz.linkerd.io/")
_KEPT = ("linkerd.io/extension",)


class Change:
    """What happened to an object, as the report says it."""

    INJECTED = "injected"
    ANNOTATED = "annotated"
    UNINJECTED = "uninjected"
    SKIPPED = "skipped"


@dataclass(slots=True)
class Outcome:
    """An object as it is printed, and its line of the report. `problem` is why it cannot be meshed."""

    document: Object
    change: str = Change.SKIPPED
    warnings: list[str] = field(default_factory=list)
    problem: Reason | None = None

    @property
    def title(self) -> str:
        """`deployment/web`"""
        return f"{self.document.get('kind', '').lower()}/{(self.document.get('metadata') or {}).get('name', '')}"


def template_of(document: Object) -> Object | None:
    """The pod template of a workload (a Pod is its own), None for other kinds."""
    path = _TEMPLATES.get(document.get("kind", ""))
    if path is None:
        return None
    node = document
    for key in path:
        node = node.get(key) or {}
    return node if node.get("spec") else None


def _with_template(document: Object, template: Object) -> Object:
    changed = copy.deepcopy(document)
    path = _TEMPLATES[document["kind"]]
    if not path:
        return {**changed, **template}
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = template
    return changed


# inject


def annotated(document: Object, wish: str, config: Mapping[str, str]) -> Outcome:
    """The wish for a proxy (`enabled` or `ingress`) and its configuration as annotations; the webhook does the rest."""
    kind = document.get("kind")
    if kind == "Namespace":
        return Outcome(_with_annotations(document, {names.INJECT: wish, **config}), Change.ANNOTATED)
    if kind == "Service":
        opaque = {key: value for key, value in config.items() if key == names.OPAQUE_PORTS}
        return Outcome(_with_annotations(document, opaque), Change.ANNOTATED) if opaque else Outcome(document)
    template = template_of(document)
    if template is None:
        return Outcome(document)
    problem = _problem(template)
    if problem is not None:
        return Outcome(document, problem=problem)
    changed = _with_annotations(template, {names.INJECT: wish, **config})
    return Outcome(_with_template(document, changed), Change.ANNOTATED)


def _problem(template: Object) -> Reason | None:
    spec, own = template["spec"], (template.get("metadata") or {}).get("annotations") or {}
    if own.get(names.INJECT) == "disabled":
        return Reason.DISABLED
    if spec.get("hostNetwork"):
        return Reason.HOST_NETWORK
    present = {c["name"] for c in [*spec["containers"], *(spec.get("initContainers") or [])]}
    return Reason.SIDECAR if present & {PROXY, INIT} else None


def meshed(document: Object, wish: str, config: Mapping[str, str], settings: Settings, created_by: str) -> Outcome:
    """The proxy itself in the pod template, as the webhook would put it there."""
    outcome = annotated(document, wish, config)
    template = template_of(outcome.document)
    if outcome.change != Change.ANNOTATED or template is None:
        return outcome
    metadata = document.get("metadata") or {}
    owner = Owner() if document["kind"] == "Pod" else Owner(document["kind"], metadata.get("name", ""))
    injection = inject(template, metadata.get("namespace") or "default", {}, owner, settings, created_by=created_by)
    if not injection.injected:
        return Outcome(document, problem=injection.reason)
    changed = _with_template(outcome.document, injection.pod)
    return Outcome(changed, Change.INJECTED, injection.warnings)


def _with_annotations(obj: Object, added: Mapping[str, str]) -> Object:
    changed = copy.deepcopy(obj)
    metadata = changed.setdefault("metadata", {})
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **added}
    return changed


# uninject


def unmeshed(document: Object) -> Outcome:
    """Without proxy, init container, volumes, and our annotations and labels."""
    if document.get("kind") in ("Namespace", "Service"):
        return Outcome(_without_ours(document))
    template = template_of(document)
    if template is None or _is_control_plane(template):
        return Outcome(document)
    bare = _without_ours(template)
    removed = _remove_containers(bare["spec"])
    return Outcome(_with_template(document, bare), Change.UNINJECTED if removed else Change.SKIPPED)


def _is_control_plane(template: Object) -> bool:
    """Whose pods are never without a proxy, and whose labels are not for us to take."""
    return "linkerd.io/control-plane-component" in ((template.get("metadata") or {}).get("labels") or {})


def _remove_containers(spec: Object) -> bool:
    before = len(spec.get("containers") or []) + len(spec.get("initContainers") or [])
    ours = {volume["name"] for volume in volumes()}
    _keep(spec, "containers", lambda item: item["name"] not in (PROXY, DEBUG))
    _keep(spec, "initContainers", lambda item: item["name"] not in (PROXY, INIT))
    _keep(spec, "volumes", lambda item: item["name"] not in ours)
    return len(spec.get("containers") or []) + len(spec.get("initContainers") or []) < before


def _keep(spec: Object, key: str, wanted: Callable[[Object], bool]) -> None:
    if key not in spec:
        return
    spec[key] = [item for item in spec[key] or [] if wanted(item)]
    if not spec[key]:
        del spec[key]


def _without_ours(obj: Object) -> Object:
    changed = copy.deepcopy(obj)
    metadata = changed.get("metadata") or {}
    if "linkerd.io/created-by" in (metadata.get("annotations") or {}):
        metadata["annotations"].pop(DEFAULT_CONTAINER, None)
    for key in ("annotations", "labels"):
        if key not in metadata:
            continue
        metadata[key] = {
            name: value for name, value in (metadata[key] or {}).items() if not name.startswith(_OURS) or name in _KEPT
        }
        if not metadata[key]:
            del metadata[key]
    return changed


def transformed(document: Any, change: Callable[[Object], Outcome]) -> list[Outcome]:
    """The outcomes of a document; of a `List`, those of its items, put back into it as the first one's document."""
    if document.get("kind") != "List":
        return [change(document)]
    items = [change(item) for item in document.get("items") or []]
    return [Outcome({**document, "items": [item.document for item in items]}), *items]
