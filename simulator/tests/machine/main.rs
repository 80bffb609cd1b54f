//! One proxy, driven input by input, where a world would need luck.

mod bench;
mod opaque;
mod sniffing;
