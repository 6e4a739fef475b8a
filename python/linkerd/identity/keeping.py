"""The mesh's authorities in the cluster: read from two Secrets and a ConfigMap, and renewed there.

Every replica does this. Each write names the version it was decided on, so of two at once one is refused, and looks
again. The one that is late finds nothing left to do.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from linkerd.identity import metrics
from linkerd.identity.events import Event, Recorder
from linkerd.identity.issuer import Issuer, without_anchors
from linkerd.identity.rotating import Authorities, Change, Place, next_change
from linkerd.k8s.client import Client, Object
from linkerd.k8s.errors import ApiError, Conflict, NotFound
from linkerd.k8s.resources import CONFIG_MAPS, SECRETS
from linkerd.kit.logging import fields
from linkerd.kit.x509 import (
    Authority,
    CertificateError,
    certificate_pem,
    key_pem,
    parse_authority,
    parse_certificates,
)

log = logging.getLogger(__name__)

ANCHOR = "linkerd-identity-anchor"
ISSUER = "linkerd-identity-issuer"
TRUST_ROOTS = "linkerd-identity-trust-roots"

_LOOK_SECONDS = 600.0
_MOST_CHANGES = 20
"""In a row. Renewing all takes five."""

_ISSUER_KEYS = (("crt.pem", "key.pem"), ("tls.crt", "tls.key"))


@dataclass(frozen=True, slots=True)
class Stored:
    """The authorities, and the objects they were read from."""

    authorities: Authorities
    objects: Mapping[Place, Object]


class Keeper:
    """Renews what is due. `took` hears of each issuer that was found or made."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        leaf_lifetime: timedelta,
        recorder: Recorder,
        took: Callable[[Issuer], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._leaf_lifetime = leaf_lifetime
        self._recorder = recorder
        self._took = took
        self._now = now

    async def run(self) -> None:
        """Looks for ever, every ten minutes."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self.renew()

    async def renew(self) -> None:
        """All that is due now. What cannot be done is logged, and tried again the next time."""
        try:
            await self._renew()
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError, CertificateError) as error:
            metrics.RENEWALS.labels("failed").inc()
            log.error("the authorities cannot be looked after", extra=fields(error=error or type(error).__name__))

    async def _renew(self) -> None:
        for _ in range(_MOST_CHANGES):
            stored = await self._load()
            metrics.ANCHOR_KEY_HELD.set(float(stored is not None))
            if stored is None:
                return
            _measure(stored.authorities)
            change = next_change(stored.authorities, self._now(), self._leaf_lifetime)
            if change is None:
                self._took(_issuer(stored.authorities))
                return
            try:
                await self._write(change, stored.objects[change.place])
            except Conflict:
                continue  # another replica was faster
            self._tell(change)

    async def _load(self) -> Stored | None:
        """None where the anchor's key is not held: it was given away, or never ours. Raises CertificateError."""
        try:
            anchor = await self._client.get(SECRETS, ANCHOR, self._namespace)
        except NotFound:
            return None
        issuer = await self._client.get(SECRETS, ISSUER, self._namespace)
        roots = await self._client.get(CONFIG_MAPS, TRUST_ROOTS, self._namespace)
        objects = {Place.ANCHOR: anchor, Place.ISSUER: issuer, Place.BUNDLE: roots}
        return Stored(parse_authorities(_texts(anchor), _texts(issuer), roots.get("data") or {}), objects)

    async def _write(self, change: Change, obj: Object) -> None:
        resource = CONFIG_MAPS if change.place is Place.BUNDLE else SECRETS
        metadata = obj["metadata"]
        patch = {
            "metadata": {"resourceVersion": metadata["resourceVersion"]},
            "data": written_data(change, obj.get("data") or {}),
        }
        await self._client.patch(resource, metadata["name"], patch, self._namespace)

    def _tell(self, change: Change) -> None:
        metrics.RENEWALS.labels("ok").inc()
        if not change.reason:
            return
        log.info("%s", change.message, extra=fields(reason=change.reason))
        event = Event(change.reason, change.message, self._namespace, "Deployment", "linkerd-identity", "apps/v1")
        self._recorder.record_nowait(event)


def parse_authorities(anchor: Mapping[str, str], issuer: Mapping[str, str], roots: Mapping[str, str]) -> Authorities:
    """From the objects' data. Raises CertificateError."""
    certificate, key = _issuer_keys(issuer)
    return Authorities(
        anchor=_authority(anchor, "ca"),
        issuer=parse_authority(issuer.get(certificate, ""), issuer.get(key, "")),
        bundle=tuple(parse_certificates(roots.get("ca-bundle.crt", ""))),
        successor=_authority(anchor, "next") if anchor.get("next.crt") else None,
        retired=parse_certificates(anchor["old.crt"])[0] if anchor.get("old.crt") else None,
        since=_parsed_time(anchor["since"]) if anchor.get("since") else None,
    )


def written_data(change: Change, data: Mapping[str, str]) -> dict[str, str | None]:
    """The data of the object at the change's place, as a merge patch. `data` is what is there."""
    after = change.after
    match change.place:
        case Place.BUNDLE:
            return {"ca-bundle.crt": certificate_pem(*after.bundle)}
        case Place.ISSUER:
            certificate, key = _issuer_keys(data)
            texts = {certificate: certificate_pem(*after.issuer.chain), key: key_pem(after.issuer.key)}
            if "ca.crt" in data:
                texts["ca.crt"] = certificate_pem(*after.bundle)
        case Place.ANCHOR:
            texts = anchor_data(after)
    return dict.fromkeys(data if change.place is Place.ANCHOR else (), None) | {
        name: base64.b64encode(text.encode()).decode() for name, text in texts.items()
    }


def anchor_data(authorities: Authorities) -> dict[str, str]:
    """What Secret `linkerd-identity-anchor` holds."""
    anchor, successor = authorities.anchor, authorities.successor
    texts = {"ca.crt": certificate_pem(anchor.certificate), "ca.key": key_pem(anchor.key)}
    if successor is not None:
        texts |= {"next.crt": certificate_pem(successor.certificate), "next.key": key_pem(successor.key)}
    if authorities.retired is not None:
        texts["old.crt"] = certificate_pem(authorities.retired)
    if authorities.since is not None:
        texts["since"] = authorities.since.isoformat()
    return texts


def _authority(data: Mapping[str, str], name: str) -> Authority:
    return parse_authority(data.get(f"{name}.crt", ""), data.get(f"{name}.key", ""))


def _issuer_keys(data: Mapping[str, Any]) -> tuple[str, str]:
    return next((pair for pair in _ISSUER_KEYS if pair[0] in data), _ISSUER_KEYS[0])


def _parsed_time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise CertificateError(f"Secret {ANCHOR}: since: {error}") from error


def _texts(secret: Object) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in (secret.get("data") or {}).items()}


def _issuer(authorities: Authorities) -> Issuer:
    return Issuer(without_anchors(authorities.issuer, list(authorities.bundle)), authorities.bundle)


def _measure(authorities: Authorities) -> None:
    end = authorities.anchor.certificate.not_valid_after_utc
    metrics.ANCHOR_TTL.set_function(lambda: (end - datetime.now(UTC)).total_seconds())
