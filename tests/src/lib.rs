//! What the end-to-end tests stand on.
//!
//! [`fake`] is a game server that behaves, or misbehaves, exactly as told; the
//! binary `zlh-fake-game` is a thin `main` around it. [`harness`] builds artifact
//! stores, serves them (also badly) and runs the agent as a process. The suite
//! itself is `tests/e2e/`.

pub mod fake;
pub mod harness;
