"""The process of identity: flags → issuer, reviewer, service → servers."""

from __future__ import annotations

import argparse
from datetime import timedelta
from pathlib import Path

from linkerd.core.identities import TrustDomain
from linkerd.identity.certifying import Validity
from linkerd.identity.events import Recorder
from linkerd.identity.issuer import IssuerFiles
from linkerd.identity.keeping import Keeper
from linkerd.identity.service import CurrentIssuer, IdentityService
from linkerd.identity.tokens import TokenReviewer
from linkerd.k8s.client import Client
from linkerd.k8s.config import ConfigError
from linkerd.kit.admin import Readiness, serve_admin
from linkerd.kit.rpc import serve_rpc
from linkerd.kit.tasks import fail, run, run_until_terminated
from linkerd.runtime import flags


def main(argv: list[str]) -> int:
    values = flags.parse(_parser(), argv)
    try:
        client = Client.load(values.kubeconfig, user_agent="linkerd-identity")
    except ConfigError as error:
        return fail(str(error))
    return run(_serve(values, client))


def _parser() -> argparse.ArgumentParser:
    parser = flags.parser("identity", admin_addr=":9990")
    parser.add_argument("--addr", default=":8080")
    parser.add_argument("--controller-namespace", default="linkerd")
    parser.add_argument("--identity-trust-domain", default="cluster.local")
    parser.add_argument("--identity-issuance-lifetime", type=flags.duration, default=24 * 3600.0)
    parser.add_argument("--identity-clock-skew-allowance", type=flags.duration, default=20.0)
    parser.add_argument("--identity-scheme", default="linkerd.io/tls", help="type of the issuer's Secret")
    parser.add_argument("--identity-issuer-dir", type=Path, default=Path("/var/run/linkerd/identity/issuer"))
    parser.add_argument(
        "--identity-trust-anchors", type=Path, default=Path("/var/run/linkerd/identity/trust-roots/ca-bundle.crt")
    )
    parser.add_argument("--identity-renewal", type=flags.boolean, default=False,
                        help="renew issuer and anchor where the anchor's key is in the cluster")  # fmt: skip
    return parser


async def _serve(values: argparse.Namespace, client: Client) -> None:
    validity = Validity(
        timedelta(seconds=values.identity_issuance_lifetime), timedelta(seconds=values.identity_clock_skew_allowance)
    )
    files = IssuerFiles(values.identity_issuer_dir, values.identity_trust_anchors, values.identity_scheme)
    async with client:
        recorder = Recorder(client)
        issuer = CurrentIssuer(files, recorder, values.controller_namespace)
        issuer.reload()
        reviewer = TokenReviewer(client, TrustDomain(values.controller_namespace, values.identity_trust_domain))
        service = IdentityService(issuer, reviewer, recorder, validity)
        keeper = Keeper(client, values.controller_namespace, validity.lifetime, recorder, issuer.take)
        tasks = [issuer.run(), recorder.run()]
        if values.identity_renewal:
            await keeper.renew()
            tasks.append(keeper.run())
        async with (
            serve_admin(values.admin_addr, Readiness(issuer=lambda: issuer.loaded)),
            serve_rpc(values.addr, [service.handler()]),
        ):
            await run_until_terminated(*tasks)
