//! The published cell under every interleaving and every stale load that the memory model allows.
//!
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target-loom cargo test -p meshward-core --test loom_published --release`

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test reads the shared material, which the core itself may not"
)]
#![cfg(loom)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use meshward_core::sync::{Published, Reader};

/// One step of a writer.
type Publish = fn(&mut Published<u64>, Arc<u64>);

/// Values only ever grow, and the last one is there once the writer is done.
fn watch(mut reader: Reader<u64>) -> (Reader<u64>, u64) {
    let mut last = 0;
    for _ in 0..2 {
        if let Some(value) = reader.changed() {
            assert!(*value > last, "{value} after {last}");
            last = *value;
        }
    }
    (reader, last)
}

fn explore(readers: u16, publications: u64, preemptions: Option<usize>) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(move || {
        let (mut cell, readers) = Published::new(Arc::new(1), readers);
        let watchers: Vec<_> = readers
            .into_iter()
            .map(|reader| thread::spawn(move || watch(reader)))
            .collect();
        for value in 0..publications {
            cell.publish(Arc::new(value + 2));
        }
        for watcher in watchers {
            let (mut reader, last) = watcher.join().expect("a reader ends");
            let end = reader.changed().map_or(last, |value| *value);
            assert_eq!(
                end,
                publications + 1,
                "a reader that looks again has the latest value"
            );
            assert!(!reader.is_behind());
        }
    });
}

#[test]
fn one_reader_follows_a_writer_that_comes_round_to_its_slot() {
    // Three slots: the third publication fills the first slot again.
    explore(1, 4, None);
}

#[test]
fn two_readers_follow_a_writer() {
    explore(2, 3, Some(3));
}

/// What was done before a publication is visible to whoever notices it, even before the value is taken.
fn noticed(publish: Publish) {
    loom::model(move || {
        let (mut cell, mut readers) = Published::new(Arc::new(1), 1);
        let mut reader = readers.remove(0);
        assert_eq!(reader.changed().as_deref(), Some(&1));
        let before = Arc::new(AtomicU64::new(0));
        let done = Arc::clone(&before);
        let writer = thread::spawn(move || {
            done.store(1, Ordering::Relaxed);
            publish(&mut cell, Arc::new(2));
        });
        if reader.is_behind() {
            assert_eq!(
                before.load(Ordering::Relaxed),
                1,
                "what was done before is not visible"
            );
        }
        writer.join().expect("the writer ends");
    });
}

#[test]
fn whoever_notices_a_publication_sees_what_was_done_before_it() {
    noticed(Published::publish);
}

#[test]
fn the_relaxed_mutant_is_caught() {
    let outcome = catch_unwind(AssertUnwindSafe(|| noticed(Published::publish_relaxed)));
    let panic = outcome.expect_err("a relaxed publication must not pass");
    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(
        text.contains("what was done before is not visible"),
        "{text}"
    );
}
