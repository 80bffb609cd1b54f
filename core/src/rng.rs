//! Seeded chance. A machine is born with a seed; each purpose draws from a stream of its own, so that one consumer
//! cannot shift another's draws.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What a stream of random numbers is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// `x-request-id` of a request that came without one.
    RequestId = 1,
    /// Waiting time between two tries.
    Backoff = 2,
    /// Which of several endpoints.
    Balance = 3,
    /// How far a renewal is moved from the middle of a certificate's life (S-94).
    Renewal = 4,
}

/// A generator for one purpose.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha12Rng);

impl Rng {
    pub fn new(seed: [u8; 32], purpose: Purpose) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        rng.set_stream(purpose as u64);
        Self(rng)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A version 4 UUID (RFC 9562 §5.4) in its text form.
    pub fn uuid(&mut self) -> [u8; 36] {
        let hi = self.next_u64() & !0xf000 | 0x4000;
        let lo = self.next_u64() & !(0b11 << 62) | 0b10 << 62;
        let mut out = [b'-'; 36];
        let hex = |shift: u32| {
            b"0123456789abcdef"[(if shift >= 64 {
                hi >> (shift - 64)
            } else {
                lo >> shift
            }) as usize
                & 15]
        };
        let mut shift = 128;
        for (i, byte) in out.iter_mut().enumerate() {
            if !matches!(i, 8 | 13 | 18 | 23) {
                shift -= 4;
                *byte = hex(shift);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_do_not_share_draws() {
        let seed = [7; 32];
        let mut alone = Rng::new(seed, Purpose::RequestId);
        let mut beside = Rng::new(seed, Purpose::RequestId);
        Rng::new(seed, Purpose::Backoff).next_u64();
        assert_eq!(alone.next_u64(), beside.next_u64());
        assert_ne!(
            Rng::new(seed, Purpose::Backoff).next_u64(),
            Rng::new(seed, Purpose::RequestId).next_u64()
        );
    }

    #[test]
    fn a_uuid_has_its_version_and_variant() {
        let mut rng = Rng::new([1; 32], Purpose::RequestId);
        for _ in 0..100 {
            let text = String::from_utf8(rng.uuid().to_vec()).unwrap();
            assert_eq!(text.len(), 36);
            assert_eq!(&text[14..15], "4");
            assert!("89ab".contains(&text[19..20]), "{text}");
            assert!(
                text.bytes()
                    .enumerate()
                    .all(|(i, b)| if matches!(i, 8 | 13 | 18 | 23) {
                        b == b'-'
                    } else {
                        b.is_ascii_hexdigit()
                    })
            );
        }
    }
}
