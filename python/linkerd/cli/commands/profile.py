"""`linkerd profile`: a ServiceProfile from a description of the service."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linkerd.cli.completing import SERVICE
from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.flags import namespace_option

if TYPE_CHECKING:
    from linkerd.profile.routes import Route

DEFAULT_DOMAIN = "cluster.local"


@click.command(short_help="Print a ServiceProfile made from OpenAPI, Protocol Buffers or a template")
@click.argument("service", type=SERVICE)
@namespace_option("Namespace of the service (default: that of the kubeconfig's context).")
@click.option("--open-api", default="", metavar="FILE", help="Swagger 2 or OpenAPI 3, YAML or JSON; `-` is stdin.")
@click.option("--proto", default="", metavar="FILE", help="A Protocol Buffers file; `-` is stdin.")
@click.option("--template", is_flag=True, help="A profile to edit, with everything explained.")
@click.option("--ignore-cluster", is_flag=True, help="Ask no cluster for its domain; take cluster.local.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="Output format.")
@pass_context
def command(ctx: Context, service: str, namespace: str, **options: Any) -> None:
    """Print a ServiceProfile for `kubectl apply -f -`. Live traffic as the source: `linkerd viz profile`.

    \b
    linkerd profile --open-api swagger.json api-service -n production
    linkerd profile --proto ledger.proto ledger-service -n production
    linkerd profile --template api-service -n production
    """
    if sum(map(bool, (options["open_api"], options["proto"], options["template"]))) != 1:
        raise UserError("You must specify exactly one of --template or --open-api or --proto")
    from linkerd.cli.profiles import check_names, cluster_domain, print_profile
    from linkerd.profile.routes import service_profile

    namespace = namespace or ("default" if options["ignore_cluster"] else ctx.namespace())
    check_names(service, namespace)
    routes = None if options["template"] else _routes(options)
    domain = DEFAULT_DOMAIN if options["ignore_cluster"] else ctx.run(cluster_domain(ctx))
    if routes is None:
        _print_template(service, namespace, domain, options["output"])
    else:
        print_profile(service_profile(service, namespace, domain, routes), options["output"])


def _routes(options: dict[str, Any]) -> list[Route]:
    """Raises UserError."""
    from linkerd.profile.routes import ProfileError

    name = options["open_api"] or options["proto"]
    text = _read(name)
    try:
        return _from_openapi(text) if options["open_api"] else _from_proto(text)
    except ProfileError as error:
        raise UserError(f"{name}: {error}") from None


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text()
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{name}: not a text in UTF-8") from None


def _from_openapi(text: str) -> list[Route]:
    """JSON is YAML, but is read much faster as what it is."""
    import orjson
    import yaml

    from linkerd.profile.openapi import routes_from_openapi
    from linkerd.profile.routes import ProfileError

    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.YAMLError as error:
            raise ProfileError(f"neither JSON nor YAML: {error}") from None
    return routes_from_openapi(document)


def _from_proto(text: str) -> list[Route]:
    from linkerd.profile.protobuf import routes_from_proto

    return routes_from_proto(text)


def _print_template(service: str, namespace: str, domain: str, output: str) -> None:
    from linkerd.cli.output import json
    from linkerd.profile.template import template_object, template_text

    if output == "json":
        sys.stdout.write(json.indented(template_object(service, namespace, domain)))
    else:
        sys.stdout.write(template_text(service, namespace, domain))
