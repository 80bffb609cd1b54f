//! A clock for sidecars that real drivers run: it stands still, and runs a hundred times as fast while a scenario says
//! `advance`.
//!
//! The driver's own clock and timers stay in use: a machine's deadline is handed to the driver in real time, and the clock
//! waits at each deadline until the machine has heard of it. So every timeout fires at its very instant, however slow the
//! machine under the test is. Wall time is left alone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as StdInstant};

use meshward_core::clock::{Deadline, Instant, Now};
use meshward_core::machine::Machine;
use meshward_core::proxy::{Action, Input};

/// How many seconds pass for machines in a second of real time.
const SPEED: u64 = 100;

/// The clock, shared by the machines of one scenario and whoever moves it.
#[derive(Clone, Debug)]
pub struct Pace(Arc<Mutex<Course>>);

#[derive(Debug)]
struct Course {
    now: Instant,
    /// Where the clock stops.
    target: Instant,
    /// When somebody looked last.
    looked: StdInstant,
    /// What each machine waits for.
    deadlines: Vec<Option<Instant>>,
}

impl Course {
    fn look(&mut self, real: StdInstant) -> Instant {
        let gone = real.saturating_duration_since(self.looked);
        self.looked = self.looked.max(real);
        let earliest = self.deadlines.iter().flatten().min();
        let stop = earliest.map_or(self.target, |at| self.target.min(*at));
        let free = self.now.after(gone * SPEED as u32);
        self.now = self.now.max(free.min(stop));
        self.now
    }

    fn is_moving(&self) -> bool {
        self.now < self.target
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Course {
            now: Instant::default(),
            target: Instant::default(),
            looked: StdInstant::now(),
            deadlines: Vec::new(),
        })))
    }
}

impl Pace {
    fn course(&self) -> MutexGuard<'_, Course> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What machines are told.
    pub fn now(&self) -> Instant {
        self.course().look(StdInstant::now())
    }

    /// Lets `span` pass. Whoever drives the machines has to give each of them a `Tick`, so that their timers are set anew.
    pub fn advance(&self, span: Duration) {
        let mut course = self.course();
        course.look(StdInstant::now());
        course.target = course.target.after(span);
    }

    /// All of it has passed, and every machine has heard of what was due.
    pub fn has_arrived(&self) -> bool {
        let mut course = self.course();
        course.look(StdInstant::now());
        let target = course.target;
        !course.is_moving() && course.deadlines.iter().flatten().all(|at| *at > target)
    }
}

/// A machine that lives by a [`Pace`], or by the driver's time if there is none.
#[derive(Debug)]
pub struct Paced<M> {
    machine: M,
    pace: Option<(Pace, usize)>,
    /// The last input, in the driver's time and in the machine's.
    heard: (Instant, Instant),
}

impl<M> Paced<M> {
    /// `make` makes the machine with the time that it will live by; `now` is the driver's.
    pub fn new(pace: Option<Pace>, now: Now, make: impl FnOnce(Now) -> M) -> Self {
        let mut ours = now;
        let pace = pace.map(|pace| {
            ours.at = pace.now();
            let index = {
                let mut course = pace.course();
                course.deadlines.push(None);
                course.deadlines.len() - 1
            };
            (pace, index)
        });
        Self {
            machine: make(ours),
            pace,
            heard: (now.at, ours.at),
        }
    }
}

impl<M: Machine<Input = Input, Action = Action>> Machine for Paced<M> {
    type Input = Input;
    type Action = Action;

    fn handle(&mut self, input: Input, now: Now) {
        let mut ours = now;
        if let Some((pace, _)) = &self.pace {
            ours.at = pace.now();
        }
        self.heard = (now.at, ours.at);
        self.machine.handle(input, ours);
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.machine.poll_action()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let deadline = self.machine.poll_timeout();
        let Some((pace, index)) = &self.pace else {
            return deadline;
        };
        let mut course = pace.course();
        course.deadlines[*index] = deadline.map(|d| d.at);
        let (driver, ours) = self.heard;
        deadline.filter(|_| course.is_moving()).map(|d| Deadline {
            // Rounded up: a deadline lies strictly ahead, also in the driver's time.
            at: Instant(driver.0 + d.at.0.saturating_sub(ours.0).div_ceil(SPEED).max(1)),
            why: d.why,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for one instant after another, and notes when it was woken.
    #[derive(Debug, Default)]
    struct Sleeper {
        wants: Vec<u64>,
        woken: Vec<u64>,
    }

    impl Machine for Sleeper {
        type Input = Input;
        type Action = Action;

        fn handle(&mut self, _: Input, now: Now) {
            while self.wants.first().is_some_and(|at| *at <= now.at.0) {
                self.wants.remove(0);
                self.woken.push(now.at.0);
            }
        }

        fn poll_action(&mut self) -> Option<Action> {
            None
        }

        fn poll_timeout(&self) -> Option<Deadline> {
            self.wants.first().map(|at| Deadline {
                at: Instant(*at),
                why: "test",
            })
        }
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn the_clock_stands_still_until_it_is_told_to_move_and_stops_where_it_should() {
        let pace = Pace::default();
        let later = |s| StdInstant::now() + Duration::from_secs(s);
        assert_eq!(pace.course().look(later(5)), Instant(0));
        pace.advance(Duration::from_secs(3));
        assert!(!pace.has_arrived());
        assert_eq!(pace.course().look(later(50)), Instant(3 * SECOND));
        assert!(pace.has_arrived());
        assert_eq!(pace.course().look(later(500)), Instant(3 * SECOND));
    }

    #[test]
    fn the_clock_waits_at_each_deadline_until_the_machine_has_heard_of_it() {
        let pace = Pace::default();
        let real = Now::default();
        let mut machine = Paced::new(Some(pace.clone()), real, |_| Sleeper {
            wants: vec![SECOND, 2 * SECOND, 9 * SECOND],
            woken: Vec::new(),
        });
        assert_eq!(
            machine.poll_timeout(),
            None,
            "nothing comes while it stands"
        );
        pace.advance(Duration::from_secs(4));
        machine.handle(Input::Tick, real);
        let due = machine.poll_timeout().map(|d| d.at.0);
        assert!(
            due.is_some_and(|at| at > 0 && at <= SECOND / SPEED),
            "{due:?}"
        );
        let far = || StdInstant::now() + Duration::from_secs(60);
        for at in [SECOND, 2 * SECOND] {
            assert_eq!(pace.course().look(far()), Instant(at));
            assert!(!pace.has_arrived());
            pace.course().looked = StdInstant::now();
            machine.handle(Input::Tick, real);
            machine.poll_timeout();
        }
        assert_eq!(pace.course().look(far()), Instant(4 * SECOND));
        assert!(pace.has_arrived());
        assert_eq!(machine.machine.woken, [SECOND, 2 * SECOND]);
    }

    #[test]
    fn without_a_pace_time_is_that_of_the_driver() {
        let mut machine = Paced::new(None, Now::default(), |_| Sleeper {
            wants: vec![7],
            woken: Vec::new(),
        });
        assert_eq!(machine.poll_timeout().map(|d| d.at), Some(Instant(7)));
        let now = Now {
            at: Instant(7),
            ..Now::default()
        };
        machine.handle(Input::Tick, now);
        assert_eq!(machine.machine.woken, [7]);
    }
}
