//! Jars made by `javac` and `jar`, a real exception thrown through them, and the index
//! that says whose frames they are.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use zlh_crash::{AddonIndex, AddonLoader, AddonLookup, Limits};

const PLUGIN: &str = r#"
package com.example.homes;
public class Homes {
    static class Store { static void load(Runnable work) { work.run(); } }
    public static void enable() {
        Store.load(() -> com.example.lamps.Lamps.light(() -> { throw new IllegalStateException("no home"); }));
    }
    public static void main(String[] args) { enable(); }
}
"#;

const LAMPS: &str = r#"
package com.example.lamps;
public class Lamps {
    public static void light(Runnable work) {
        new Object() { void go() { com.example.wire.Wire.carry(work); } }.go();
    }
}
"#;

const WIRE: &str = r#"
package com.example.wire;
public class Wire { public static void carry(Runnable work) { work.run(); } }
"#;

const MODS_TOML: &str = r#"
modLoader="javafml"
loaderVersion="[47,)"
license="MIT"
[[mods]]
modId="lamps"
version="${file.jarVersion}"
displayName="Lamps and More"
[[dependencies.lamps]]
modId="minecraft"
mandatory=true
versionRange="[1.20.1,1.21)"
ordering="NONE"
side="BOTH"
"#;

fn run(at: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(at).output().expect(program);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() || program == "java", "{program} {arguments:?}: {text}");
    text
}

fn write(at: &Path, name: &str, text: &str) {
    fs::create_dir_all(at.join(name).parent().unwrap()).unwrap();
    fs::write(at.join(name), text).unwrap();
}

#[test]
fn frames_of_a_real_exception_belong_to_the_right_jars() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    write(at, "src/Homes.java", PLUGIN);
    write(at, "src/Lamps.java", LAMPS);
    write(at, "src/Wire.java", WIRE);
    run(at, "javac", &["-d", "classes", "src/Homes.java", "src/Lamps.java", "src/Wire.java"]);
    write(
        at,
        "plugin/plugin.yml",
        "name: Homes\nversion: '2.5'\nmain: com.example.homes.Homes\ndepend: [Vault]\n",
    );
    write(at, "wire/fabric.mod.json", r#"{"schemaVersion": 1, "id": "wire", "version": "0.3"}"#);
    write(at, "mod/META-INF/mods.toml", MODS_TOML);
    write(at, "manifest.txt", "Implementation-Version: 4.1.0\nFMLModType: MOD\n");
    fs::create_dir_all(at.join("server/mods")).unwrap();
    fs::create_dir_all(at.join("server/plugins")).unwrap();
    fs::create_dir_all(at.join("mod/META-INF/jarjar")).unwrap();
    let (wire, homes, lamps) =
        ("mod/META-INF/jarjar/wire-0.3.jar", "server/plugins/Homes-2.5.jar", "server/mods/lamps.jar");
    run(at, "jar", &["cf", wire, "-C", "wire", ".", "-C", "classes", "com/example/wire"]);
    run(at, "jar", &["cf", homes, "-C", "plugin", ".", "-C", "classes", "com/example/homes"]);
    run(at, "jar", &["cfm", lamps, "manifest.txt", "-C", "mod", ".", "-C", "classes", "com/example/lamps"]);

    let mut index = AddonIndex::default();
    index.rescan(&at.join("server"), &Limits::default()).unwrap();
    assert_eq!(index.notes(), []);
    let found = index.by_id("lamps")[0];
    assert_eq!((found.loader, found.version.as_deref()), (AddonLoader::Forge, Some("4.1.0")));
    assert_eq!(found.name.as_deref(), Some("Lamps and More"));
    assert_eq!(index.by_id("wire")[0].nested.as_deref(), Some("META-INF/jarjar/wire-0.3.jar"));
    assert_eq!(index.by_file("Homes-2.5.jar")[0].depends[0].id, "Vault");

    let path = format!("{homes}:{lamps}:{wire}");
    let hidden = ["-XX:+UnlockDiagnosticVMOptions", "-XX:+ShowHiddenFrames"];
    let trace = run(at, "java", &[hidden[0], hidden[1], "-cp", &path, "com.example.homes.Homes"]);
    assert!(trace.contains("$$Lambda"), "no hidden frames: {trace}");
    let frames: Vec<&str> = trace
        .lines()
        .filter_map(|line| line.trim().strip_prefix("at ")?.split('(').next()?.rsplit_once('.'))
        .map(|(class, _)| class)
        .collect();
    assert!(frames.len() >= 8, "{trace}");
    for class in frames {
        let owners: Vec<&str> =
            index.owners_of_package(class).iter().map(|addon| addon.id.as_str()).collect();
        let expected =
            ["homes", "lamps", "wire"].into_iter().find(|name| class.contains(&format!("example.{name}.")));
        let expected: Vec<&str> =
            expected.into_iter().map(|name| if name == "homes" { "Homes" } else { name }).collect();
        assert_eq!(owners, expected, "{class}");
    }
}
