//! What several tests need.

use zlh_api::{State, Status};

/// A status in which nothing but the state is said.
pub(crate) fn status(state: State) -> Status {
    let value = serde_json::json!({
        "state": state.as_str(), "processRunning": false, "ready": false, "readySource": "", "readyError": "",
        "lastReadyAt": null, "installStep": "", "crashCount": 0, "lastCrashTime": null, "lastCrashExitCode": null,
        "lastCrashSignal": 0, "lastCrashUptimeSeconds": null, "lastCrashLogTail": [], "error": null, "config": null,
        "timestamp": 1_767_225_600,
    });
    serde_json::from_value(value).unwrap()
}
