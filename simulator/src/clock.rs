//! Virtual time: how a process reads the two clocks, and a clock for rustls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meshward_core::clock::{Instant, Now, UnixTime};
use rustls::pki_types;
use rustls::time_provider::TimeProvider;

/// Wall time at the birth of every world: 2026-01-01T00:00:00Z.
pub const BIRTH: UnixTime = UnixTime(1_767_225_600_000);

/// The wall clock of one process: virtual time plus a skew that may change at any moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallClock {
    skew_ms: i64,
}

impl WallClock {
    /// A clock that is ahead by `skew_ms` milliseconds, or behind if it is negative.
    pub fn skewed(skew_ms: i64) -> Self {
        Self { skew_ms }
    }

    /// Both clocks at the virtual instant `at`.
    pub fn read(self, at: Instant) -> Now {
        let true_time = BIRTH.0 + at.0 / 1_000_000;
        Now {
            at,
            wall: UnixTime(true_time.saturating_add_signed(self.skew_ms)),
        }
    }
}

/// The clock that scripted TLS peers show to rustls. Set before each event, read by whoever holds a clone.
#[derive(Clone, Debug)]
pub struct SharedClock(Arc<AtomicU64>);

impl Default for SharedClock {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(BIRTH.0)))
    }
}

impl SharedClock {
    pub fn set(&self, wall: UnixTime) {
        self.0.store(wall.0, Ordering::Relaxed);
    }
}

impl TimeProvider for SharedClock {
    fn current_time(&self) -> Option<pki_types::UnixTime> {
        let since = Duration::from_millis(self.0.load(Ordering::Relaxed));
        Some(pki_types::UnixTime::since_unix_epoch(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skewed_clock_shifts_wall_time_and_leaves_timers_alone() {
        let at = Instant(5_000_000_000);
        let (right, late) = (
            WallClock::default().read(at),
            WallClock::skewed(-60_000).read(at),
        );
        assert_eq!(right.at, late.at);
        assert_eq!(right.wall.0 - late.wall.0, 60_000);
        assert_eq!(right.wall.to_string(), "2026-01-01T00:00:05.000Z");
    }
}
