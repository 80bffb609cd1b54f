//! The machine driven in memory: events in, actions out.

mod answers;
mod flow;
mod heads;
mod noise;
mod rig;
mod routes;
mod said;
mod tokens;
