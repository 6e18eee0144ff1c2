#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;
use crate::budget::Budget;

/// What a side does, for a script.
#[derive(Clone, Debug)]
enum Act {
    Client(&'static str),
    Cloud(&'static str),
    ClientDrops(usize),
    CloudDrops(usize),
    ClientEnds,
    CloudEnds,
    CloudResets,
}
use Act::{Client as C, ClientDrops, ClientEnds, Cloud as S, CloudDrops, CloudEnds, CloudResets};

fn stamp(counter: u64) -> Stamp {
    Stamp { counter, ..Stamp::default() }
}

fn seen(act: &Act, counter: u64) -> Seen {
    let chunk = |side, bytes: &'static str| {
        let share = Budget::new(1 << 30).try_take(bytes.len()).unwrap();
        Seen::Chunk(Chunk {
            side,
            stamp: stamp(counter),
            len: bytes.len(),
            bytes: Some((Bytes::from_static(bytes.as_bytes()), share)),
        })
    };
    match act {
        C(bytes) => chunk(Side::Client, bytes),
        S(bytes) => chunk(Side::Cloud, bytes),
        ClientDrops(len) => Seen::Chunk(Chunk { side: Side::Client, stamp: stamp(counter), len: *len, bytes: None }),
        CloudDrops(len) => Seen::Chunk(Chunk { side: Side::Cloud, stamp: stamp(counter), len: *len, bytes: None }),
        ClientEnds => Seen::End { side: Side::Client, stamp: stamp(counter), clean: true },
        CloudEnds => Seen::End { side: Side::Cloud, stamp: stamp(counter), clean: true },
        CloudResets => Seen::End { side: Side::Cloud, stamp: stamp(counter), clean: false },
    }
}

/// Events as one line each; neighbouring body bytes are joined.
fn told(events: &[Event]) -> String {
    let mut lines: Vec<String> = Vec::new();
    let body = |lines: &mut Vec<String>, who: &str, ExchangeId(n): &ExchangeId, piece: &Piece| {
        let prefix = format!("{who}{n}:");
        let text = match piece {
            Piece::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Piece::Dropped(len) => "_".repeat(usize::try_from(*len).unwrap()),
        };
        match lines.last_mut() {
            Some(last) if last.starts_with(&prefix) => last.push_str(&text),
            _ => lines.push(prefix + &text),
        }
    };
    for event in events {
        match event {
            Event::Request { exchange, head, .. } => lines.push(format!("request{} {}", exchange.0, head.method)),
            Event::RequestBody { exchange, piece } => body(&mut lines, ">", exchange, piece),
            Event::RequestEnd { exchange, .. } => lines.push(format!("sent{}", exchange.0)),
            Event::RequestBroken { exchange } => lines.push(format!("broken{}", exchange.0)),
            Event::Answer { exchange, head, .. } => lines.push(format!("answer{} {}", exchange.0, head.status)),
            Event::AnswerBody { exchange, piece } => body(&mut lines, "<", exchange, piece),
            Event::AnswerEnd { exchange, whole, .. } => {
                lines.push(format!("end{}{}", exchange.0, if *whole { "" } else { " cut" }))
            }
            Event::Unanswered { exchange, .. } => lines.push(format!("unanswered{}", exchange.0)),
            Event::Upgraded { exchange, http2, .. } => {
                lines.push(format!("upgraded{}{}", exchange.0, if *http2 { " h2" } else { "" }))
            }
            Event::Broken { broken, .. } => lines.push(format!("lost: {broken}")),
        }
    }
    lines.join(" | ")
}

fn play(acts: &[Act]) -> Vec<Event> {
    let (mut exchanges, mut out) = (Exchanges::default(), Vec::new());
    for (act, counter) in acts.iter().zip(1..) {
        exchanges.on(seen(act, counter), &mut out);
    }
    out
}

const PUT: Act = C("PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n");
const EXPECTING_PUT: Act = C("PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
const GET: Act = C("GET /b/k HTTP/1.1\r\nHost: h\r\n\r\n");
const OK: Act = S("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");

/// Traps of the wire, and what must be made of them.
fn rows() -> Vec<(&'static str, Vec<Act>, &'static str)> {
    vec![
        ("plain", vec![PUT, C("body"), OK], "request0 PUT | >0:body | sent0 | answer0 200 | end0"),
        (
            "kept alive",
            vec![PUT, C("body"), OK, GET, S("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")],
            "request0 PUT | >0:body | sent0 | answer0 200 | end0 | request1 GET | sent1 | answer1 200 | <1:hi | end1",
        ),
        (
            "pipelined",
            vec![
                C("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n"),
                S("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nb"),
            ],
            "request0 GET | sent0 | request1 GET | sent1 | answer0 200 | <0:a | end0 | answer1 404 | <1:b | end1",
        ),
        (
            "100 and body",
            vec![EXPECTING_PUT, S("HTTP/1.1 100 Continue\r\n\r\n"), C("body"), OK],
            "request0 PUT | >0:body | sent0 | answer0 200 | end0",
        ),
        (
            "102 and 103 before the answer",
            vec![
                GET,
                S("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n"),
            ],
            "request0 GET | sent0 | answer0 204 | end0",
        ),
        (
            "412 instead of 100, then the next request",
            vec![EXPECTING_PUT, S("HTTP/1.1 412 No\r\nContent-Length: 0\r\n\r\n"), GET, OK],
            "request0 PUT | answer0 412 | end0 | broken0 | request1 GET | sent1 | answer1 200 | end1",
        ),
        (
            "412 instead of 100, the body comes all the same",
            vec![EXPECTING_PUT, S("HTTP/1.1 412 No\r\nContent-Length: 0\r\n\r\n"), C("body"), GET, OK],
            "request0 PUT | answer0 412 | end0 | >0:body | sent0 | request1 GET | sent1 | answer1 200 | end1",
        ),
        (
            "412 instead of 100, then the client leaves",
            vec![EXPECTING_PUT, S("HTTP/1.1 412 No\r\nContent-Length: 0\r\n\r\n"), ClientEnds, CloudEnds],
            "request0 PUT | answer0 412 | end0 | broken0",
        ),
        (
            "answer before the end of the body",
            vec![PUT, C("bo"), OK, C("dy"), GET, OK],
            "request0 PUT | >0:bo | answer0 200 | end0 | >0:dy | sent0 | request1 GET | sent1 | answer1 200 | end1",
        ),
        (
            "client leaves within the body",
            vec![PUT, C("bo"), ClientEnds, CloudEnds],
            "request0 PUT | >0:bo | broken0 | unanswered0",
        ),
        (
            "cloud leaves within the body",
            vec![PUT, C("bo"), CloudResets, ClientEnds],
            "request0 PUT | >0:bo | broken0 | unanswered0",
        ),
        ("no answer", vec![PUT, C("body"), CloudEnds], "request0 PUT | >0:body | sent0 | unanswered0"),
        (
            "body whole after the cloud's end",
            vec![PUT, C("bo"), CloudEnds, C("dy")],
            "request0 PUT | >0:body | sent0 | unanswered0",
        ),
        ("half-closed by the client", vec![GET, ClientEnds, OK], "request0 GET | sent0 | answer0 200 | end0"),
        (
            "HEAD has no body",
            vec![C("HEAD /b/k HTTP/1.1\r\n\r\n"), S("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"), GET, OK],
            "request0 HEAD | sent0 | answer0 200 | end0 | request1 GET | sent1 | answer1 200 | end1",
        ),
        (
            "304 has no body",
            vec![GET, S("HTTP/1.1 304 Not\r\nContent-Length: 100\r\n\r\nHTTP/1.1 "), CloudEnds],
            "request0 GET | sent0 | answer0 304 | end0",
        ),
        (
            "until close",
            vec![GET, S("HTTP/1.0 200 OK\r\n\r\nabc"), CloudEnds],
            "request0 GET | sent0 | answer0 200 | <0:abc | end0",
        ),
        (
            "until reset",
            vec![GET, S("HTTP/1.1 200 OK\r\n\r\nabc"), CloudResets],
            "request0 GET | sent0 | answer0 200 | <0:abc | end0 cut",
        ),
        (
            "cut within a length",
            vec![GET, S("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"), CloudEnds],
            "request0 GET | sent0 | answer0 200 | <0:abc | end0 cut",
        ),
        (
            "chunked both ways",
            vec![
                C("PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-t: 1\r\n\r\n"),
                S("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
                GET,
                OK,
            ],
            "request0 PUT | >0:body | sent0 | answer0 200 | <0:hi | end0 | request1 GET | sent1 | answer1 200 | end1",
        ),
        (
            "closing answer, then another request",
            vec![
                GET,
                S("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
                PUT,
                C("body"),
                CloudEnds,
            ],
            "request0 GET | sent0 | answer0 200 | end0 | request1 PUT | >1:body | sent1 | unanswered1",
        ),
        ("unasked answer", vec![S("HTTP/1.1 408 Timeout\r\n\r\n"), CloudEnds, ClientEnds], ""),
        (
            "unasked answer, then a request",
            vec![S("HTTP/1.1 408 Timeout\r\n\r\n"), GET, OK, CloudEnds],
            "request0 GET | sent0 | unanswered0",
        ),
        (
            "upgrade",
            vec![
                C("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"),
                S("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n\x01\x02"),
                C("\x01"),
            ],
            "request0 GET | sent0 | upgraded0",
        ),
        (
            "upgrade to HTTP/2",
            vec![
                C("GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n"),
                S("HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\nPRI"),
                C("PRI"),
            ],
            "request0 GET | sent0 | upgraded0 h2",
        ),
        (
            "dropped inside a counted body",
            vec![PUT, C("b"), ClientDrops(2), C("yGET / HTTP/1.1\r\n\r\n"), OK],
            "request0 PUT | >0:b__y | sent0 | request1 GET | sent1 | answer0 200 | end0",
        ),
        (
            "dropped past a counted body",
            vec![PUT, ClientDrops(5)],
            "request0 PUT | >0:____ | sent0 | lost: bytes outside a counted body were dropped",
        ),
        (
            "dropped inside an answer",
            vec![GET, S("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"), CloudDrops(4), GET, OK],
            "request0 GET | sent0 | answer0 200 | <0:____ | end0 | request1 GET | sent1 | answer1 200 | end1",
        ),
        ("a head dropped", vec![ClientDrops(10), GET], "lost: bytes outside a counted body were dropped"),
        (
            "an answer's head dropped",
            vec![GET, CloudDrops(10)],
            "request0 GET | sent0 | lost: bytes outside a counted body were dropped",
        ),
        ("garbage", vec![C("\x16\x03\x01\x02 hello\r\n\r\n")], "lost: request head is not understood"),
        (
            "HTTP/2 with prior knowledge",
            vec![C("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")],
            "lost: request head is not understood",
        ),
        (
            "garbage for an answer",
            vec![GET, S("SSH-2.0\r\n\r\n")],
            "request0 GET | sent0 | lost: answer head is not understood",
        ),
        (
            "two lengths",
            vec![C("PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")],
            "lost: content length is not understood",
        ),
    ]
}

#[test]
fn each_trap_of_the_wire_is_read_as_it_is_meant() {
    for (trap, acts, wanted) in rows() {
        assert_eq!(told(&play(&acts)), wanted, "{trap}");
    }
}

/// Rows that end in `Declined` decide on whole lines, and dropped bytes cannot be split: both still hold.
#[test]
fn bytes_may_come_one_at_a_time() {
    for (trap, acts, wanted) in rows() {
        let (mut exchanges, mut out) = (Exchanges::default(), Vec::new());
        for act in &acts {
            match act {
                C(bytes) => (0..bytes.len()).for_each(|at| exchanges.on(seen(&C(&bytes[at..=at]), 1), &mut out)),
                S(bytes) => (0..bytes.len()).for_each(|at| exchanges.on(seen(&S(&bytes[at..=at]), 1), &mut out)),
                other => exchanges.on(seen(other, 1), &mut out),
            }
        }
        assert_eq!(told(&out), wanted, "{trap}");
    }
}

#[test]
fn a_request_begins_at_its_first_byte_and_an_answer_is_there_at_its_last() {
    let events = play(&[
        C("GET / HT"),
        C("TP/1.1\r\n\r"),
        C("\n"),
        S("HTTP/1.1 200 OK\r\nContent-Le"),
        S("ngth: 1\r\n\r\n"),
        S("x"),
    ]);
    assert!(
        events.iter().any(|event| matches!(event, Event::Request { begin, .. } if *begin == stamp(1))),
        "{events:?}"
    );
    assert!(
        events.iter().any(|event| matches!(event, Event::Answer { stamp: at, .. } if *at == stamp(5))),
        "{events:?}"
    );
    assert!(
        events.iter().any(|event| matches!(event, Event::AnswerEnd { stamp: at, .. } if *at == stamp(6))),
        "{events:?}"
    );
}

#[test]
fn a_copy_that_ends_without_the_ends_of_both_sides_is_lost() {
    for (acts, wanted) in
        [(vec![GET], "lost: bytes outside a counted body were dropped"), (vec![ClientEnds, CloudEnds], "")]
    {
        let (mut exchanges, mut out) = (Exchanges::default(), Vec::new());
        for act in &acts {
            exchanges.on(seen(act, 1), &mut out);
        }
        out.clear();
        exchanges.close(&mut out);
        assert_eq!(told(&out), wanted, "{acts:?}");
    }
}

#[test]
fn too_many_requests_ahead_of_their_answers_end_the_observation() {
    let (mut exchanges, mut out) = (Exchanges::default(), Vec::new());
    for _ in 0..PIPELINE_MAX {
        exchanges.on(seen(&GET, 1), &mut out);
    }
    assert!(!told(&out).contains("lost"));
    exchanges.on(seen(&GET, 1), &mut out);
    assert!(told(&out).ends_with("lost: number of requests ahead of their answers is larger than is read"));
}

#[test]
fn a_body_gives_its_budget_back_with_its_last_slice() {
    let budget = Budget::new(1 << 20);
    let wire = "PUT / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody";
    let chunk = Chunk {
        side: Side::Client,
        stamp: stamp(1),
        len: wire.len(),
        bytes: Some((Bytes::from_static(wire.as_bytes()), budget.try_take(wire.len()).unwrap())),
    };
    let (mut exchanges, mut out) = (Exchanges::default(), Vec::new());
    exchanges.on(Seen::Chunk(chunk), &mut out);
    assert!(budget.used() > 0);
    out.retain(|event| !matches!(event, Event::RequestBody { .. }));
    assert_eq!(budget.used(), 0, "a head keeps no budget");
    assert!(!out.is_empty());
}

proptest! {
    #[test]
    fn garbage_never_panics(pieces in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200), any::<bool>()), 0..20)) {
        let (mut exchanges, mut out) = (Exchanges::default(), Vec::new());
        exchanges.on(seen(&GET, 1), &mut out);
        for (client, bytes, kept) in pieces {
            let share = Budget::new(1 << 30).try_take(bytes.len()).unwrap();
            let side = if client { Side::Client } else { Side::Cloud };
            let len = bytes.len();
            exchanges.on(Seen::Chunk(Chunk { side, stamp: stamp(1), len, bytes: kept.then(|| (Bytes::from(bytes), share)) }), &mut out);
        }
        exchanges.close(&mut out);
    }
}
