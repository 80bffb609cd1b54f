//! The executable as its users meet it: arguments, files, signals, exit codes and what it says.
//!
//! Runs `meshward` from the folder of build products that holds this test; `cargo build` puts it there. Each test has a
//! folder and a loopback address of its own, so that all of them may run at once.

mod ca;
mod delete;
mod explain;
mod get;
mod inspect;
mod label;
mod logs;
mod mesh_trouble;
mod meshes;
mod place;
mod rollout;
mod running;
mod secrets;
mod sidecar_files;
mod startup;
mod token;
mod usage;
mod validate;
mod wait;
