"""Names and addresses that requests are meant for."""

import pytest
from linkerd.core.authorities import AddressAuthority, NotAService, ServiceAuthority, parse_authority


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web.shop.svc.cluster.local:8080", ServiceAuthority("shop", "web", 8080)),
        ("web.shop.svc.cluster.local", ServiceAuthority("shop", "web", 80)),
        ("WEB.shop.svc.cluster.local.:80", ServiceAuthority("shop", "web", 80)),
        ("web-0.web.shop.svc.cluster.local:80", ServiceAuthority("shop", "web", 80, "web-0")),
    ],
)
def test_names_of_services_are_read(text, expected):
    assert parse_authority(text, "cluster.local") == expected


def test_addresses_of_both_families_are_read():
    four, six = parse_authority("10.0.0.1:80", "x"), parse_authority("[fd00::1]:80", "x")
    assert isinstance(four, AddressAuthority)
    assert isinstance(six, AddressAuthority)
    assert (str(four.ip), str(six.ip), six.port) == ("10.0.0.1", "fd00::1", 80)


@pytest.mark.parametrize("text", ["example.com:80", "web.shop.svc.other.domain:80", "svc.cluster.local:80", "web:80"])
def test_other_names_are_no_services(text):
    with pytest.raises(NotAService):
        parse_authority(text, "cluster.local")


@pytest.mark.parametrize("text", ["", ":80", "web.shop.svc.cluster.local:x", "a:b:c", "web:0", "web:65536", "[::1"])
def test_what_is_neither_is_refused(text):
    with pytest.raises(ValueError, match=r"host:port|port"):
        parse_authority(text, "cluster.local")
