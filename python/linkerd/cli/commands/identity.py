"""`linkerd identity`: the certificates that meshed pods serve right now."""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import TYPE_CHECKING, Any

import click

from linkerd.cli.completing import POD
from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.flags import namespace_option

if TYPE_CHECKING:
    from linkerd.k8s.client import Client

Object = dict[str, Any]

_TIMEOUT_SECONDS = 10.0
_AT_ONCE = 8


@click.command(short_help="Show the certificates of meshed pods")
@click.argument("pods", nargs=-1, metavar="[POD]...", type=POD)
@namespace_option("Namespace of the pods; alone, all meshed pods there.")
@click.option("-l", "--selector", default="", metavar="LABELS", help="Pods with these labels.")
@click.option("-o", "--output", type=click.Choice(["text", "json", "pem"]), default="text", help="Output format.")
@pass_context
def command(ctx: Context, pods: tuple[str, ...], namespace: str, selector: str, output: str) -> int:
    """Show the certificates of meshed pods, as their proxies serve them.

    \b
    linkerd identity -n production
    linkerd identity -n production -l app=api-service
    linkerd identity -n production <pod-name>
    linkerd identity -n production -o json
    """
    if not pods and not selector and not namespace:
        raise UserError(
            "Provide the pod name argument or use the selector flag",
            "`linkerd identity -n <namespace>` shows all meshed pods of the namespace",
        )
    return ctx.run(_show(ctx, pods, ctx.namespace(namespace), selector, output))


async def _show(ctx: Context, names: tuple[str, ...], namespace: str, selector: str, output: str) -> int:
    async with ctx.client() as client:
        pods = await _pods(client, ctx.linkerd_namespace, names, namespace, selector)
        if not pods:
            print(
                "Could not fetch Certificate. Ensure that the pod(s) are meshed by running `linkerd inject`",
                file=sys.stderr,
            )
            return 1
        gate = asyncio.Semaphore(_AT_ONCE)

        async def fetch(pod: Object) -> bytes | str:
            async with gate:
                return await _certificate(client, pod)

        answers = await asyncio.gather(*(fetch(pod) for pod in pods))
    _print_all(list(zip(pods, answers, strict=True)), output)
    return 1 if any(isinstance(answer, str) for answer in answers) else 0


def _print_all(found: list[tuple[Object, bytes | str]], output: str) -> None:
    """Certificates to stdout; why there is none to stderr."""
    from linkerd.cli.output import certificate

    values = []
    for index, (pod, answer) in enumerate(found, start=1):
        if output == "text":
            print(f"\nPOD {pod['metadata']['name']} ({index} of {len(found)})\n")
        if isinstance(answer, str):
            print(f"error: {answer}", file=sys.stderr)
            continue
        parsed = certificate.parsed(answer)
        if output == "json":
            metadata = pod["metadata"]
            own = {"namespace": metadata["namespace"], "pod": metadata["name"]}
            values.append(own | certificate.json_value(parsed))
        else:
            print(certificate.pem(parsed) if output == "pem" else certificate.text(parsed))
    if output == "json":
        from linkerd.cli.output import json

        sys.stdout.write(json.indented(values))


async def _pods(
    client: Client, control_plane: str, names: tuple[str, ...], namespace: str, selector: str
) -> list[Object]:
    """The named ones as they are; else the meshed and running ones of the namespace. Raises NotFound."""
    from linkerd.k8s.resources import PODS

    if names:
        return [await client.get(PODS, name, namespace) for name in names]
    meshed = f"linkerd.io/control-plane-ns={control_plane}"
    found = await client.list(PODS, namespace, label_selector=f"{meshed},{selector}" if selector else meshed)
    return [pod for pod in found if pod["status"].get("phase") == "Running"]


async def _certificate(client: Client, pod: Object) -> bytes | str:
    """What the proxy's admin port serves over TLS (DER), or why it could not be had.

    It is shown, not trusted: any chain is taken. The proxy chooses no certificate by name, but names are asked for as
    its peers do.
    """
    import aiohttp

    from linkerd.checks.cluster import proxy_env, proxy_of
    from linkerd.cli.connections import admin_port
    from linkerd.k8s.errors import ApiError
    from linkerd.k8s.portforward import ForwardError, listen

    metadata = pod["metadata"]
    where = f"pod {metadata['namespace']}/{metadata['name']}"
    if proxy_of(pod) is None:
        return f"{where} has no proxy; annotate it (`linkerd inject`) and restart it"
    name = _identity(pod, (proxy_env(pod, "LINKERD2_PROXY_IDENTITY_LOCAL_NAME") or {}).get("value", ""))
    try:
        async with (
            asyncio.timeout(_TIMEOUT_SECONDS),
            listen(client, metadata["namespace"], metadata["name"], admin_port(pod)) as listener,
        ):
            _, writer = await asyncio.open_connection(
                listener.host, listener.port, ssl=_any_certificate(), server_hostname=name or "localhost"
            )
            der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.close()
            return der or f"{where} serves no certificate"
    except TimeoutError:
        return f"{where}: no answer within {_TIMEOUT_SECONDS:.0f}s"
    except (ApiError, ForwardError, aiohttp.ClientError, OSError) as error:
        return f"{where}: {error or type(error).__name__}"


def _identity(pod: Object, template: str) -> str:
    """The variable's value with what Kubernetes puts into it."""
    values = {
        "_pod_sa": pod["spec"].get("serviceAccountName") or "default",
        "_pod_ns": pod["metadata"]["namespace"],
    }
    for variable in _proxy_env(pod):
        if "value" in variable:
            values.setdefault(variable["name"], variable["value"])
    for name, value in values.items():
        template = template.replace(f"$({name})", value)
    return template


def _proxy_env(pod: Object) -> list[Object]:
    from linkerd.checks.cluster import proxy_of

    return (proxy_of(pod) or {}).get("env") or []


def _any_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
