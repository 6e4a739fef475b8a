"""Certificates as text."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from linkerd.cli.output.certificate import text
from linkerd.kit import x509

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def leaf_text():
    root = x509.new_root("root.linkerd.cluster.local", timedelta(days=9), now=START)
    key = x509.new_key()
    leaf = x509.new_leaf(
        root,
        ["web.ns.cluster.local"],
        key.public_key(),
        not_before=START,
        not_after=START + timedelta(days=1),
        serial=255,
    )
    return text(leaf)


def test_the_layout():
    lines = leaf_text().splitlines()
    assert lines[:10] == [
        "Certificate:",
        "    Data:",
        "        Version: 3 (0x2)",
        "        Serial Number: 255 (0xff)",
        "    Signature Algorithm: ECDSA-SHA256",
        "        Issuer: CN=root.linkerd.cluster.local",
        "        Validity",
        "            Not Before: Jan 2 03:04:05 2026 UTC",
        "            Not After : Jan 3 03:04:05 2026 UTC",
        "        Subject: CN=web.ns.cluster.local",
    ]


def test_the_key_is_shown_in_rows_of_fifteen():
    rows = re.findall(r"^ {20}([0-9a-f:]+)$", leaf_text(), re.MULTILINE)
    assert [row.count(":") for row in rows] == [15, 15, 1, 15, 15, 1]


def test_extensions_stand_below_their_headings():
    shown = leaf_text()
    assert "            X509v3 Key Usage: critical\n                Digital Signature, Key Encipherment\n" in shown
    assert "            X509v3 Subject Alternative Name:\n                DNS:web.ns.cluster.local\n" in shown
    assert "                TLS Web Server Authentication, TLS Web Client Authentication\n" in shown
