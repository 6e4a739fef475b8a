import pytest
from hypothesis import given
from hypothesis import strategies as st
from linkerd.cluster.streams.channels import (
    PORT_FORWARD_PROTOCOLS,
    REMOTE_COMMAND_PROTOCOLS,
    ChannelError,
    ChannelProtocol,
    Message,
    choose_protocol,
)

protocols = st.sampled_from(REMOTE_COMMAND_PROTOCOLS)


def payload(encoded: bytes | str) -> bytes:
    return encoded.encode() if isinstance(encoded, str) else encoded


@given(protocols, st.integers(0, 9), st.binary())
def test_messages_survive_the_wire(protocol, channel, data):
    message = Message(channel, data)
    assert protocol.decode(payload(protocol.encode(message))) == message


@given(protocols, st.binary(max_size=20))
def test_arbitrary_payloads_give_a_message_or_an_error(protocol, data):
    try:
        found = protocol.decode(data)
    except ChannelError:
        return
    assert found is None or 0 <= found.channel <= 255


def test_the_fifth_version_ends_a_channel():
    fifth, fourth = REMOTE_COMMAND_PROTOCOLS[:2]
    assert fifth.decode(b"\xff\0") == Message(0, closes=True)
    assert fifth.encode(Message(0, closes=True)) == b"\xff\0"
    assert fourth.decode(b"\xff\0") == Message(255, b"\0")
    with pytest.raises(ChannelError):
        fifth.decode(b"\xff\0\0")


def test_base64_is_text_with_a_digit_before_it():
    assert ChannelProtocol("x", base64=True).encode(Message(1, b"hi")) == "1aGk="


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["v5.channel.k8s.io", "v4.channel.k8s.io"], "v5.channel.k8s.io"),
        (["v9.channel.k8s.io", "v4.base64.channel.k8s.io"], "v4.base64.channel.k8s.io"),
        ([], ""),
        (["v9.channel.k8s.io"], None),
    ],
)
def test_the_clients_first_known_protocol_is_chosen(offered, chosen):
    found = choose_protocol(offered, REMOTE_COMMAND_PROTOCOLS)
    assert (found and found.name) == chosen


def test_port_forward_has_no_half_close():
    assert not any(protocol.half_close for protocol in PORT_FORWARD_PROTOCOLS)
