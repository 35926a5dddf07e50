//! Runs real processes and waits for what they do, with deadlines.
//!
//! Nothing here sleeps for a fixed time and hopes, and nothing is ever killed by
//! name: what a test started, it ends by pid when it goes out of scope.

pub mod agent;
pub mod archive;
pub mod artifact_server;
pub mod cgroup;
pub mod console_bench;
pub mod debris;
pub mod disk;
pub mod faults;
pub mod forged_shim;
pub mod http;
pub mod install_bench;
pub mod jvm;
pub mod measure;
pub mod paths;
pub mod ports;
pub mod process;
pub mod pty;
pub mod real;
pub mod releases;
pub mod slp;
pub mod store;
pub mod wait;
pub mod websocket;
pub mod zlhctl;
