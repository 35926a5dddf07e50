//! Whom a version is meant for: channels, waves, deprecation and withdrawal.
//!
//! A version without channels is `stable` for everybody. A wave gives a channel's version
//! to a part of the containers first: which ones is decided by their number, so the same
//! container is always in the same part, and a larger wave only adds to a smaller one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Id;

/// Whom a version is meant for, and whether it still is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Channels that offer it, each with the percentage of containers that get it (1–100).
    /// Empty: `stable`, 100.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub channels: BTreeMap<Id, u8>,
    /// Why it should no longer be chosen. It can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<String>,
    /// Why it must no longer be installed. What is installed still runs, and says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<String>,
}

/// Who asks for a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience {
    /// The channel that is followed.
    pub channel: String,
    /// The container's number, which decides the wave.
    pub vmid: u64,
}

impl Default for Audience {
    /// `stable`, and last in every wave.
    fn default() -> Self {
        Self { channel: STABLE.to_owned(), vmid: 0 }
    }
}

/// The channel of everything that names none.
pub const STABLE: &str = "stable";

impl Release {
    /// Whether it is offered to that audience.
    pub fn is_offered_to(&self, audience: &Audience) -> bool {
        let percentage = if self.channels.is_empty() {
            (audience.channel == STABLE).then_some(100)
        } else {
            self.channels.iter().find(|(id, _)| id.as_str() == audience.channel).map(|(_, part)| *part)
        };
        self.withdrawn.is_none() && percentage.is_some_and(|part| part >= 100 || audience.part() < part)
    }

    /// What is wrong with it.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (channel, part) in &self.channels {
            if !(1..=100).contains(part) {
                found.push(format!("channel {channel} is for {part} % of the containers: 1 to 100"));
            }
        }
        for (what, text) in [("deprecated", &self.deprecated), ("withdrawn", &self.withdrawn)] {
            if let Some(text) = text
                && (text.trim().is_empty()
                    || text.len() > MAX_TEXT_BYTES
                    || text.chars().any(char::is_control))
            {
                found.push(format!("`{what}` has to say why, in one line of at most {MAX_TEXT_BYTES} bytes"));
            }
        }
        found
    }
}

impl Audience {
    /// 0–99, evenly spread: neighbouring numbers are on the same host more often than not, so
    /// they must not be in the same wave. A container without a number comes last.
    fn part(&self) -> u8 {
        if self.vmid == 0 {
            return 99;
        }
        // The finaliser of SplitMix64.
        let mut bits = self.vmid.wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u8::try_from((bits ^ (bits >> 31)) % 100).unwrap_or(99)
    }
}

const MAX_TEXT_BYTES: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    fn release(channels: &[(&str, u8)]) -> Release {
        let channels = channels.iter().map(|(id, part)| (Id::new(*id).unwrap(), *part)).collect();
        Release { channels, ..Release::default() }
    }

    fn asks(channel: &str, vmid: u64) -> Audience {
        Audience { channel: channel.to_owned(), vmid }
    }

    #[test]
    fn without_channels_it_is_stable_for_everybody() {
        assert!(release(&[]).is_offered_to(&Audience::default()));
        assert!(!release(&[]).is_offered_to(&asks("beta", 1)));
        assert!(release(&[("beta", 100)]).is_offered_to(&asks("beta", 1)));
        assert!(!release(&[("beta", 100)]).is_offered_to(&Audience::default()));
    }

    #[test]
    fn a_wave_is_a_part_and_a_larger_one_has_all_of_it() {
        let reached = |part: u8| -> Vec<u64> {
            (1..=10_000)
                .filter(|vmid| release(&[("stable", part)]).is_offered_to(&asks("stable", *vmid)))
                .collect()
        };
        let (ten, fifty) = (reached(10), reached(50));
        assert!((850..=1150).contains(&ten.len()), "{}", ten.len());
        assert!((4700..=5300).contains(&fifty.len()), "{}", fifty.len());
        assert!(ten.iter().all(|vmid| fifty.contains(vmid)));
        assert_eq!(reached(100).len(), 10_000);
        assert!(!release(&[("stable", 99)]).is_offered_to(&Audience::default()), "no number: last");
    }

    #[test]
    fn what_is_withdrawn_is_offered_to_nobody() {
        let withdrawn = Release { withdrawn: Some("CVE".to_owned()), ..Release::default() };
        assert!(!withdrawn.is_offered_to(&Audience::default()));
        let deprecated = Release { deprecated: Some("old".to_owned()), ..Release::default() };
        assert!(deprecated.is_offered_to(&Audience::default()));
    }

    #[test]
    fn reasons_and_percentages_are_checked() {
        assert_eq!(release(&[("stable", 0), ("beta", 101), ("dev", 1)]).problems().len(), 2);
        let text =
            |text: &str| Release { withdrawn: Some(text.to_owned()), ..Release::default() }.problems().len();
        assert_eq!([text("CVE-2026-1"), text(" "), text("a\nb"), text(&"x".repeat(501))], [0, 1, 1, 1]);
    }
}
