import pytest
from linkerd.cluster.streams.http1 import HttpError, Request
from linkerd.cluster.streams.upgrading import negotiate_spdy

SUPPORTED = ("v4.channel.k8s.io", "v3.channel.k8s.io", "channel.k8s.io")
SPDY = ((b"connection", b"Upgrade"), (b"upgrade", b"SPDY/3.1"))


def negotiate(*offers: bytes, upgrade=SPDY):
    headers = upgrade + tuple((b"x-stream-protocol-version", offer) for offer in offers)
    return negotiate_spdy(Request("POST", "/", {}, headers), SUPPORTED)


def test_the_clients_first_known_protocol_is_chosen_and_told():
    chosen, headers = negotiate(b"v5.channel.k8s.io", b"v3.channel.k8s.io, v4.channel.k8s.io")
    assert chosen == "v3.channel.k8s.io"
    assert (b"x-stream-protocol-version", b"v3.channel.k8s.io") in headers


def test_a_client_without_an_offer_speaks_the_oldest():
    assert negotiate() == ("channel.k8s.io", [(b"upgrade", b"SPDY/3.1")])


def test_without_a_common_protocol_the_supported_ones_are_named():
    with pytest.raises(HttpError) as refused:
        negotiate(b"v9.channel.k8s.io")
    assert refused.value.status == 403
    assert len(refused.value.headers) == len(SUPPORTED)


@pytest.mark.parametrize("upgrade", [(), SPDY[:1], SPDY[1:], ((b"connection", b"close"), SPDY[1])])
def test_a_request_must_ask_for_spdy(upgrade):
    with pytest.raises(HttpError) as refused:
        negotiate(b"v4.channel.k8s.io", upgrade=upgrade)
    assert refused.value.status == 400
