//! What a driver keeps for reuse. An idle link holds none of it.

use std::collections::VecDeque;

use meshward_core::link::Buf;

use crate::limits::{COPY_BELOW, READ_BUFFER, SPARES_MAX};

/// Bytes on their way out, and whether a machine wants to hear that they are gone.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) bytes: Buf,
    pub(crate) ack: bool,
}

/// The spares of one driver.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    large: Vec<Buf>,
    queues: Vec<VecDeque<Chunk>>,
}

impl Buffers {
    /// An empty buffer with room for `READ_BUFFER` bytes.
    pub(crate) fn large(&mut self) -> Buf {
        self.large
            .pop()
            .unwrap_or_else(|| Buf::with_capacity(READ_BUFFER))
    }

    /// What was received into a large buffer: a copy if it is small, the buffer itself if copying would cost more than a fresh
    /// one.
    pub(crate) fn landed(&mut self, landed: Buf) -> Buf {
        if landed.len() >= COPY_BELOW {
            return landed;
        }
        let copy = Buf::from(&*landed);
        self.give_back(landed);
        copy
    }

    /// Takes back a buffer whose bytes are gone.
    pub(crate) fn give_back(&mut self, mut bytes: Buf) {
        if self.large.len() < SPARES_MAX && bytes.storage().capacity() >= READ_BUFFER {
            bytes.advance(bytes.len());
            self.large.push(bytes);
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
    fn a_little_in_a_large_buffer_is_handed_out_in_one_of_its_size() {
        let mut buffers = Buffers::default();
        let mut large = buffers.large();
        large.extend_from_slice(&[7; 600]);
        let address = large.storage().as_ptr();
        let mut small = buffers.landed(large);
        assert_eq!(&*small, &[7; 600]);
        assert!(small.storage().capacity() < 1024);

        let mut again = buffers.large();
        assert!(again.is_empty());
        assert_eq!(again.storage().as_ptr(), address);
    }

    #[test]
    fn a_large_buffer_comes_back_and_is_used_again() {
        let mut buffers = Buffers::default();
        let mut large = buffers.large();
        large.extend_from_slice(&[7; COPY_BELOW]);
        let mut large = buffers.landed(large);
        let address = large.storage().as_ptr();
        large.advance(1);
        buffers.give_back(large);

        assert_eq!(buffers.large().storage().as_ptr(), address);
    }

    #[test]
    fn a_buffer_too_small_to_read_into_is_not_kept() {
        let mut buffers = Buffers::default();
        buffers.give_back(Buf::with_capacity(100));
        assert!(buffers.large.is_empty());
    }
}
