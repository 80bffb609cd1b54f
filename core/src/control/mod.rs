//! The control side of a mesh: what decides for all of its workloads.
//!
//! Knows no link and no clock; whoever carries its words does.

pub mod ca;
