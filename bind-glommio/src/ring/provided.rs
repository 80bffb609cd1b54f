//! The buffers that the kernel picks from when bytes come for a waiting link.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use meshward_core::link::Buf;

use crate::limits::PROVIDED_SIZE;

/// The buffers that the kernel picks from, and the ring by which they are given back.
pub(super) struct Provided {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    tail: u16,
}

impl Provided {
    pub(super) const GROUP: u16 = 0;

    pub(super) fn register(io: &IoUring, count: u16) -> io::Result<Self> {
        assert!(count.is_power_of_two(), "indices wrap by masking");
        let mut provided = Self {
            entries: allocate(Self::entries_layout(count)).cast(),
            memory: allocate(Self::memory_layout(count)),
            count,
            tail: 0,
        };
        for id in 0..count {
            provided.give(id);
        }
        let at = provided.entries.as_ptr() as u64;
        // SAFETY: `at` begins a page and `count` zeroed or filled entries, which live until the ring is drained and the group
        // unregistered, or leak.
        unsafe {
            io.submitter()
                .register_buf_ring_with_flags(at, count, Self::GROUP, 0)?;
        }
        Ok(provided)
    }

    /// A copy of what the kernel wrote into buffer `id`, which is given back.
    pub(super) fn take(&mut self, id: u16, len: usize) -> Buf {
        assert!(
            id < self.count && len <= PROVIDED_SIZE,
            "the kernel stays within what it was given"
        );
        // SAFETY: buffer `id` lies within `memory`, was zeroed when allocated, and is ours between the completion that named it
        // and `give`, so nobody writes to it while it is borrowed.
        let bytes = unsafe { std::slice::from_raw_parts(self.buffer(id), len) };
        let copy = Buf::from(bytes);
        self.give(id);
        copy
    }

    fn give(&mut self, id: u16) {
        let index = usize::from(self.tail & (self.count - 1));
        let address = self.buffer(id) as u64;
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `index` is below `count`, and the kernel does not read the entry before the tail is beyond it; the tail lies
        // in a field of the first entry which the setters leave alone, is aligned as any `u16`, and is shared with the kernel
        // as an atomic.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(index);
            entry.set_addr(address);
            entry.set_len(PROVIDED_SIZE as u32);
            entry.set_bid(id);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    fn buffer(&self, id: u16) -> *const u8 {
        self.memory
            .as_ptr()
            .wrapping_add(usize::from(id) * PROVIDED_SIZE)
    }

    fn entries_layout(count: u16) -> Layout {
        page_layout(usize::from(count) * size_of::<BufRingEntry>())
    }

    fn memory_layout(count: u16) -> Layout {
        page_layout(usize::from(count) * PROVIDED_SIZE)
    }
}

impl Drop for Provided {
    fn drop(&mut self) {
        // SAFETY: allocated with these layouts; `Ring` drops this only when the kernel has let go of it.
        unsafe {
            dealloc(
                self.entries.as_ptr().cast(),
                Self::entries_layout(self.count),
            );
            dealloc(self.memory.as_ptr(), Self::memory_layout(self.count));
        }
    }
}

fn page_layout(bytes: usize) -> Layout {
    const PAGE: usize = 4096;
    Layout::from_size_align(bytes.max(1), PAGE).expect("a few megabytes")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: `page_layout` makes no layout of size zero.
    let at = unsafe { alloc_zeroed(layout) };
    NonNull::new(at).unwrap_or_else(|| handle_alloc_error(layout))
}
