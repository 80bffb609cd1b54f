//! What crosses threads: the published cell.
//!
//! [`Published`]: a value that one thread replaces now and then and every shard reads, as snapshots and certificates. The
//! latest value wins; a slow reader never sees those in between. Nobody waits: there are two slots more than readers, so
//! that the writer finds one that is neither current nor being read, and both sides only try locks. No `unsafe`: a lock that
//! nobody contends for costs two atomic operations, and only when something changed.
//!
//! Checked by loom in `tests/loom_published.rs`, with a relaxed publication as the mutant that must fail.

use std::fmt;
use std::sync::{Arc, TryLockError};

#[cfg(loom)]
use loom::sync::{
    RwLock,
    atomic::{AtomicU64, Ordering},
};
#[cfg(not(loom))]
use std::sync::{
    RwLock,
    atomic::{AtomicU64, Ordering},
};

/// The writer's end: there is one.
pub struct Published<T> {
    shared: Arc<Shared<T>>,
    generation: u64,
    /// The slot of `generation`. Only the writer changes which.
    slot: u16,
}

/// A reader's end: one for each shard, made with the cell.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    /// The generation taken last; 0: none yet.
    seen: u64,
}

struct Shared<T> {
    /// Generation (48 bits) | slot (16 bits) of the latest value.
    published: AtomicU64,
    slots: Vec<RwLock<Slot<T>>>,
}

struct Slot<T> {
    generation: u64,
    value: Arc<T>,
}

impl<T> Published<T> {
    /// A cell that holds `value`, and its readers. Each reader's first [`Reader::changed`] gives what is current then.
    pub fn new(value: Arc<T>, readers: u16) -> (Self, Vec<Reader<T>>) {
        let slots = 0..u32::from(readers) + 2;
        let slot = |generation| {
            RwLock::new(Slot {
                generation,
                value: Arc::clone(&value),
            })
        };
        let shared = Arc::new(Shared {
            published: AtomicU64::new(pack(1, 0)),
            slots: slots.map(|nth| slot(u64::from(nth == 0))).collect(),
        });
        let reader = |_| Reader {
            shared: Arc::clone(&shared),
            seen: 0,
        };
        let readers = (0..readers).map(reader).collect();
        let writer = Self {
            shared,
            generation: 1,
            slot: 0,
        };
        (writer, readers)
    }

    /// Replaces the value. Whoever notices sees all that was done before this call.
    ///
    /// One pass over the slots finds a free one, unless a reader that was held up locks a slot that is no longer current just
    /// then; it lets go after cloning a pointer, and the next pass finds it.
    pub fn publish(&mut self, value: Arc<T>) {
        self.publish_with(value, Ordering::Release);
    }

    /// The mutant: whoever notices may see nothing of what was done before.
    #[cfg(loom)]
    pub fn publish_relaxed(&mut self, value: Arc<T>) {
        self.publish_with(value, Ordering::Relaxed);
    }

    fn publish_with(&mut self, value: Arc<T>, order: Ordering) {
        let generation = self.generation + 1;
        let mut fresh = Slot { generation, value };
        loop {
            for (slot, lock) in (0..).zip(&self.shared.slots) {
                if slot == self.slot {
                    continue;
                }
                let mut guard = match lock.try_write() {
                    Ok(guard) => guard,
                    Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                    Err(TryLockError::WouldBlock) => continue,
                };
                std::mem::swap(&mut *guard, &mut fresh);
                drop(guard);
                self.shared.published.store(pack(generation, slot), order);
                (self.generation, self.slot) = (generation, slot);
                // `fresh` is the slot's former value by now; its drop, which may be long, holds no lock.
                return;
            }
            relax();
        }
    }
}

impl<T> Reader<T> {
    /// The latest value, if it is newer than the one taken last. Costs one load if it is not.
    ///
    /// Never goes back to an older value. `None` also if the writer is replacing the value once more at this moment: then the
    /// next call gives that one.
    pub fn changed(&mut self) -> Option<Arc<T>> {
        let (generation, slot) = self.published();
        if generation <= self.seen {
            return None;
        }
        let lock = self.shared.slots.get(usize::from(slot))?;
        let guard = match lock.try_read() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        // INVARIANT: a slot is filled before its generation is published (`publish_with`), and only ever refilled with a later
        // one.
        assert!(
            guard.generation >= generation,
            "a published slot holds its generation or a later one"
        );
        self.seen = guard.generation;
        Some(Arc::clone(&guard.value))
    }

    /// Whether a newer value was published. If so, all that its writer did before is visible to this thread.
    pub fn is_behind(&self) -> bool {
        self.published().0 > self.seen
    }

    fn published(&self) -> (u64, u16) {
        unpack(self.shared.published.load(Ordering::Acquire))
    }
}

fn pack(generation: u64, slot: u16) -> u64 {
    generation << 16 | u64::from(slot)
}

fn unpack(packed: u64) -> (u64, u16) {
    (packed >> 16, packed as u16)
}

fn relax() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::hint::spin_loop();
}

impl<T> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Published(generation {})", self.generation)
    }
}

impl<T> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader(generation {})", self.seen)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Weak;

    use super::*;

    #[test]
    fn a_reader_begins_with_what_is_current() {
        let (mut cell, mut readers) = Published::new(Arc::new(1), 2);
        assert_eq!(readers[0].changed().as_deref(), Some(&1));
        assert_eq!(readers[0].changed(), None);

        cell.publish(Arc::new(2));
        assert_eq!(readers[1].changed().as_deref(), Some(&2));
        assert_eq!(readers[1].changed(), None);
    }

    #[test]
    fn the_latest_value_wins() {
        let (mut cell, mut readers) = Published::new(Arc::new(0), 1);
        for value in 1..=100 {
            cell.publish(Arc::new(value));
        }
        assert!(readers[0].is_behind());
        assert_eq!(readers[0].changed().as_deref(), Some(&100));
        assert!(!readers[0].is_behind());
        assert_eq!(readers[0].changed(), None);
    }

    #[test]
    fn the_writer_finds_a_slot_while_every_reader_holds_one() {
        let (mut cell, mut readers) = Published::new(Arc::new(0), 3);
        let shared = Arc::clone(&cell.shared);
        let mut guards = Vec::new();
        for value in 1..=3 {
            // A reader that is stopped in the middle of `changed`, each on another slot.
            guards.push(
                shared.slots[usize::from(cell.slot)]
                    .try_read()
                    .expect("current"),
            );
            cell.publish(Arc::new(value));
        }
        cell.publish(Arc::new(4));
        cell.publish(Arc::new(5));
        assert_eq!(readers[0].changed().as_deref(), Some(&5));
        assert_eq!(
            guards.iter().map(|g| *g.value).collect::<Vec<_>>(),
            [0, 1, 2]
        );
    }

    #[test]
    fn a_reader_does_not_wait_for_a_slot_that_is_being_written() {
        let (cell, mut readers) = Published::new(Arc::new(0), 1);
        let guard = cell.shared.slots[0].try_write().expect("free");
        assert_eq!(readers[0].changed(), None);
        drop(guard);
        assert_eq!(readers[0].changed().as_deref(), Some(&0));
    }

    #[test]
    fn old_values_are_dropped_in_the_end() {
        let (mut cell, readers) = Published::new(Arc::new(0), 1);
        let mut old: Vec<Weak<u8>> = Vec::new();
        for value in 1..=9 {
            let value = Arc::new(value);
            old.push(Arc::downgrade(&value));
            cell.publish(value);
        }
        let alive = old.iter().filter(|value| value.upgrade().is_some()).count();
        assert!(alive <= cell.shared.slots.len(), "{alive} values live");
        drop((cell, readers));
        assert!(old.iter().all(|value| value.upgrade().is_none()));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "threads are what is tested")]
    fn readers_on_threads_see_values_in_order_up_to_the_last() {
        const LAST: u32 = 2_000;
        let (mut cell, readers) = Published::new(Arc::new(0), 3);
        std::thread::scope(|scope| {
            for mut reader in readers {
                scope.spawn(move || {
                    let mut last = None;
                    while last != Some(LAST) {
                        if let Some(value) = reader.changed() {
                            assert!(Some(*value) > last, "{value} after {last:?}");
                            last = Some(*value);
                        }
                        std::thread::yield_now();
                    }
                });
            }
            for value in 1..=LAST {
                cell.publish(Arc::new(value));
            }
        });
    }
}
