//! Each target with its seeds, and with mutations of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use linkerd_fuzz::{TARGETS, Target};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

#[test]
fn seeds_hold() {
    for target in TARGETS {
        for seed in target.seeds {
            (target.run)(seed);
        }
    }
}

/// What is done to a seed.
#[derive(Clone, Debug)]
enum Edit {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// Repeats a part: heads within heads, chunks after chunks.
    Repeat(Index, usize),
    Cut(Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..8),
        proptest::sample::select(WORDS.to_vec()).prop_map(<[u8]>::to_vec),
    ];
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (any::<Index>(), bytes).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (any::<Index>(), 1_usize..8).prop_map(|(at, len)| Edit::Remove(at, len)),
        (any::<Index>(), 1_usize..40).prop_map(|(at, len)| Edit::Repeat(at, len)),
        any::<Index>().prop_map(Edit::Cut),
    ]
}

/// What parsers trip over.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.1",
    b"transfer-encoding: chunked\r\n",
    b"content-length: 3\r\n",
    b"host: b\r\n",
    b"connection: close\r\n",
    b"@",
    b"#",
    b"%",
    b"..",
    b"//",
    b"\xff\xff\xff\xff",
];

fn apply(bytes: &mut Vec<u8>, edit: &Edit) {
    match edit {
        Edit::Insert(at, more) => {
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, more.iter().copied());
        }
        _ if bytes.is_empty() => {}
        Edit::Set(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Edit::Remove(at, len) => {
            let at = at.index(bytes.len());
            bytes.drain(at..bytes.len().min(at + len));
        }
        Edit::Repeat(at, len) => {
            let at = at.index(bytes.len());
            let part = bytes[at..bytes.len().min(at + len)].to_vec();
            bytes.splice(at..at, part);
        }
        Edit::Cut(at) => bytes.truncate(at.index(bytes.len())),
    }
}

fn mutated(seeds: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    let edits = proptest::collection::vec(edit(), 0..6);
    let edited = (proptest::sample::select(seeds), edits).prop_map(|(seed, edits)| {
        let mut bytes = seed.to_vec();
        edits.iter().for_each(|edit| apply(&mut bytes, edit));
        bytes
    });
    prop_oneof![8 => edited, 1 => proptest::collection::vec(any::<u8>(), 0..200)]
}

/// The same mutations each time, unless more of them are asked for by `PROPTEST_CASES`.
fn run(name: &str) {
    let target: &Target = TARGETS.iter().find(|t| t.name == name).unwrap();
    let more = std::env::var_os("PROPTEST_CASES").is_some();
    let config = Config {
        cases: if more { Config::default().cases } else { CASES },
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = if more {
        TestRunner::new(config)
    } else {
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
    };
    let result = runner.run(&mutated(target.seeds), |bytes| {
        (target.run)(&bytes);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{name}: {error}");
    }
}

const CASES: u32 = 2_000;

macro_rules! targets {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            run($name);
        })*

        #[test]
        fn every_target_is_run() {
            let names: Vec<_> = TARGETS.iter().map(|t| t.name).collect();
            assert_eq!(names, [$($name),*]);
        }
    };
}

targets! {
    detect: "detect",
    client_hello: "client hello",
    transport_header: "transport header",
    http1: "http1",
    names: "names",
    route: "route",
    authz: "authz",
}
