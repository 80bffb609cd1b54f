//! Scenario files, and what runs them.
//!
//! A scenario speaks of the edge alone: what clients and applications do, and what they and the access log get to see. So
//! one file judges every driver: the simulator in virtual time, and each runtime binding over real sockets.
//!
//! * [`scenario`] reads and prints the files;
//! * [`driver`] is what a driver has to offer;
//! * [`runner`] runs a file with a driver and compares;
//! * [`simulated`] is the driver in virtual time;
//! * [`sockets`] is the one over real sockets, for every runtime ([`tokio`], [`glommio`]), [`pace`] its clock;
//! * [`conformance`] runs the conformance corpus;
//! * [`oracle`] asks a real Envoy the same questions;
//! * [`shared`] finds the shared material;
//! * [`source`] reads the files of the project for the tests that judge them.
#![forbid(unsafe_code)]

pub mod conformance;
pub mod driver;
pub mod glommio;
pub mod journal;
pub mod layout;
pub mod oracle;
pub mod pace;
pub mod runner;
pub mod scenario;
pub mod shared;
pub mod simulated;
pub mod sockets;
pub mod source;
pub mod tokio;
