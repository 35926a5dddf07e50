//! `/crashes`: what is kept, and what may be asked of it.

use zlh_api::{CrashAction, CrashActionId, CrashRecord, CrashRemedy, ErrorCode};

use super::fixture::Fixture;
use crate::workload::{Repair, Verb};

fn offering(id: &str, action: CrashActionId, available: bool) -> CrashRecord {
    let action = CrashAction {
        id: action,
        available,
        version: None,
        file: Some("mods/x.jar".to_owned()),
        port: Some(25565),
    };
    CrashRecord {
        id: id.to_owned(),
        title: "x".to_owned(),
        server: "minecraft/fabric/world".to_owned(),
        remedy: vec![CrashRemedy { text: "do it".to_owned(), action: Some(action) }],
        ..CrashRecord::default()
    }
}

#[tokio::test]
async fn what_is_kept_is_listed_and_found_by_id() {
    let fixture = Fixture::new();
    assert_eq!(fixture.get("/crashes").await.json()["crashes"], serde_json::json!([]));
    fixture.archive.keep(&offering("17-ab", CrashActionId::AcceptEula, true));
    fixture.archive.keep(&offering("18-ab", CrashActionId::AcceptEula, true));
    let list = fixture.get("/crashes").await.json();
    assert_eq!(
        (list["crashes"][0]["id"].as_str(), list["crashes"][1]["id"].as_str()),
        (Some("18-ab"), Some("17-ab"))
    );
    assert_eq!(fixture.get("/crashes/17-ab").await.json()["title"], "x");
    for id in ["19-ab", "..", "%2e%2e%2fpayload", "17-ab%00", "x"] {
        let reply = fixture.get(&format!("/crashes/{id}")).await;
        assert_eq!(reply.status.as_u16(), 404, "{id}");
    }
}

#[tokio::test]
async fn only_what_a_remedy_offers_is_done() {
    let fixture = Fixture::new();
    fixture.archive.keep(&offering("17-ab", CrashActionId::DisableAddon, true));
    fixture.archive.keep(&offering("18-ab", CrashActionId::SwitchJava, false));
    let reply = fixture.post("/crashes/17-ab/actions/disable_addon", "").await;
    assert_eq!(reply.status.as_u16(), 202);
    assert!(reply.header("location").starts_with("/operations/"));
    let asked = fixture.script().verbs.clone();
    assert!(
        matches!(&asked[..], [Verb::Repair { repair: Repair::DisableAddon(file), server }]
            if file == "mods/x.jar" && server == "minecraft/fabric/world"),
        "{asked:?}"
    );
    for (path, code) in [
        ("/crashes/17-ab/actions/free_port", ErrorCode::NotFound),
        ("/crashes/17-ab/actions/rm", ErrorCode::NotFound),
        ("/crashes/99-ab/actions/disable_addon", ErrorCode::NotFound),
        ("/crashes/18-ab/actions/switch_java", ErrorCode::WrongState),
    ] {
        let reply = fixture.post(path, "").await;
        assert_eq!(reply.json()["error"], serde_json::to_value(code).unwrap(), "{path}");
        assert_eq!(reply.status.as_u16(), code.status(), "{path}");
    }
    assert_eq!(fixture.script().verbs.len(), 1);
}
