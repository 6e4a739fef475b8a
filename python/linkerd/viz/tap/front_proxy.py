"""Follows the ConfigMap that says who the API server's front proxy is."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import replace

from linkerd.k8s.client import Client, Object
from linkerd.k8s.resources import CONFIG_MAPS
from linkerd.k8s.watching import follow
from linkerd.viz.tap.access import AUTHENTICATION_CONFIG, AUTHENTICATION_NAMESPACE, front_proxy_from
from linkerd.viz.tap.service import TapApi

log = logging.getLogger(__name__)

NewContext = Callable[[], ssl.SSLContext]
"""With the certificate that is served now. Raises OSError, ssl.SSLError."""


class FrontProxyWatch:
    """Keeps the tap API and its TLS current. `known` once they can tell the front proxy from others.

    OpenSSL only ever adds authorities to a context. So each change of them makes a new one, to which the served context
    hands over every new connection, before it looks at the client's certificate.
    """

    def __init__(
        self, client: Client, api: TapApi, served: ssl.SSLContext, new_context: NewContext, *, any_name: bool = False
    ) -> None:
        self.known = False
        self._client = client
        self._api = api
        self._new_context = new_context
        self._any_name = any_name
        served.sni_callback = self._hand_over
        served.num_tickets = 0  # a resumed session would bring along what was trusted when it began

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
                self._trust(front_proxy.ca)
        except (ValueError, OSError) as error:
            log.error("the front proxy's settings cannot be used, what was known stays: %s", error)
            return
        self._api.front_proxy = replace(front_proxy, allowed_names=()) if self._any_name else front_proxy
        self.known = True

    def renew(self) -> None:
        """The certificate that is served was replaced. Raises OSError, ssl.SSLError."""
        self._trust(self._api.front_proxy.ca)

    def _trust(self, ca: str) -> None:
        context = self._new_context()
        if ca:
            context.load_verify_locations(cadata=ca)
        self._api.context = context

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _served: ssl.SSLContext) -> None:
        if self._api.context is not None:
            connection.context = self._api.context
