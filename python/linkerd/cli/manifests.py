"""Manifests from wherever the user has them: a file, a directory, an https URL, standard input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from linkerd.cli.errors import UserError
from linkerd.cli.output.documents import print_documents
from linkerd.injector.manifests import Change, Outcome, transformed

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_texts(source: str) -> Iterator[str]:
    """Raises UserError."""
    if source == "-":
        yield sys.stdin.read()
    elif source.startswith("https://"):
        yield _fetch(source)
    elif source.startswith("http://"):
        raise UserError("only HTTPS URLs are allowed")
    else:
        for path in _files(Path(source)):
            try:
                yield path.read_text()
            except OSError as error:
                raise UserError(f"{path}: {error.strerror}") from error


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml", ".json"))
    return [path]


def _fetch(url: str) -> str:
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=30) as response:
            return response.read().decode()
    except (URLError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{url}: {error}") from error


def transform(source: str, form: str, change: Callable[[dict[str, Any]], Outcome]) -> list[Outcome]:
    """Prints every document changed; the outcomes are for the report. Raises UserError."""
    outcomes: list[Outcome] = []
    for text in read_texts(source):
        try:
            documents = [document for document in yaml.load_all(text, Loader=_Loader) if document]
        except yaml.YAMLError as error:
            raise UserError(f"{source}: not YAML: {error}") from error
        for document in documents:
            if not isinstance(document, dict) or "kind" not in document:
                print('document missing "kind" field, skipped', file=sys.stderr)
                continue
            found = transformed(document, change)
            print_documents([found[0].document], form)
            outcomes += found[1:] if len(found) > 1 else found
    return outcomes


def report(outcomes: list[Outcome], *, verbose: bool, warnings: list[tuple[str, str]]) -> None:
    """On stderr: what to look at, then a line per object. `warnings`: what is wrong, what is said when nothing is."""
    print(file=sys.stderr)
    shown = False
    for text, passed in warnings:
        if text:
            print(f"‼ {text}", file=sys.stderr)
        elif verbose:
            print(f"√ {passed}", file=sys.stderr)
        shown = shown or bool(text) or verbose
    if shown:
        print(file=sys.stderr)
    for outcome in outcomes:
        kind, _, name = outcome.title.partition("/")
        if outcome.change != Change.SKIPPED or kind not in ("namespace", "service"):
            print(f'{kind} "{name}" {outcome.change}', file=sys.stderr)
        for warning in outcome.warnings:
            print(f"  warning: {warning}", file=sys.stderr)
    print(file=sys.stderr)
