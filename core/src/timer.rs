//! The deadlines of one machine's links.
//!
//! A link has at most one entry in the queue. Moving a deadline to a later time leaves the entry where it is (it fires
//! early, finds that, and is queued anew), so the usual case, a deadline pushed on by each message, costs one comparison.
//! Equal instants fire in the order of the ids. Knows no clock: time is an argument.

use std::collections::BTreeSet;

use crate::clock::{Deadline, Instant};
use crate::id::LinkId;

/// What a link remembers of its deadline. Kept beside the link, so that the queue stays small.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer {
    due: Option<Deadline>,
    queued: Option<Instant>,
}

impl Timer {
    /// The deadline that is in force.
    pub fn due(&self) -> Option<Deadline> {
        self.due
    }
}

/// The queue, ordered by time.
#[derive(Debug, Default)]
pub struct Timers {
    queue: BTreeSet<(Instant, LinkId)>,
    next: Option<Deadline>,
}

impl Timers {
    /// Sets, moves or (with `None`) forgets the deadline of `link`.
    pub fn set(&mut self, timer: &mut Timer, link: LinkId, due: Option<Deadline>) {
        timer.due = due;
        let Some(due) = due else { return };
        match timer.queued {
            Some(at) if at <= due.at => {}
            Some(at) => {
                self.queue.remove(&(at, link));
                self.enqueue(timer, link, due);
            }
            None => self.enqueue(timer, link, due),
        }
    }

    /// Removes every trace of a link that has ended.
    pub fn forget(&mut self, timer: &mut Timer, link: LinkId) {
        timer.due = None;
        if let Some(at) = timer.queued.take() {
            self.queue.remove(&(at, link));
        }
        self.refresh();
    }

    /// Takes the earliest entry with `at <= now`. The caller hands its timer to [`Timers::fire`].
    pub fn pop(&mut self, now: Instant) -> Option<LinkId> {
        let (_, link) = *self.queue.first().filter(|(at, _)| *at <= now)?;
        self.queue.pop_first();
        self.refresh();
        Some(link)
    }

    /// Called with the timer of a popped link: the deadline if it is due at `now`; else it is queued again.
    pub fn fire(&mut self, timer: &mut Timer, link: LinkId, now: Instant) -> Option<Deadline> {
        timer.queued = None;
        let due = timer.due?;
        if due.at <= now {
            timer.due = None;
            return Some(due);
        }
        self.enqueue(timer, link, due);
        None
    }

    /// The earliest entry. It may be early, and its reason is that of the link's deadline when it was queued.
    pub fn next(&self) -> Option<Deadline> {
        self.next
    }

    pub fn check(&self, now: Instant) {
        assert!(
            self.queue.first().is_none_or(|(at, _)| *at > now),
            "a due deadline was not taken"
        );
    }

    fn enqueue(&mut self, timer: &mut Timer, link: LinkId, due: Deadline) {
        timer.queued = Some(due.at);
        self.queue.insert((due.at, link));
        if self.next.is_none_or(|n| due.at < n.at) {
            self.next = Some(due);
        }
    }

    fn refresh(&mut self) {
        let first = self.queue.first().map(|(at, _)| *at);
        if self.next.map(|n| n.at) != first {
            self.next = first.map(|at| Deadline {
                at,
                why: "link deadline",
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(at: u64) -> Option<Deadline> {
        Some(Deadline {
            at: Instant(at),
            why: "test",
        })
    }

    #[test]
    fn a_deadline_moved_later_fires_once_at_its_new_time() {
        let (mut timers, mut timer, link) =
            (Timers::default(), Timer::default(), LinkId::accepted(1, 1));
        timers.set(&mut timer, link, due(5));
        timers.set(&mut timer, link, due(9));

        assert_eq!(timers.pop(Instant(5)), Some(link), "early");
        assert_eq!(timers.fire(&mut timer, link, Instant(5)), None);
        assert_eq!(timers.next().map(|d| d.at), Some(Instant(9)));
        assert_eq!(timers.pop(Instant(8)), None);
        assert_eq!(timers.pop(Instant(9)), Some(link));
        assert_eq!(timers.fire(&mut timer, link, Instant(9)), due(9));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_deadline_moved_earlier_fires_earlier() {
        let (mut timers, mut timer, link) =
            (Timers::default(), Timer::default(), LinkId::accepted(1, 1));
        timers.set(&mut timer, link, due(9));
        timers.set(&mut timer, link, due(4));
        assert_eq!(timers.pop(Instant(4)), Some(link));
        assert_eq!(timers.fire(&mut timer, link, Instant(4)), due(4));
        assert_eq!(timers.pop(Instant(100)), None, "one entry a link");
    }

    #[test]
    fn a_forgotten_link_never_fires() {
        let (mut timers, mut timer, link) =
            (Timers::default(), Timer::default(), LinkId::accepted(1, 1));
        timers.set(&mut timer, link, due(9));
        timers.forget(&mut timer, link);
        assert_eq!(timers.pop(Instant(100)), None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn equal_instants_fire_in_the_order_of_ids_however_they_were_set() {
        let mut timers = Timers::default();
        let links = [
            LinkId::accepted(3, 1),
            LinkId::accepted(1, 1),
            LinkId::opened(2, 1),
        ];
        let mut each = [Timer::default(); 3];
        for (timer, link) in each.iter_mut().zip(links) {
            timers.set(timer, link, due(4));
        }
        let fired: Vec<_> = std::iter::from_fn(|| timers.pop(Instant(4))).collect();
        let mut sorted = links;
        sorted.sort();
        assert_eq!(fired, sorted);
    }
}
