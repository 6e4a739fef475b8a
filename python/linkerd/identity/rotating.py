"""When the mesh's own authorities are renewed, and how: one small change after the other. Pure, the time is given.

Only what we made is touched: an issuer that the anchor signed whose key we hold. What a change leaves behind says what
the next one is, so that a process may end between any two of them and another one may go on.

- An issuer is replaced when a third of its life is left, and when it has ended.
- An anchor gets a successor, with a key of its own, when a fifth of its life is left. The successor is trusted by all
  proxies before it signs anything: it travels with their certificates, so twice the lifetime of those is enough. Then
  it signs an issuer; and when the last certificate of the old issuer has ended, the old anchor is taken out.
- An anchor that has ended is signed again with its own key, which proxies know it by: nothing has to be restarted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from linkerd.kit.x509 import (
    Authority,
    Certificate,
    is_signed_by,
    lifetime_of,
    renewed_root,
    same_key,
    succeeding_issuer,
    succeeding_root,
)

_ISSUER_DUE = 1 / 3
_ANCHOR_DUE = 1 / 5
"""Of a lifetime, what is left when a successor is made."""


class Place(Enum):
    """What of the cluster a change is written to."""

    ANCHOR = "anchor"  # with its successor, and the one before it
    ISSUER = "issuer"
    BUNDLE = "trust roots"


@dataclass(frozen=True, slots=True)
class Authorities:
    """All that the cluster holds of them."""

    anchor: Authority
    issuer: Authority
    bundle: tuple[Certificate, ...]
    successor: Authority | None = None
    retired: Certificate | None = None
    since: datetime | None = None  # of the successor being trusted, or of the anchor being retired


@dataclass(frozen=True, slots=True)
class Change:
    place: Place
    after: Authorities
    reason: str  # of the Event; empty for a step that nobody needs to hear of
    message: str = ""


def next_change(held: Authorities, now: datetime, leaf_lifetime: timedelta) -> Change | None:
    """None when all is as it should be, or is not ours."""
    if not _is_ours(held):
        return None
    overlap = 2 * leaf_lifetime
    return next((change for rule in _RULES if (change := rule(held, now, overlap)) is not None), None)


def _is_ours(held: Authorities) -> bool:
    signers = [held.anchor, *([held.successor] if held.successor else [])]
    issuer = held.issuer.certificate
    signed = any(is_signed_by(issuer, signer.certificate) for signer in signers)
    trusted = any(same_key(known, held.anchor.certificate) for known in held.bundle)
    return signed and trusted and not held.issuer.intermediates


def _renew_anchor(held: Authorities, now: datetime, _: timedelta) -> Change | None:
    if now <= held.anchor.certificate.not_valid_after_utc:
        return None
    renewed = renewed_root(held.anchor, now=now)
    message = f"the trust anchor had ended, it is valid again until {_end(renewed.certificate)}, with the same key"
    return Change(Place.ANCHOR, replace(held, anchor=renewed), "AnchorRenewed", message)


def _trust_renewed(held: Authorities, _: datetime, __: timedelta) -> Change | None:
    anchor = held.anchor.certificate
    bundle = tuple(anchor if same_key(known, anchor) else known for known in held.bundle)
    return Change(Place.BUNDLE, replace(held, bundle=bundle), "") if bundle != held.bundle else None


def _renew_issuer(held: Authorities, now: datetime, _: timedelta) -> Change | None:
    if not _due(held.issuer.certificate, now, _ISSUER_DUE):
        return None
    signer = held.anchor
    if held.successor is not None and is_signed_by(held.issuer.certificate, held.successor.certificate):
        signer = held.successor
    return _with_issuer(held, signer, now, "IssuerRotated")


def _make_successor(held: Authorities, now: datetime, _: timedelta) -> Change | None:
    if held.successor or held.retired or not _due(held.anchor.certificate, now, _ANCHOR_DUE):
        return None
    successor = succeeding_root(held.anchor.certificate, now=now)
    message = f"the trust anchor ends at {_end(held.anchor.certificate)}, a second one is made"
    return Change(Place.ANCHOR, replace(held, successor=successor, since=None), "AnchorSuccessorMade", message)


def _trust_successor(held: Authorities, _: datetime, __: timedelta) -> Change | None:
    if held.successor is None or held.successor.certificate in held.bundle:
        return None
    after = replace(held, bundle=(*held.bundle, held.successor.certificate))
    message = "both trust anchors are trusted; proxies learn of the second one with their next certificate"
    return Change(Place.BUNDLE, after, "AnchorAdded", message)


def _note_trust(held: Authorities, now: datetime, _: timedelta) -> Change | None:
    if held.successor is None or held.since is not None:
        return None
    return Change(Place.ANCHOR, replace(held, since=now), "")


def _switch_issuer(held: Authorities, now: datetime, overlap: timedelta) -> Change | None:
    if held.successor is None or held.since is None or now < held.since + overlap:
        return None
    if is_signed_by(held.issuer.certificate, held.successor.certificate):
        return None
    return _with_issuer(held, held.successor, now, "IssuerRotated")


def _switch_anchor(held: Authorities, now: datetime, _: timedelta) -> Change | None:
    if held.successor is None or not is_signed_by(held.issuer.certificate, held.successor.certificate):
        return None
    after = replace(held, anchor=held.successor, successor=None, retired=held.anchor.certificate, since=now)
    return Change(Place.ANCHOR, after, "AnchorRotated", "the second trust anchor signs from now on")


def _distrust_retired(held: Authorities, now: datetime, overlap: timedelta) -> Change | None:
    if held.retired not in held.bundle or held.since is None or now < held.since + overlap:
        return None
    bundle = tuple(known for known in held.bundle if known != held.retired)
    message = f"the trust anchor that ends at {_end(held.retired)} is not trusted any more"
    return Change(Place.BUNDLE, replace(held, bundle=bundle), "AnchorRetired", message)


def _forget_retired(held: Authorities, _: datetime, __: timedelta) -> Change | None:
    if held.retired is None or held.retired in held.bundle:
        return None
    return Change(Place.ANCHOR, replace(held, retired=None, since=None), "")


Rule = Callable[[Authorities, datetime, timedelta], Change | None]

_RULES: tuple[Rule, ...] = (
    _renew_anchor,
    _trust_renewed,
    _renew_issuer,
    _make_successor,
    _trust_successor,
    _note_trust,
    _switch_issuer,
    _switch_anchor,
    _distrust_retired,
    _forget_retired,
)


def _due(certificate: Certificate, now: datetime, share: float) -> bool:
    return certificate.not_valid_after_utc - now < lifetime_of(certificate) * share


def _with_issuer(held: Authorities, signer: Authority, now: datetime, reason: str) -> Change:
    issuer = succeeding_issuer(held.issuer.certificate, signer, now=now)
    message = f"a new issuer is valid until {_end(issuer.certificate)}"
    return Change(Place.ISSUER, replace(held, issuer=issuer), reason, message)


def _end(certificate: Certificate) -> str:
    return certificate.not_valid_after_utc.isoformat()
