//! The clients and applications of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use meshward_core::clock::{Instant, Now};
use meshward_core::id::LinkId;

use super::plan::{ConnPlan, Leave, Manners, Service, answer_of, id_of_target};
use crate::chance::Chance;
use crate::http::{Message, Reader, chunked};
use crate::peer::{Ending, Hands, Script};
use crate::tls::TlsClient;

/// One of the three kinds of peers.
#[derive(Debug)]
pub enum Actor {
    Client(Client),
    App(App),
    Echo,
}

impl Script for Actor {
    fn on_change(&mut self, link: LinkId, now: Now, hands: &mut Hands) {
        match self {
            Self::Client(client) => client.on_change(link, now.at, hands),
            Self::App(app) => app.on_change(link, now.at, hands),
            Self::Echo => echo(link, hands),
        }
    }

    fn due(&self) -> Option<Instant> {
        match self {
            Self::Client(client) => client.agenda.first().map(|(at, ..)| *at),
            Self::App(app) => app.agenda.first().map(|(at, _)| *at),
            Self::Echo => None,
        }
    }

    fn tick(&mut self, now: Now, hands: &mut Hands) {
        match self {
            Self::Client(client) => client.tick(now.at, hands),
            Self::App(app) => app.tick(now.at, hands),
            Self::Echo => {}
        }
    }
}

/// How long a client waits for everything; longer than every timeout of a proxy under which it may lie.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Open,
    Reset,
    GiveUp,
}

/// One connection as it was planned, and where it goes.
#[derive(Debug)]
pub struct Task {
    pub plan: ConnPlan,
    pub to: SocketAddr,
    pub tls: Option<TlsClient>,
}

/// What a client saw on one connection.
#[derive(Debug)]
pub struct Talk {
    pub plan: ConnPlan,
    pub link: Option<LinkId>,
    pub reader: Reader,
    /// Requests whose bytes were sent.
    pub sent: usize,
    to: SocketAddr,
    tls: Option<TlsClient>,
    fed: usize,
}

/// Opens connections as planned.
#[derive(Debug)]
pub struct Client {
    pub talks: Vec<Talk>,
    by_link: BTreeMap<LinkId, usize>,
    agenda: BTreeSet<(Instant, usize, Step)>,
}

impl Client {
    pub fn new(tasks: Vec<Task>) -> Self {
        let agenda = tasks.iter().enumerate().map(|(i, task)| {
            let at = Instant(0).after(task.plan.at);
            (at, i, Step::Open)
        });
        Self {
            agenda: agenda.collect(),
            talks: tasks
                .into_iter()
                .map(|task| Talk {
                    plan: task.plan,
                    link: None,
                    reader: Reader::of_responses(),
                    sent: 0,
                    to: task.to,
                    tls: task.tls,
                    fed: 0,
                })
                .collect(),
            by_link: BTreeMap::new(),
        }
    }

    fn tick(&mut self, now: Instant, hands: &mut Hands) {
        while let Some((at, index, step)) = self.agenda.first().copied() {
            if at > now {
                break;
            }
            self.agenda.pop_first();
            let talk = &mut self.talks[index];
            match (step, talk.link) {
                (Step::Open, _) => {
                    let link = hands.open(talk.to, None, talk.tls.take());
                    talk.link = Some(link);
                    self.by_link.insert(link, index);
                    self.agenda
                        .insert((at.after(PATIENCE), index, Step::GiveUp));
                    self.go_on(index, now, hands);
                }
                (Step::Reset | Step::GiveUp, Some(link)) => hands.reset(link),
                (Step::Reset | Step::GiveUp, None) => {}
            }
        }
    }

    fn on_change(&mut self, link: LinkId, now: Instant, hands: &mut Hands) {
        let Some(index) = self.by_link.get(&link).copied() else {
            return;
        };
        let talk = &mut self.talks[index];
        let conn = hands.conn(link);
        if talk.plan.service == Service::Http {
            talk.reader.push(&conn.received[talk.fed..]);
            talk.fed = conn.received.len();
            if conn.ending == Some(Ending::Fin) {
                talk.reader.end();
            }
        }
        if conn.closed {
            self.agenda.retain(|(_, i, _)| *i != index);
            return;
        }
        self.go_on(index, now, hands);
    }

    /// Sends what is next, and leaves when it is time.
    fn go_on(&mut self, index: usize, now: Instant, hands: &mut Hands) {
        let talk = &mut self.talks[index];
        let Some(link) = talk.link else { return };
        let answered = match talk.plan.service {
            Service::Http => talk.reader.messages().iter().filter(|m| m.complete).count(),
            Service::Tcp => {
                let wanted: usize = talk.plan.requests.iter().map(|r| r.body.len()).sum();
                usize::from(hands.conn(link).received.len() >= wanted)
            }
        };
        let all = talk.plan.requests.len();
        while talk.sent < all && (talk.plan.pipelined || talk.sent <= answered) {
            let wire = &talk.plan.requests[talk.sent].wire;
            talk.sent += 1;
            hands.send(link, wire);
            if talk.sent == all {
                match talk.plan.leave {
                    Leave::AfterAnswers => {}
                    Leave::AfterRequests => hands.finish(link),
                    Leave::Reset(after) => {
                        self.agenda.insert((now.after(after), index, Step::Reset));
                    }
                }
            }
        }
        let over = hands.conn(link).ending.is_some() || answered == all;
        if over && !hands.conn(link).finished {
            hands.finish(link);
        }
    }
}

/// What one connection brought to an application.
#[derive(Debug)]
struct Visit {
    reader: Reader,
    fed: usize,
    answered: usize,
    /// Not before this instant.
    ready: Option<Instant>,
}

/// Answers HTTP requests, with manners that depend on the request's id.
#[derive(Debug)]
pub struct App {
    seed: u64,
    manners: Manners,
    visits: BTreeMap<LinkId, Visit>,
    agenda: BTreeSet<(Instant, LinkId)>,
}

impl App {
    pub fn new(seed: u64, manners: Manners) -> Self {
        Self {
            seed,
            manners,
            visits: BTreeMap::new(),
            agenda: BTreeSet::new(),
        }
    }

    /// Every request that arrived, whole or not, and whether its connection spoke HTTP throughout.
    pub fn arrivals(&self) -> impl Iterator<Item = &Message> {
        self.visits.values().flat_map(|v| v.reader.messages())
    }

    pub fn is_broken(&self) -> bool {
        self.visits.values().any(|v| v.reader.is_broken())
    }

    fn tick(&mut self, now: Instant, hands: &mut Hands) {
        while let Some((at, link)) = self.agenda.first().copied() {
            if at > now {
                break;
            }
            self.agenda.pop_first();
            self.answer(link, now, hands);
        }
    }

    fn on_change(&mut self, link: LinkId, now: Instant, hands: &mut Hands) {
        let conn = hands.conn(link);
        let visit = self.visits.entry(link).or_insert_with(|| Visit {
            reader: Reader::of_requests(),
            fed: 0,
            answered: 0,
            ready: None,
        });
        visit.reader.push(&conn.received[visit.fed..]);
        visit.fed = conn.received.len();
        if conn.closed {
            self.agenda.retain(|(_, l)| *l != link);
            return;
        }
        self.answer(link, now, hands);
    }

    fn answer(&mut self, link: LinkId, now: Instant, hands: &mut Hands) {
        let Some(visit) = self.visits.get_mut(&link) else {
            return;
        };
        while let Some(request) = visit.reader.messages().get(visit.answered) {
            let id = id_of_target(request.target()).unwrap_or_default();
            let mut chance = Chance::new(self.seed ^ id, 3);
            let early = chance.one_in(self.manners.early_one_in);
            if !request.complete && !early {
                break;
            }
            let delay = chance.one_in(self.manners.delay_one_in);
            let wait = Duration::from_micros(chance.within(1..=30_000));
            match visit.ready {
                None if delay => {
                    let at = now.after(wait);
                    visit.ready = Some(at);
                    self.agenda.insert((at, link));
                    return;
                }
                Some(at) if at > now => return,
                _ => visit.ready = None,
            }
            visit.answered += 1;
            let close = chance.one_in(self.manners.close_one_in);
            let wire = response(200, id, close, &mut chance);
            if chance.one_in(self.manners.reset_one_in) {
                hands.send(link, &wire[..chance.index(wire.len())]);
                hands.reset(link);
                return;
            }
            hands.send(link, &wire);
            if close {
                hands.finish(link);
                return;
            }
        }
        if hands.conn(link).ending.is_some() {
            hands.finish(link);
        }
    }
}

/// The bytes of the answer to request `id`. Of errors the head is enough.
pub(super) fn response(status: u16, id: u64, close: bool, chance: &mut Chance) -> Vec<u8> {
    let reason = if status == 200 {
        "OK"
    } else {
        "Internal Server Error"
    };
    let mut wire = format!("HTTP/1.1 {status} {reason}\r\nx-sim-id: {id}\r\n").into_bytes();
    if close {
        wire.extend_from_slice(b"connection: close\r\n");
    }
    let body = if status == 200 {
        answer_of(id)
    } else {
        Vec::new()
    };
    if chance.one_in(2) && !body.is_empty() {
        wire.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        wire.extend_from_slice(&chunked(&body, &[chance.index(body.len())]));
    } else {
        wire.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        wire.extend_from_slice(&body);
    }
    wire
}

/// Sends back what comes.
fn echo(link: LinkId, hands: &mut Hands) {
    let conn = hands.conn(link);
    let news = conn.received[conn.told..].to_vec();
    let over = conn.ending.is_some();
    hands.told(link);
    if !news.is_empty() {
        hands.send(link, &news);
    }
    if over {
        hands.finish(link);
    }
}
