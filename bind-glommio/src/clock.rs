//! Where the machines' time comes from.

use std::time::{Duration, Instant as StdInstant, SystemTime, UNIX_EPOCH};

use meshward_core::clock::{Instant, Now, UnixTime};

/// Both clocks of the operating system, as machines want them. Give all shards copies of one, so that their instants compare.
///
/// The monotonic clock is read at each [`now`](Self::now); the wall clock only at [`refresh`](Self::refresh), and is carried
/// forward by the monotonic one in between.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: StdInstant,
    /// Nanoseconds from 1970 to `origin`, by the last look at the wall clock.
    epoch_ns: u64,
}

impl Clock {
    pub fn start() -> Self {
        let mut clock = Self {
            origin: StdInstant::now(),
            epoch_ns: 0,
        };
        clock.refresh();
        clock
    }

    /// Follows a wall clock that was set. The driver does so once per turn.
    pub fn refresh(&mut self) {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.epoch_ns = ns(wall).saturating_sub(self.at().0);
    }

    pub fn now(&self) -> Now {
        let at = self.at();
        Now {
            at,
            wall: UnixTime(self.epoch_ns.saturating_add(at.0) / 1_000_000),
        }
    }

    fn at(&self) -> Instant {
        Instant(ns(self.origin.elapsed()))
    }
}

fn ns(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_is_that_of_the_system() {
        let now = Clock::start().now().wall.0;
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(system.as_millis().abs_diff(u128::from(now)) < 1_000);
    }

    #[test]
    fn time_does_not_go_back_when_the_wall_clock_is_read_again() {
        let mut clock = Clock::start();
        let before = clock.now();
        clock.refresh();
        assert!(clock.now().at >= before.at);
    }
}
