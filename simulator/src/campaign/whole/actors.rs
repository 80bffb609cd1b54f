//! The application of a pod: it calls as planned, answers what comes, and calls on where it is asked to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use meshward_core::clock::{Instant, Now};
use meshward_core::id::LinkId;

use super::super::actors::response;
use super::super::plan::{RequestPlan, id_of_target};
use super::plan::{Manners, SHOP, calls_on, request};
use crate::chance::Chance;
use crate::http::{Message, Reader};
use crate::peer::{Ending, Hands, Script};

/// How long a client waits for everything.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Open(usize),
    Reset(usize),
    GiveUp(usize),
    Answer(LinkId),
}

/// A connection that the application opens.
#[derive(Debug)]
pub struct Talk {
    pub service: usize,
    pub requests: Vec<RequestPlan>,
    pub link: Option<LinkId>,
    pub reader: Reader,
    /// When each request began to be sent.
    pub began: Vec<Instant>,
    pub reset_after: Option<Duration>,
    pipelined: bool,
    to: SocketAddr,
    fed: usize,
    /// The connection whose request waits for this one.
    for_visit: Option<LinkId>,
}

impl Talk {
    pub fn new(service: usize, to: SocketAddr, requests: Vec<RequestPlan>) -> Self {
        Self {
            service,
            requests,
            link: None,
            reader: Reader::of_responses(),
            began: Vec::new(),
            reset_after: None,
            pipelined: false,
            to,
            fed: 0,
            for_visit: None,
        }
    }

    pub fn pipelined(mut self, pipelined: bool, reset_after: Option<Duration>) -> Self {
        (self.pipelined, self.reset_after) = (pipelined, reset_after);
        self
    }

    fn answered(&self) -> usize {
        self.reader.messages().iter().filter(|m| m.complete).count()
    }
}

/// A connection that the application accepted.
#[derive(Debug)]
struct Visit {
    reader: Reader,
    /// When the head of each request had arrived.
    seen: Vec<Instant>,
    fed: usize,
    answered: usize,
    ready: Option<Instant>,
    asked: Asked,
}

/// What became of the call that the request at hand asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    No,
    Waits,
    /// With this status.
    Done(u16),
}

#[derive(Debug)]
pub struct App {
    seed: u64,
    manners: Manners,
    /// The address of each service, as this pod calls it.
    routes: Vec<(String, SocketAddr)>,
    pub talks: Vec<Talk>,
    by_link: BTreeMap<LinkId, usize>,
    visits: BTreeMap<LinkId, Visit>,
    /// Visits whose links are gone; ids come again.
    past: Vec<Visit>,
    agenda: BTreeSet<(Instant, Step)>,
}

impl App {
    pub fn new(seed: u64, manners: Manners, routes: Vec<(String, SocketAddr)>) -> Self {
        Self {
            seed,
            manners,
            routes,
            talks: Vec::new(),
            by_link: BTreeMap::new(),
            visits: BTreeMap::new(),
            past: Vec::new(),
            agenda: BTreeSet::new(),
        }
    }

    /// Where it finds a service.
    pub fn route(&self, service: usize) -> SocketAddr {
        self.routes[service].1
    }

    pub fn plan(&mut self, at: Duration, talk: Talk) {
        self.agenda
            .insert((Instant(0).after(at), Step::Open(self.talks.len())));
        self.talks.push(talk);
    }

    /// Every request that arrived, and when.
    pub fn arrivals(&self) -> impl Iterator<Item = (&Message, Instant)> {
        let visits = self.past.iter().chain(self.visits.values());
        visits.flat_map(|v| v.reader.messages().iter().zip(v.seen.iter().copied()))
    }

    pub fn is_broken(&self) -> bool {
        let mut visits = self.past.iter().chain(self.visits.values());
        visits.any(|v| v.reader.is_broken())
    }

    fn on_talk(&mut self, index: usize, now: Instant, hands: &mut Hands) {
        let talk = &mut self.talks[index];
        let Some(link) = talk.link else { return };
        let conn = hands.conn(link);
        talk.reader.push(&conn.received[talk.fed..]);
        talk.fed = conn.received.len();
        if conn.ending == Some(Ending::Fin) {
            talk.reader.end();
        }
        let (closed, over) = (conn.closed, conn.ending.is_some());
        if over || talk.answered() == talk.requests.len() {
            let status = talk.reader.messages().first().filter(|m| m.complete);
            let status = status.map_or(500, Message::status);
            if let Some(visit) = talk.for_visit.take() {
                self.answer_after(visit, status, now, hands);
            }
        }
        if closed {
            self.agenda.remove(&(now, Step::Reset(index)));
            self.agenda
                .retain(|(_, step)| *step != Step::Reset(index) && *step != Step::GiveUp(index));
            return;
        }
        self.go_on(index, now, hands);
    }

    fn go_on(&mut self, index: usize, now: Instant, hands: &mut Hands) {
        let talk = &mut self.talks[index];
        let Some(link) = talk.link else { return };
        let (answered, all) = (talk.answered(), talk.requests.len());
        while talk.began.len() < all && (talk.pipelined || talk.began.len() <= answered) {
            hands.send(link, &talk.requests[talk.began.len()].wire);
            talk.began.push(now);
            if let Some(after) = talk.reset_after
                && talk.began.len() == all
            {
                self.agenda.insert((now.after(after), Step::Reset(index)));
            }
        }
        let over = hands.conn(link).ending.is_some() || answered == all;
        if over && !hands.conn(link).finished {
            hands.finish(link);
        }
    }

    fn on_visit(&mut self, link: LinkId, now: Instant, hands: &mut Hands) {
        let conn = hands.conn(link);
        let visit = self.visits.entry(link).or_insert_with(|| Visit {
            reader: Reader::of_requests(),
            seen: Vec::new(),
            fed: 0,
            answered: 0,
            ready: None,
            asked: Asked::No,
        });
        visit.reader.push(&conn.received[visit.fed..]);
        visit.fed = conn.received.len();
        visit.seen.resize(visit.reader.messages().len(), now);
        if conn.closed {
            self.agenda.retain(|(_, step)| *step != Step::Answer(link));
            self.past.extend(self.visits.remove(&link));
            return;
        }
        self.answer(link, now, hands);
    }

    fn answer_after(&mut self, link: LinkId, status: u16, now: Instant, hands: &mut Hands) {
        if let Some(visit) = self.visits.get_mut(&link) {
            visit.asked = Asked::Done(status);
            self.answer(link, now, hands);
        }
    }

    fn answer(&mut self, link: LinkId, now: Instant, hands: &mut Hands) {
        while let Some(visit) = self.visits.get_mut(&link)
            && let Some(request) = visit.reader.messages().get(visit.answered)
            && request.complete
        {
            let id = id_of_target(request.target()).unwrap_or_default();
            let mut status = 200;
            match (visit.asked, calls_on(request.target(), id)) {
                (_, None) => {}
                (Asked::Waits, Some(_)) => return,
                (Asked::Done(of), Some(_)) => status = if of == 200 { 200 } else { 500 },
                (Asked::No, Some((service, id))) => {
                    visit.asked = Asked::Waits;
                    self.call_on(link, service, id, now);
                    return;
                }
            }
            let mut chance = Chance::new(self.seed ^ id, 8);
            let delay = chance.one_in(self.manners.delay_one_in);
            let wait = Duration::from_micros(chance.within(1..=30_000));
            match visit.ready {
                None if delay => {
                    let at = now.after(wait);
                    visit.ready = Some(at);
                    self.agenda.insert((at, Step::Answer(link)));
                    return;
                }
                Some(at) if at > now => return,
                _ => visit.ready = None,
            }
            visit.asked = Asked::No;
            visit.answered += 1;
            let close = chance.one_in(self.manners.close_one_in);
            let wire = response(status, id, close, &mut chance);
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

    fn call_on(&mut self, visit: LinkId, service: usize, id: u64, now: Instant) {
        let (name, to) = &self.routes[service];
        let host = format!("{name}.{SHOP}");
        let mut chance = Chance::new(self.seed ^ id, 9);
        let request = request(&host, id, format!("/ok/{id}"), 0, &mut chance);
        let mut talk = Talk::new(service, *to, vec![request]);
        talk.for_visit = Some(visit);
        self.agenda.insert((now, Step::Open(self.talks.len())));
        self.talks.push(talk);
    }
}

impl Script for App {
    fn on_change(&mut self, link: LinkId, now: Now, hands: &mut Hands) {
        match self.by_link.get(&link).copied() {
            Some(talk) => self.on_talk(talk, now.at, hands),
            None => self.on_visit(link, now.at, hands),
        }
    }

    fn due(&self) -> Option<Instant> {
        self.agenda.first().map(|(at, _)| *at)
    }

    fn tick(&mut self, now: Now, hands: &mut Hands) {
        while let Some((at, step)) = self.agenda.first().copied() {
            if at > now.at {
                break;
            }
            self.agenda.pop_first();
            match step {
                Step::Open(index) => {
                    let link = hands.open(self.talks[index].to, None, None);
                    self.talks[index].link = Some(link);
                    self.by_link.insert(link, index);
                    self.agenda
                        .insert((now.at.after(PATIENCE), Step::GiveUp(index)));
                    self.go_on(index, now.at, hands);
                }
                Step::Reset(index) | Step::GiveUp(index) => {
                    if let Some(link) = self.talks[index].link {
                        hands.reset(link);
                    }
                }
                Step::Answer(link) => self.answer(link, now.at, hands),
            }
        }
    }
}
