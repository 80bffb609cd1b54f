//! Who waits for time, in the order of its coming.
//!
//! Each sleeper has at most one entry. Moving a deadline to a later time leaves the entry where it is: it comes up early and is
//! queued anew. So the usual case, a deadline pushed on by each message, costs one comparison however many sleepers there are.

use std::collections::BTreeSet;

use meshward_core::clock::Instant;

use crate::driver::ProxyId;

/// Who is to be woken. Those of one instant are woken in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sleeper {
    /// Its machine wants a `Tick`.
    Proxy(ProxyId),
    /// The listener of this slot has rested.
    Listener(u32),
}

/// What a sleeper remembers. Kept beside it, so that the queue stays small.
#[derive(Debug, Default)]
pub(crate) struct Due {
    at: Option<Instant>,
    queued: Option<Instant>,
}

impl Due {
    pub(crate) fn is_set(&self) -> bool {
        self.at.is_some()
    }
}

/// The queue of one driver.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    queue: BTreeSet<(Instant, Sleeper)>,
}

impl Deadlines {
    /// Sets, moves or (with `None`) forgets a deadline.
    pub(crate) fn set(&mut self, due: &mut Due, sleeper: Sleeper, at: Option<Instant>) {
        due.at = at;
        if let Some(at) = at
            && due.queued.is_none_or(|queued| at < queued)
        {
            self.unqueue(due, sleeper);
            self.enqueue(due, sleeper, at);
        }
    }

    /// Removes every trace of a sleeper that goes.
    pub(crate) fn forget(&mut self, due: &mut Due, sleeper: Sleeper) {
        due.at = None;
        self.unqueue(due, sleeper);
    }

    /// Nobody is to be woken before. It may be early.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes the earliest entry with `at <= now`. The caller hands its `Due` to [`wake`](Self::wake).
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Sleeper> {
        let (at, sleeper) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.queue.pop_first();
        Some(sleeper)
    }

    /// Called for a sleeper that was popped. `true`: its time has come, and it has no deadline now.
    pub(crate) fn wake(&mut self, due: &mut Due, sleeper: Sleeper, now: Instant) -> bool {
        due.queued = None;
        match due.at {
            Some(at) if at <= now => {
                due.at = None;
                true
            }
            Some(at) => {
                self.enqueue(due, sleeper, at);
                false
            }
            None => false,
        }
    }

    fn enqueue(&mut self, due: &mut Due, sleeper: Sleeper, at: Instant) {
        due.queued = Some(at);
        self.queue.insert((at, sleeper));
    }

    fn unqueue(&mut self, due: &mut Due, sleeper: Sleeper) {
        if let Some(at) = due.queued.take() {
            self.queue.remove(&(at, sleeper));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(i: u32) -> Sleeper {
        Sleeper::Proxy(ProxyId(i))
    }

    fn at(t: u64) -> Option<Instant> {
        Some(Instant(t))
    }

    #[test]
    fn three_hundred_are_woken_in_the_order_of_their_time() {
        let mut deadlines = Deadlines::default();
        let mut dues: Vec<Due> = (0..300).map(|_| Due::default()).collect();
        for (due, i) in dues.iter_mut().zip(0..) {
            deadlines.set(due, proxy(i), at(u64::from(i * 7 % 300) + 1));
        }
        let mut woken = Vec::new();
        for now in 1..=300 {
            while let Some(Sleeper::Proxy(id)) = deadlines.pop(Instant(now)) {
                let due = &mut dues[id.0 as usize];
                assert!(deadlines.wake(due, proxy(id.0), Instant(now)));
                woken.push((now, id.0));
            }
        }
        let mut expected: Vec<_> = (0..300).map(|i| (u64::from(i * 7 % 300) + 1, i)).collect();
        expected.sort_unstable();
        assert_eq!(woken, expected);
        assert_eq!(deadlines.first(), None);
    }

    #[test]
    fn a_deadline_that_moves_on_keeps_its_entry_and_comes_up_once() {
        let mut deadlines = Deadlines::default();
        let mut due = Due::default();
        for t in 5..100 {
            deadlines.set(&mut due, proxy(0), at(t));
        }
        assert_eq!(deadlines.queue.len(), 1);
        assert_eq!(deadlines.pop(Instant(5)), Some(proxy(0)), "early");
        assert!(!deadlines.wake(&mut due, proxy(0), Instant(5)));
        assert_eq!(deadlines.first(), at(99));
        assert_eq!(deadlines.pop(Instant(98)), None);
        assert_eq!(deadlines.pop(Instant(99)), Some(proxy(0)));
        assert!(deadlines.wake(&mut due, proxy(0), Instant(99)));
        assert_eq!(due.at, None);
        assert_eq!(deadlines.first(), None);
    }

    #[test]
    fn a_deadline_that_moves_closer_comes_up_once_and_earlier() {
        let mut deadlines = Deadlines::default();
        let mut due = Due::default();
        deadlines.set(&mut due, proxy(0), at(9));
        deadlines.set(&mut due, proxy(0), at(4));
        assert_eq!(deadlines.pop(Instant(4)), Some(proxy(0)));
        assert!(deadlines.wake(&mut due, proxy(0), Instant(4)));
        assert_eq!(deadlines.pop(Instant(100)), None);
    }

    #[test]
    fn a_forgotten_sleeper_is_not_woken() {
        let mut deadlines = Deadlines::default();
        let mut due = Due::default();
        deadlines.set(&mut due, proxy(0), at(9));
        deadlines.set(&mut due, proxy(0), None);
        assert_eq!(deadlines.pop(Instant(9)), Some(proxy(0)));
        assert!(!deadlines.wake(&mut due, proxy(0), Instant(9)));

        deadlines.set(&mut due, proxy(0), at(12));
        deadlines.forget(&mut due, proxy(0));
        assert_eq!(deadlines.first(), None);
    }
}
