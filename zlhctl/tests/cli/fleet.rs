//! `fleet`, `catalog`, `completions`, and files that are refused.

use crate::{fleet, run, zlhctl};

#[tokio::test]
async fn a_fleet_is_built_step_by_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sub/fleet.toml");
    assert_eq!(run(&path, &["fleet", "add", "lobby", "10.0.0.11", "-l", "site=fra"]).await.code, 0);
    assert_eq!(run(&path, &["fleet", "add", "survival", "https://mc.example.org"]).await.code, 0);
    let ran = run(&path, &["fleet", "list"]).await;
    let expected = "\
NAME      URL                     TOKEN  LABELS
lobby     10.0.0.11               -      site=fra
survival  https://mc.example.org  -      -
";
    assert_eq!(ran.out, expected);
    assert_eq!(run(&path, &["fleet", "add", "lobby", "10.0.0.12"]).await.code, 1, "names are unique");
    assert_eq!(run(&path, &["fleet", "add", "x", "ftp://10.0.0.12"]).await.code, 1);
    assert_eq!(run(&path, &["fleet", "remove", "lobby"]).await.code, 0);
    assert_eq!(run(&path, &["fleet", "remove", "lobby"]).await.code, 1);
    assert_eq!(run(&path, &["fleet", "list", "-o", "name"]).await.out, "survival\n");
}

#[tokio::test]
async fn the_default_file_comes_from_the_environment() {
    let ask = |pairs: Vec<(&'static str, &'static str)>| async move {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_zlhctl"));
        let output = command.args(["fleet", "path"]).env_clear().envs(pairs).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(ask(vec![("HOME", "/h")]).await, (Some(0), "/h/.config/zlhctl/fleet.toml\n".into()));
    assert_eq!(ask(vec![("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")]).await.1, "/x/zlhctl/fleet.toml\n");
    assert_eq!(
        ask(vec![("HOME", "/h"), ("XDG_CONFIG_HOME", "relative")]).await.1,
        "/h/.config/zlhctl/fleet.toml\n"
    );
    assert_eq!(ask(vec![]).await.0, Some(1));
}

#[tokio::test]
async fn a_broken_fleet_file_is_named_with_its_line_and_stops_nothing_else() {
    let (_folder, path) = fleet(&[("lobby", "127.0.0.1:1")]);
    std::fs::write(&path, "[[agents]]\nname = \"a\"\nurll = \"b\"\n").unwrap();
    let ran = run(&path, &["status"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("fleet.toml`, line 3: unknown field `urll`"), "{}", ran.err);
    assert_eq!(run(&path, &["fleet", "path"]).await.code, 0);
    assert!(run(&path, &["completions", "bash"]).await.out.contains("complete"));
}

#[tokio::test]
async fn a_readable_token_is_refused() {
    let (_folder, path) = fleet(&[]);
    std::fs::write(&path, "[[agents]]\nname = \"a\"\nurl = \"127.0.0.1:1\"\ntoken = \"sesame-sesame\"\n")
        .unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let ran = run(&path, &["status"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("chmod 600") && !ran.err.contains("sesame"), "{}", ran.err);
}

#[tokio::test]
async fn a_missing_fleet_file_is_an_error_when_it_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(&folder.path().join("none.toml"), &["status"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("there is no fleet file"), "{}", ran.err);
}

#[tokio::test]
async fn keys_are_private_and_signatures_are_checked_catalogs() {
    let folder = tempfile::tempdir().unwrap();
    let run = async |args: &[&str]| {
        zlhctl(&folder.path().join("fleet.toml"), args).current_dir(folder.path()).output().await.unwrap()
    };
    let output = run(&["catalog", "keygen"]).await;
    assert!(output.status.success());
    let public = String::from_utf8(output.stdout).unwrap();
    assert!(public.trim().parse::<zlh_catalog::PublicKey>().is_ok(), "{public}");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(folder.path().join("catalog.key")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(run(&["catalog", "keygen"]).await.status.code(), Some(1));
    std::fs::write(folder.path().join("catalog.json"), "{\"schema\":2}").unwrap();
    assert_eq!(run(&["catalog", "sign", "catalog.json"]).await.status.code(), Some(1));
}
