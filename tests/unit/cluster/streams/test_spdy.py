import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linkerd.cluster.streams import spdy

ids = st.integers(1, 2**31 - 1)
words = st.integers(0, 2**32 - 1)
names = st.text(st.characters(codec="ascii", exclude_characters="\0", categories=["Ll", "Nd", "Pd"]), min_size=1)
values = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=50)
header_blocks = st.dictionaries(names, st.lists(values, min_size=1, max_size=3), max_size=8).map(
    lambda block: tuple((name, value) for name, found in block.items() for value in found)
)
frames = st.one_of(
    st.builds(
        spdy.SynStream,
        ids,
        header_blocks,
        st.booleans(),
        st.booleans(),
        st.integers(0, 2**31 - 1),
        st.integers(0, 7),
        st.integers(0, 255),
    ),
    st.builds(spdy.SynReply, ids, header_blocks, st.booleans()),
    st.builds(spdy.MoreHeaders, ids, header_blocks, st.booleans()),
    st.builds(spdy.RstStream, ids, words),
    st.builds(
        spdy.Settings,
        st.lists(st.builds(spdy.Setting, st.integers(0, 2**24 - 1), words, st.integers(0, 255)), max_size=4).map(tuple),
        st.booleans(),
    ),
    st.builds(spdy.Ping, words),
    st.builds(spdy.GoAway, st.integers(0, 2**31 - 1), words),
    st.builds(spdy.WindowUpdate, ids, st.integers(0, 2**31 - 1)),
    st.builds(spdy.Data, ids, st.binary(max_size=100), st.booleans()),
)


def joined(found: list[spdy.Frame]) -> list[spdy.Frame]:
    """Pieces of one data frame put together again, as far as one can see them: the last one alone has a fin."""
    result: list[spdy.Frame] = []
    for frame in found:
        last = result[-1] if result else None
        data = isinstance(frame, spdy.Data) and isinstance(last, spdy.Data)
        if data and last.stream_id == frame.stream_id and not last.fin:
            result[-1] = spdy.Data(frame.stream_id, last.data + frame.data, frame.fin)
        else:
            result.append(frame)
    return result


@given(st.lists(frames, max_size=8))
def test_frames_survive_the_wire(sent):
    encoder, decoder = spdy.Encoder(), spdy.Decoder()
    assert decoder.feed(b"".join(encoder.encode(frame) for frame in sent)) == sent


@given(st.lists(frames, max_size=6), st.integers(1, 40))
def test_any_split_of_the_bytes_gives_the_same_frames(sent, size):
    encoder, decoder = spdy.Encoder(), spdy.Decoder()
    wire = b"".join(encoder.encode(frame) for frame in sent)
    found = [frame for start in range(0, len(wire), size) for frame in decoder.feed(wire[start : start + size])]
    assert joined(found) == joined(sent)


@given(st.binary(max_size=300), st.integers(1, 50))
def test_arbitrary_bytes_give_frames_or_an_error(wire, size):
    decoder = spdy.Decoder()
    try:
        for start in range(0, len(wire), size):
            decoder.feed(wire[start : start + size])
    except spdy.SpdyError:
        pass


@given(frames, st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_frame_gives_frames_or_an_error(frame, position, byte):
    wire = bytearray(spdy.Encoder().encode(frame))
    wire[position % len(wire)] = byte
    try:
        spdy.Decoder().feed(bytes(wire))
    except spdy.SpdyError:
        pass


def test_the_dictionary_is_the_one_of_the_specification():
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2


def test_a_frame_of_the_reference_implementation_is_understood():
    # What moby/spdystream's own test writes: SYN_STREAM of stream 1, headers through Go's compressor.
    compressor = zlib.compressobj(9, zdict=spdy.DICTIONARY)
    block = struct.pack("!I", 1) + struct.pack("!I", 3) + b"url" + struct.pack("!I", 1) + b"/"
    payload = struct.pack("!IIBB", 1, 0, 0, 0) + compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH)
    wire = struct.pack("!HHI", 0x8003, 1, len(payload)) + payload
    assert spdy.Decoder().feed(wire) == [spdy.SynStream(1, (("url", "/"),))]


def header_frame(block: bytes) -> bytes:
    compressor = zlib.compressobj(9, zdict=spdy.DICTIONARY)
    payload = struct.pack("!I", 1) + compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return struct.pack("!HHI", 0x8003, 2, len(payload)) + payload


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(struct.pack("!HHI", 0x8002, 6, 4) + bytes(4), id="another version"),
        pytest.param(struct.pack("!HHI", 0x8003, 99, 0), id="an unknown frame"),
        pytest.param(struct.pack("!HHI", 0x8003, 1, spdy.MAX_CONTROL_PAYLOAD + 1), id="a long control frame"),
        pytest.param(struct.pack("!HHI", 0x8003, 6, 3) + bytes(3), id="a short ping"),
        pytest.param(struct.pack("!HHII", 0x8003, 4, 4, 7), id="settings that are not there"),
        pytest.param(struct.pack("!II", 0, 1) + b"x", id="data of stream 0"),
        pytest.param(struct.pack("!HHIII", 0x8003, 3, 8, 0, 1), id="a reset of stream 0"),
        pytest.param(header_frame(struct.pack("!I", 1) + bytes(spdy.MAX_HEADER_BLOCK)), id="a zip bomb"),
        pytest.param(header_frame(struct.pack("!I", spdy.MAX_HEADERS + 1)), id="too many headers"),
        pytest.param(header_frame(struct.pack("!II", 1, 9) + b"short"), id="a header cut short"),
        pytest.param(header_frame(struct.pack("!II", 1, 1) + b"A" + bytes(4)), id="a header in capitals"),
        pytest.param(header_frame(struct.pack("!II", 1, 1) + b"\xff" + bytes(4)), id="not UTF-8"),
        pytest.param(header_frame(struct.pack("!II", 2, 1) + b"a" + bytes(7) + b"\1a" + bytes(4)), id="a doublet"),
    ],
)
def test_what_is_not_spdy_is_an_error(wire):
    with pytest.raises(spdy.SpdyError):
        spdy.Decoder().feed(wire)


def test_a_long_data_frame_comes_in_pieces_with_fin_on_the_last():
    decoder = spdy.Decoder()
    wire = spdy.Encoder().encode(spdy.Data(5, b"abcdef", fin=True))
    assert decoder.feed(wire[:10]) == [spdy.Data(5, b"ab")]
    assert decoder.feed(wire[10:]) == [spdy.Data(5, b"cdef", fin=True)]
