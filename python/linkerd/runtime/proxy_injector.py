"""The proxy injector's process: the webhook on 8443, its configuration from mounted files, namespaces from a watch."""

from __future__ import annotations

import argparse
import logging
import ssl
from collections.abc import Mapping
from pathlib import Path

import yaml

from linkerd.injector.owners import owner_of
from linkerd.injector.reconciling import Reconciler
from linkerd.injector.service import EventRecorder, Webhook
from linkerd.injector.settings import Settings, settings_from_values
from linkerd.k8s.client import Client
from linkerd.k8s.config import ConfigError
from linkerd.k8s.errors import NotFound
from linkerd.k8s.resources import NAMESPACES
from linkerd.k8s.watching import Reflector
from linkerd.kit import tasks, tls
from linkerd.kit.admin import Readiness, serve_admin, serve_http
from linkerd.kit.files import changes
from linkerd.runtime import flags

log = logging.getLogger(__name__)

_UNUSABLE = (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError)


class MountedSettings:
    """The settings of mounted files, taken up again when one is replaced; a damaged one leaves the last good."""

    def __init__(self, values_file: Path, anchors_file: Path, namespace: str) -> None:
        self._files = (values_file, anchors_file)
        self._namespace = namespace
        self.current = self._parse()

    def _parse(self) -> Settings:
        values, anchors = (file.read_text() for file in self._files)
        return settings_from_values(yaml.safe_load(values) or {}, self._namespace, anchors)

    async def keep_current(self) -> None:
        """For ever; cancel to end."""
        async for changed in changes(self._files):
            if not changed:
                continue
            try:
                self.current = self._parse()
                log.info("the configuration was replaced")
            except _UNUSABLE as error:
                log.error("the new configuration cannot be used, the last one stays: %s", error)


class NamespaceAnnotations:
    """From the watch; a namespace younger than its event is asked for."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.reflector = Reflector(client, NAMESPACES)

    async def __call__(self, name: str) -> Mapping[str, str]:
        found = self.reflector.objects.get(("", name))
        if found is None:
            try:
                found = await self._client.get(NAMESPACES, name)
            except NotFound:
                return {}
        return found["metadata"].get("annotations") or {}


def main(argv: list[str]) -> int:
    parser = flags.parser("proxy-injector", admin_addr=":9995")
    parser.add_argument("--addr", default=":8443", help="address of the webhook")
    parser.add_argument("--linkerd-namespace", default="linkerd")
    parser.add_argument("--config-file", type=Path, default=Path("/var/run/linkerd/config/values"))
    parser.add_argument(
        "--trust-anchors-file", type=Path, default=Path("/var/run/linkerd/identity/trust-roots/ca-bundle.crt")
    )
    parser.add_argument("--tls-dir", type=Path, default=tls.DIRECTORY)
    values = flags.parse(parser, argv)
    try:
        settings = MountedSettings(values.config_file, values.trust_anchors_file, values.linkerd_namespace)
        context = tls.server_context(values.tls_dir)
        client = Client.load(values.kubeconfig, user_agent="linkerd-proxy-injector")
    except (*_UNUSABLE, ConfigError) as error:
        return tasks.fail(f"cannot start with this configuration: {error}")
    return tasks.run(_serve(client, settings, context, values))


async def _serve(
    client: Client, settings: MountedSettings, context: ssl.SSLContext, values: argparse.Namespace
) -> None:
    async with client:
        namespaces = NamespaceAnnotations(client)
        events = EventRecorder(client)
        webhook = Webhook(
            lambda: settings.current, namespaces, lambda pod, namespace: owner_of(pod, namespace, client), events
        )
        readiness = Readiness(namespaces=namespaces.reflector.synced.is_set)
        async with serve_admin(values.admin_addr, readiness), serve_http(webhook.app(), values.addr, context):
            log.info("serving on %s", values.addr)
            reconciler = Reconciler(
                client, namespaces.reflector.objects, events, lambda: settings.current.excluded_namespaces
            )
            await tasks.run_until_terminated(
                namespaces.reflector.run(),
                reconciler.follow(),
                reconciler.report(),
                events.run(),
                settings.keep_current(),
                tls.keep_current(context, values.tls_dir),
            )
