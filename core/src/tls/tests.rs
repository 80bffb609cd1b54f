//! Two ends of ours, or one of ours and one of rustls' own, over buffers.

mod handshake;
mod hostile;
mod sniffing;
mod traffic;
mod world;
