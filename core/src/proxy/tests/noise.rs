//! Clients and applications that say anything in any order: nothing falls over, and what an application reads is what was
//! judged.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::rig::*;
use crate::http::h1::tests::model;
use crate::id::LinkId;
use crate::link::CloseCause;
use crate::proxy::Input;

const REQUESTS: [&str; 19] = [
    "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    "HEAD /h HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /admin HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /./%61dmin/x HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET http://b//..//admin HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    "POST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n",
    "POST /c HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n",
    "POST /admin HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
    "hello",
    "5\r\nhello\r\n",
    "1;x=y\r\nx\r\n",
    "0\r\n\r\n",
    "0\r\nx: y\r\n\r\n",
    "\r\n",
    "PUT /d HTTP/1.1\r\nhost: a\r\nx-forwarded-client-cert: \"\r\nconnection: x, close\r\nx: \r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "\0\n",
];

const ANSWERS: [&str; 14] = [
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n",
    "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "hello",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "\0",
];

#[derive(Clone, Debug)]
enum Move {
    /// A client says so much of one of `REQUESTS`; a new one if there is none.
    Client(usize, usize, usize),
    /// An application says so much of one of `ANSWERS`.
    App(usize, usize, usize),
    Connect(bool),
    Finish(usize),
    Close(usize),
    Read(usize, bool),
    Wait(u64),
    Drain,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let whole = || prop_oneof![9 => Just(usize::MAX), 1 => 1..40usize];
    let one = prop_oneof![
        14 => (0..3usize, 0..REQUESTS.len(), whole()).prop_map(|(c, r, n)| Move::Client(c, r, n)),
        14 => (0..4usize, 0..ANSWERS.len(), whole()).prop_map(|(c, a, n)| Move::App(c, a, n)),
        10 => prop::bool::weighted(0.9).prop_map(Move::Connect),
        1 => (0..7usize).prop_map(Move::Finish),
        1 => (0..7usize).prop_map(Move::Close),
        1 => (0..7usize, any::<bool>()).prop_map(|(nth, reads)| Move::Read(nth, reads)),
        1 => (0..30u64).prop_map(Move::Wait),
        1 => prop::bool::weighted(0.02).prop_map(|drain| if drain { Move::Drain } else { Move::Wait(0) }),
    ];
    prop::collection::vec(one, 20..200)
}

fn start(of: &str, len: usize) -> &str {
    &of[..len.min(of.len())]
}

/// Collects what each application got.
fn listen(rig: &mut Rig, seen: &mut BTreeMap<LinkId, String>) {
    for app in rig.upstreams() {
        seen.entry(app).or_default().push_str(&rig.got(app));
    }
}

/// Plays `moves`, then ends every link.
fn play(moves: Vec<Move>) -> Result<(), TestCaseError> {
    let mut rig = Rig::new(NO_ADMIN);
    let mut clients: Vec<LinkId> = Vec::new();
    let mut seen = BTreeMap::new();
    for step in moves {
        listen(&mut rig, &mut seen);
        let open = |rig: &Rig, nth: usize| {
            let mut links = rig.upstreams();
            links.extend(&clients);
            links.retain(|id| rig.end(*id) != End::Reset && !rig.is_gone(*id));
            (!links.is_empty()).then(|| links[nth % links.len()])
        };
        match step {
            Move::Client(nth, what, len) => {
                clients.retain(|id| rig.end(*id) != End::Reset && !rig.is_gone(*id));
                if clients.len() <= nth {
                    clients.push(rig.client());
                }
                let client = clients[nth.min(clients.len() - 1)];
                rig.send(client, start(REQUESTS[what], len));
            }
            Move::App(nth, what, len) => {
                let apps: Vec<LinkId> = rig.upstreams();
                if let Some(app) = apps.get(nth).filter(|id| rig.end(**id) != End::Reset) {
                    rig.send(*app, start(ANSWERS[what], len));
                }
            }
            Move::Connect(up) => match rig.dialled() {
                Some(id) if up && rig.end(id) == End::Open => rig.connected(id),
                Some(id) => rig.close(id, CloseCause::Refused),
                None => {}
            },
            Move::Finish(nth) => {
                if let Some(id) = open(&rig, nth) {
                    rig.finish(id);
                }
            }
            Move::Close(nth) => {
                if let Some(id) = open(&rig, nth) {
                    rig.close(id, CloseCause::Reset);
                }
            }
            Move::Read(nth, reads) => match open(&rig, nth) {
                Some(id) if reads => rig.resume(id),
                Some(id) => rig.stall(id),
                None => {}
            },
            Move::Wait(seconds) => rig.wait(Duration::from_secs(seconds)),
            Move::Drain => rig.input(Input::Drain {
                grace: Duration::from_secs(9),
            }),
        }
    }
    listen(&mut rig, &mut seen);
    let mut forwarded = 0;
    for (app, bytes) in &seen {
        let (requests, left) = match model::read_all(bytes.as_bytes()) {
            Ok(read) => read,
            Err(what) => return Err(TestCaseError::fail(format!("{app:?}: {what}: {bytes:?}"))),
        };
        forwarded += requests.len() + usize::from(left > 0);
        for request in requests {
            let target = String::from_utf8_lossy(&request.target).into_owned();
            prop_assert!(!target.starts_with("/admin"), "{target}");
        }
    }
    rig.close_all();
    prop_assert_eq!(rig.proxy.links(), 0);
    let stats = rig.proxy.stats().clone();
    let records = rig.records();
    let of_requests = records.iter().filter(|r| r.method.is_some()).count() as u64;
    prop_assert_eq!(of_requests, stats.requests, "one record for each request");
    prop_assert!(forwarded as u64 <= stats.requests - stats.denied);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn whatever_is_said_is_judged_forwarded_once_and_recorded_once(moves in moves()) {
        play(moves)?;
    }
}
