from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from linkerd.cluster.engine.certificates import (
    LEAF_LIFETIME,
    LEAVES,
    RENEW_BEFORE,
    DamagedPki,
    ensure_pki,
)
from linkerd.kit.x509 import parse_certificates, verify_chain

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PKI made at NOW; not to be changed."""
    directory = tmp_path_factory.mktemp("pki") / "pki"
    ensure_pki(directory, NOW)
    return directory


@pytest.fixture
def pki(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    directory = tmp_path / "pki"
    directory.mkdir()
    for path in made.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def certificate(directory: Path, file: str) -> x509.Certificate:
    return parse_certificates((directory / f"{file}.crt").read_bytes())[0]


def test_every_leaf_is_signed_by_its_authority(made: Path) -> None:
    for leaf in LEAVES:
        verify_chain([certificate(made, leaf.file)], [certificate(made, leaf.authority)], NOW)


def test_the_api_server_is_known_by_the_names_that_clients_use(made: Path) -> None:
    names = certificate(made, "apiserver").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(name.value) for name in names} >= {"127.0.0.1", "192.168.127.1", "10.96.0.1", "kubernetes.default.svc"}


def test_nobody_but_root_reads_the_keys(made: Path) -> None:
    assert {path.name for path in made.glob("*.key") if path.stat().st_mode & 0o077} == set()


def test_a_second_start_changes_nothing(pki: Path) -> None:
    before = contents(pki)
    ensure_pki(pki, NOW + timedelta(days=30))
    assert contents(pki) == before


def test_what_ends_soon_is_renewed_by_the_same_authority(pki: Path) -> None:
    before, later = contents(pki), NOW + LEAF_LIFETIME - RENEW_BEFORE + timedelta(days=1)
    ensure_pki(pki, later)
    after = contents(pki)
    assert after["admin.crt"] != before["admin.crt"]
    assert after["ca.crt"] == before["ca.crt"]
    assert after["sa.key"] == before["sa.key"]
    verify_chain([certificate(pki, "admin")], [certificate(pki, "ca")], later)


def test_near_the_authoritys_own_end_leaves_are_not_renewed_again_and_again(pki: Path) -> None:
    late = certificate(pki, "ca").not_valid_after_utc - timedelta(days=10)
    ensure_pki(pki, late)
    before = contents(pki)
    ensure_pki(pki, late + timedelta(days=1))
    assert contents(pki) == before


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "apiserver.crt", "admin.key", "sa.key"])
def test_a_damaged_file_is_named(pki: Path, name: str) -> None:
    (pki / name).write_text("rubbish")
    with pytest.raises(DamagedPki, match=f"{name.split('.', maxsplit=1)[0]}\\."):
        ensure_pki(pki, NOW)


def test_a_lost_authority_key_is_not_replaced_silently(pki: Path) -> None:
    (pki / "ca.key").unlink()
    with pytest.raises(DamagedPki, match=r"ca\.key: is missing"):
        ensure_pki(pki, NOW)


def test_a_first_start_that_was_cut_off_is_completed(pki: Path) -> None:
    for path in pki.iterdir():
        if path.name != "ca.key":
            path.unlink()
    ensure_pki(pki, NOW)
    verify_chain([certificate(pki, "admin")], [certificate(pki, "ca")], NOW)


def test_a_leaf_of_another_authority_is_replaced(pki: Path, tmp_path: Path) -> None:
    ensure_pki(tmp_path / "other", NOW)
    for ending in (".crt", ".key"):
        os.replace(tmp_path / "other" / f"admin{ending}", pki / f"admin{ending}")
    ensure_pki(pki, NOW)
    verify_chain([certificate(pki, "admin")], [certificate(pki, "ca")], NOW)
