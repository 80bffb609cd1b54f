//! What a driver reads into, and what it keeps for reuse. An idle link holds none of it.

use std::collections::VecDeque;

use meshward_core::link::Buf;

use crate::limits::{COPY_BELOW, READ_BUFFER, SPARES_MAX};

/// Bytes on their way out, and whether a machine wants to hear that they are gone.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) bytes: Buf,
    pub(crate) ack: bool,
}

/// The buffers of one driver.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// Read into; empty between reads, its capacity is `READ_BUFFER`.
    landing: Buf,
    spares: Vec<Buf>,
    queues: Vec<VecDeque<Chunk>>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            landing: Buf::with_capacity(READ_BUFFER),
            spares: Vec::new(),
            queues: Vec::new(),
        }
    }
}

impl Buffers {
    /// The empty buffer to read into.
    pub(crate) fn landing(&mut self) -> &mut Buf {
        &mut self.landing
    }

    /// What was read: a copy if it is small, the buffer itself if copying would cost more than a fresh one.
    pub(crate) fn landed(&mut self) -> Buf {
        if self.landing.len() < COPY_BELOW {
            let copy = Buf::from(&*self.landing);
            self.landing.truncate(0);
            return copy;
        }
        let next = self
            .spares
            .pop()
            .unwrap_or_else(|| Buf::with_capacity(READ_BUFFER));
        std::mem::replace(&mut self.landing, next)
    }

    /// Takes back a buffer whose bytes are gone.
    pub(crate) fn give_back(&mut self, mut bytes: Buf) {
        if self.spares.len() < SPARES_MAX && bytes.storage().capacity() >= READ_BUFFER {
            bytes.advance(bytes.len());
            self.spares.push(bytes);
        }
    }

    /// An empty queue.
    pub(crate) fn queue(&mut self) -> VecDeque<Chunk> {
        self.queues.pop().unwrap_or_default()
    }

    /// Takes back the queue of a link that has nothing to send.
    pub(crate) fn give_back_queue(&mut self, queue: &mut VecDeque<Chunk>) {
        if queue.is_empty() && queue.capacity() > 0 {
            let queue = std::mem::take(queue);
            if self.queues.len() < SPARES_MAX {
                self.queues.push(queue);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_read_is_handed_out_in_a_buffer_of_its_size() {
        let mut buffers = Buffers::default();
        buffers.landing().extend_from_slice(&[7; 600]);
        let mut small = buffers.landed();
        assert_eq!(&*small, &[7; 600]);
        assert!(small.storage().capacity() < 1024);
        assert!(buffers.landing().is_empty());
    }

    #[test]
    fn a_large_buffer_comes_back_and_is_used_again() {
        let mut buffers = Buffers::default();
        buffers.landing().extend_from_slice(&[7; COPY_BELOW]);
        let mut large = buffers.landed();
        let address = large.storage().as_ptr();
        large.advance(1);
        buffers.give_back(large);

        buffers.landing().extend_from_slice(&[8; COPY_BELOW]);
        buffers.landed();
        assert!(buffers.landing().is_empty());
        assert_eq!(buffers.landing().storage().as_ptr(), address);
    }

    #[test]
    fn a_buffer_too_small_to_read_into_is_not_kept() {
        let mut buffers = Buffers::default();
        buffers.give_back(Buf::with_capacity(100));
        assert!(buffers.spares.is_empty());
    }
}
