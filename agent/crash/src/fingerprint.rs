//! The same for every crash of the same kind: cause, who, what was thrown, where from;
//! without line numbers, places, addresses and times.

use crate::Analysis;
use crate::platform;
use crate::trace::Trace;

/// Frames that count.
const FRAMES: usize = 5;

pub(crate) fn of(analysis: &Analysis, trace: Option<&Trace>) -> String {
    let mut hash = Fnv::default();
    if let Some(cause) = analysis.cause {
        hash.add(&format!("{cause:?}"));
    }
    for culprit in &analysis.culprit {
        hash.add(&culprit.id.to_ascii_lowercase());
    }
    for dependency in &analysis.dependency {
        hash.add(&dependency.id.to_ascii_lowercase());
    }
    if let Some(java) = analysis.java {
        hash.add(&format!("{:?}", java.need));
    }
    if let Some(root) = trace.and_then(Trace::root) {
        hash.add(&root.class);
        let foreign: Vec<_> =
            root.frames.iter().filter(|frame| !platform::is_platform(&frame.class)).collect();
        let frames = if foreign.is_empty() { root.frames.iter().collect() } else { foreign };
        for frame in frames.into_iter().take(FRAMES) {
            hash.add(&steady(&format!("{}.{}", frame.class, frame.method)));
        }
    }
    format!("{:016x}", hash.0)
}

/// Generated names differ from run to run.
fn steady(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_digit() {
            if !out.ends_with('#') {
                out.push('#');
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// FNV-1a, 64 bit: stable over builds and machines.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, text: &str) {
        for byte in text.bytes().chain([0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
