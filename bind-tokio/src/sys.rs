//! The system calls that no safe wrapper offers. All `unsafe` of this crate is here.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Leaves the choice of the local port to `connect`, which then needs a free pair of ends and not a free port: without it all
/// links that leave from one address share some 28,000 ports (ip(7)).
pub fn bind_address_no_port(socket: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open while `socket` is borrowed; the kernel reads `size_of::<c_int>()` bytes at `&on`, which
    // outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets the calling thread run on `core` alone.
pub(crate) fn pin_to_core(core: usize) -> io::Result<()> {
    const CORES: usize = libc::CPU_SETSIZE as usize;
    if core >= CORES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("core {core} is beyond the {CORES} that can be named"),
        ));
    }
    // SAFETY: `cpu_set_t` is an array of integers, for which zero is a value; `core` was checked to lie in it; pid 0 is the
    // calling thread, and the kernel reads `size_of::<cpu_set_t>()` bytes at `&set`, which outlives the call.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_address_takes_no_port_before_the_connect() {
        for from in ["127.0.0.6:0", "[::1]:0"] {
            let from: std::net::SocketAddr = from.parse().unwrap();
            let domain = socket2::Domain::for_address(from);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
            bind_address_no_port(&socket).unwrap();
            match socket.bind(&from.into()) {
                Err(_) if from.is_ipv6() => continue,
                bound => bound.unwrap(),
            }
            let local = socket.local_addr().unwrap().as_socket().unwrap();
            assert_eq!(local, from);
        }
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused() {
        assert!(pin_to_core(1 << 20).is_err());
        assert!(pin_to_core(1000).is_err());
    }
}
