use super::*;
use crate::h1::encode;
use proptest::prelude::*;

/// All of a body with its trailers, from pieces of given lengths; what follows it is left over.
fn decode(framing: Framing, sent: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, HeaderMap, Bytes), Refused> {
    let mut decoder = Decoder::new(framing);
    let (mut unread, mut left) = (BytesMut::new(), sent);
    let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
    for cut in cuts.iter().copied().chain([usize::MAX]) {
        let (piece, rest) = left.split_at(cut.min(left.len()));
        unread.extend_from_slice(piece);
        left = rest;
        while !matches!(decoder, Decoder::Ended) {
            match decoder.decode(&mut unread)? {
                None => break,
                Some(Event::Data { data: piece, .. }) => data.extend_from_slice(&piece),
                Some(Event::Trailers(map)) => trailers = map,
                Some(Event::End) => {}
            }
        }
    }
    assert!(matches!(decoder, Decoder::Ended), "unfinished: {sent:?}");
    Ok((data, trailers, unread.freeze()))
}

fn chunked(sent: &str) -> Result<(Vec<u8>, HeaderMap, Bytes), Refused> {
    decode(Framing::Chunked, sent.as_bytes(), &[])
}

#[test]
fn chunks_are_joined_and_their_extensions_dropped() {
    let (data, trailers, rest) =
        chunked("3;a=b\r\nabc\r\n0002 ;c=\"d e\"\r\nde\r\n0;x\r\nX-Sum: 1\r\n\r\nGET /").unwrap();
    assert_eq!(data, b"abcde");
    assert_eq!(trailers["x-sum"], "1");
    assert_eq!(rest, "GET /");
}

#[test]
fn the_last_data_is_known_to_be_the_last() {
    let mut unread = BytesMut::from("3\r\nabc\r\n0\r\n\r\n");
    let event = Decoder::new(Framing::Chunked)
        .decode(&mut unread)
        .unwrap()
        .unwrap();
    assert!(matches!(event, Event::Data { last: true, .. }));
    assert!(unread.is_empty());
}

#[test]
fn chunks_that_two_parsers_may_read_in_two_ways_are_refused() {
    let long = "0".repeat(17);
    for sent in [
        "\r\n",
        "x\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\na\r\n",
        " 1\r\na\r\n",
        "1 \r\na\r\n",
        "1\ra\r\n",
        "1\na\r\n",
        "1\r\nab\r\n",
        "1\r\na\n0\r\n\r\n",
        "1;a\rb\r\na\r\n",
        "1;a\0b\r\na\r\n",
        "8000000000000000\r\n",
        "ffffffffffffffff\r\n",
        "10000000000000000\r\n",
        &long,
        "0\r\nX: a\n\r\n",
        "0\r\nX: a\r\n b\r\n\r\n",
        "0\r\nX : a\r\n\r\n",
        "0\r\nno field\r\n\r\n",
    ] {
        let refused = decode(Framing::Chunked, format!("{sent}\r\n").as_bytes(), &[]);
        assert!(refused.is_err(), "{sent:?}");
    }
}

#[test]
fn extensions_and_trailers_have_limits() {
    let extension = "x".repeat(200);
    let many = format!("1;{extension}\r\na\r\n").repeat(100);
    assert!(chunked(&many).is_err());
    assert!(chunked(&format!("1;{}\r\n", "x".repeat(300))).is_err());
    assert!(chunked(&"1".repeat(300)).is_err());
    assert!(chunked(&format!("0\r\nX: {}", "x".repeat(9_000))).is_err());
    assert!(chunked(&format!("0\r\n{}\r\n", "X: 1\r\n".repeat(40))).is_err());
}

#[test]
fn an_end_is_complete_where_nothing_else_says_so() {
    for (framing, complete) in [
        (Framing::UntilClose, true),
        (Framing::None, true),
        (Framing::Length(1), false),
        (Framing::Chunked, false),
    ] {
        assert_eq!(Decoder::new(framing).close(), complete, "{framing:?}");
    }
}

proptest! {
    /// What was encoded comes back, wherever it is cut.
    #[test]
    fn chunks_come_back(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..70), 0..5),
        cuts in proptest::collection::vec(1_usize..20, 0..30),
        sum in proptest::option::of("[a-z]{1,9}"),
    ) {
        let (mut sent, mut sum_field) = (Vec::new(), HeaderMap::new());
        for chunk in &chunks {
            encode::chunk_size(&mut sent, chunk.len());
            sent.extend_from_slice(chunk);
            sent.extend_from_slice(b"\r\n");
        }
        if let Some(sum) = sum {
            sum_field.insert("x-sum", sum.parse().unwrap());
        }
        encode::last_chunk(&mut sent, &sum_field);
        sent.extend_from_slice(b"next");
        let (data, trailers, rest) = decode(Framing::Chunked, &sent, &cuts).unwrap();
        prop_assert_eq!(data, chunks.concat());
        prop_assert_eq!(trailers, sum_field);
        prop_assert_eq!(rest, "next");
    }

    #[test]
    fn a_length_is_kept(body in proptest::collection::vec(any::<u8>(), 0..99), cuts in proptest::collection::vec(1_usize..9, 0..30)) {
        let sent = [&body[..], b"next"].concat();
        let framing = Framing::Length(body.len() as u64);
        let (data, _, rest) = decode(framing, &sent, &cuts).unwrap();
        prop_assert_eq!(data, body);
        prop_assert_eq!(rest, "next");
    }

    #[test]
    fn nothing_panics(bytes in "[0-9a-f;\r\n :x]{0,80}") {
        let mut decoder = Decoder::new(Framing::Chunked);
        let mut unread = BytesMut::from(bytes.as_str());
        while let Ok(Some(event)) = decoder.decode(&mut unread) {
            if !matches!(event, Event::Data { last: false, .. }) {
                break;
            }
        }
    }
}
