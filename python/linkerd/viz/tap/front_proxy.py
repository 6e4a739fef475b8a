"""Follows the ConfigMap that says who the API server's front proxy is."""

from __future__ import annotations

import logging
import ssl
from dataclasses import replace

from linkerd.k8s.client import Client, Object
from linkerd.k8s.resources import CONFIG_MAPS
from linkerd.k8s.watching import follow
from linkerd.viz.tap.access import AUTHENTICATION_CONFIG, AUTHENTICATION_NAMESPACE, front_proxy_from
from linkerd.viz.tap.service import TapApi

log = logging.getLogger(__name__)


class FrontProxyWatch:
    """Keeps the tap API and its TLS current. `known` once they can tell the front proxy from others.

    An authority that is taken out of the ConfigMap is trusted until the process restarts: OpenSSL only ever adds.
    """

    def __init__(self, client: Client, api: TapApi, context: ssl.SSLContext, *, any_name: bool = False) -> None:
        self.known = False
        self._client = client
        self._api = api
        self._context = context
        self._any_name = any_name

    async def follow(self) -> None:
        """For ever; cancel to end."""
        selector = f"metadata.name={AUTHENTICATION_CONFIG}"
        async for change in follow(self._client, CONFIG_MAPS, AUTHENTICATION_NAMESPACE, field_selector=selector):
            if change.type == "applied":
                self.take(change.object)

    def take(self, config_map: Object) -> None:
        try:
            front_proxy = front_proxy_from(config_map)
            if front_proxy.ca != self._api.front_proxy.ca:
                self._context.load_verify_locations(cadata=front_proxy.ca)
        except (ValueError, ssl.SSLError) as error:
            log.error("the front proxy's settings cannot be used, what was known stays: %s", error)
            return
        self._api.front_proxy = replace(front_proxy, allowed_names=()) if self._any_name else front_proxy
        self.known = True
