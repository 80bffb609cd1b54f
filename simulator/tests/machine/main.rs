//! One proxy, driven input by input, where a world would need luck.

mod bench;
mod links;
mod opaque;
mod pools;
mod sniffing;
