//! Whether this process may use io_uring as the driver does.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::limits::MEMLOCK_MIN;
use crate::ring::{self, Completion, Ring};

/// Why io_uring cannot be used here.
#[derive(Debug)]
pub enum Unavailable {
    /// The kernel has no io_uring, or one without the operations and flags that are needed.
    Kernel { needs: &'static str },
    /// The administrator turned it off: the value of the sysctl `kernel.io_uring_disabled`.
    Disabled { sysctl: u8 },
    /// A seccomp filter, as containers have it by default, or a security module refuses the system call.
    Forbidden { seccomp: bool },
    /// The process may lock too little memory: its soft limit, in bytes.
    Memlock { limit: u64 },
    /// Out of descriptors or memory, or anything else that may pass.
    Resources(io::Error),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel { needs } => write!(f, "the kernel lacks {needs}"),
            Self::Disabled { sysctl } => write!(
                f,
                "io_uring is turned off by the sysctl kernel.io_uring_disabled = {sysctl}"
            ),
            Self::Forbidden { seccomp: true } => {
                f.write_str("a seccomp filter forbids io_uring, as many containers do")
            }
            Self::Forbidden { seccomp: false } => {
                f.write_str("the system does not permit io_uring to this process")
            }
            Self::Memlock { limit } => write!(
                f,
                "the limit of locked memory is {} KiB and must be at least {} KiB (ulimit -l)",
                limit / 1024,
                MEMLOCK_MIN / 1024
            ),
            Self::Resources(e) => write!(f, "no io_uring can be made now: {e}"),
        }
    }
}

impl std::error::Error for Unavailable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resources(e) => Some(e),
            Self::Kernel { .. }
            | Self::Disabled { .. }
            | Self::Forbidden { .. }
            | Self::Memlock { .. } => None,
        }
    }
}

/// Tries, with a small ring, what the driver needs: its flags, provided buffers and repeating operations. Takes about a
/// millisecond.
pub fn available() -> Result<(), Unavailable> {
    let limit = ring::memlock().map_err(Unavailable::Resources)?;
    if limit < MEMLOCK_MIN {
        return Err(Unavailable::Memlock { limit });
    }
    let mut ring = Ring::with_sizes(8, 16, 1).map_err(|e| explain(e, &Facts::read()))?;
    ring.beat(Duration::from_micros(100), 1);
    loop {
        ring.turn(true).map_err(Unavailable::Resources)?;
        match ring.next() {
            Some(Completion::Beat { last: false, .. }) => return Ok(()),
            Some(_) => {
                return Err(Unavailable::Kernel {
                    needs: "repeating timeouts of io_uring (Linux 6.4)",
                });
            }
            None => {}
        }
    }
}

/// What the system says about itself.
struct Facts {
    sysctl: u8,
    seccomp: bool,
}

impl Facts {
    fn read() -> Self {
        let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            sysctl: sysctl.ok().and_then(|s| s.trim().parse().ok()).unwrap_or(0),
            seccomp: status
                .lines()
                .filter_map(|line| line.strip_prefix("Seccomp:"))
                .any(|mode| mode.trim() == "2"),
        }
    }
}

fn explain(error: io::Error, facts: &Facts) -> Unavailable {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) if facts.sysctl > 0 => Unavailable::Disabled {
            sysctl: facts.sysctl,
        },
        Some(libc::EPERM | libc::EACCES) => Unavailable::Forbidden {
            seccomp: facts.seccomp,
        },
        // Some filters pretend that there is no such call.
        Some(libc::ENOSYS) if facts.seccomp => Unavailable::Forbidden { seccomp: true },
        Some(libc::ENOSYS) => Unavailable::Kernel { needs: "io_uring" },
        Some(libc::EINVAL) => Unavailable::Kernel {
            needs: "deferred task work or buffer rings of io_uring (Linux 6.1)",
        },
        _ => Unavailable::Resources(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(errno: i32, sysctl: u8, seccomp: bool) -> String {
        explain(
            io::Error::from_raw_os_error(errno),
            &Facts { sysctl, seccomp },
        )
        .to_string()
    }

    #[test]
    fn each_cause_has_its_words() {
        assert!(words(libc::EPERM, 2, true).contains("kernel.io_uring_disabled = 2"));
        assert!(words(libc::EPERM, 0, true).contains("seccomp"));
        assert!(words(libc::EACCES, 0, false).contains("does not permit"));
        assert!(words(libc::ENOSYS, 0, true).contains("seccomp"));
        assert!(words(libc::ENOSYS, 0, false).contains("kernel lacks io_uring"));
        assert!(words(libc::EINVAL, 0, false).contains("Linux 6.1"));
        assert!(words(libc::EMFILE, 0, false).contains("made now"));
    }

    #[test]
    fn a_low_limit_is_said_with_the_one_that_is_needed() {
        let words = Unavailable::Memlock { limit: 65_536 }.to_string();
        assert_eq!(
            words,
            "the limit of locked memory is 64 KiB and must be at least 512 KiB (ulimit -l)"
        );
    }
}
