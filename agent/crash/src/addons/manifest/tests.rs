use super::*;
use crate::{AddonLoader, AddonSide};

fn one(kind: Kind, text: &str) -> AddonInfo {
    let parsed = kind.parse(text.as_bytes(), Some("9.9"));
    assert_eq!(parsed.broken, None);
    assert_eq!(parsed.addons.len(), 1, "{parsed:?}");
    parsed.addons.into_iter().next().unwrap()
}

fn needs(addon: &AddonInfo) -> Vec<(&str, Option<&str>, NeedKind)> {
    addon.depends.iter().map(|need| (need.id.as_str(), need.range.as_deref(), need.kind)).collect()
}

use NeedKind::{Excluded, Optional, Required};

#[test]
fn fabric_written_by_hand() {
    let addon = one(
        Kind::Fabric,
        "\u{feff}// a comment\n{ /* another */ \"schemaVersion\": 1, \"id\": \"lamps\", \"version\": \"${version}\",
          \"name\": \"§aLamps\",
          \"description\": \"over\ntwo lines, // no comment, \\q\",
          \"environment\": \"client\",
          \"entrypoints\": {\"client\": [\"a.b.Client\"], \"main\": [{\"adapter\": \"kotlin\", \"value\": \"a.b.Lamps::init\"}]},
          \"depends\": {\"minecraft\": [\"1.20\", \"1.20.1\"], \"fabricloader\": \">=0.15\", \"fabric-api\": \"*\",},
          \"breaks\": {\"torches\": \"<2\"}, \"suggests\": {\"candles\": \"*\"},
          \"provides\": [\"lights\",], } trailing",
    );
    assert_eq!(
        (addon.id.as_str(), addon.name.as_deref(), addon.version.as_deref()),
        ("lamps", Some("Lamps"), Some("9.9"))
    );
    assert_eq!((addon.side, addon.loader), (AddonSide::Client, AddonLoader::Fabric));
    assert_eq!(addon.main.as_deref(), Some("a.b.Lamps"));
    assert_eq!(addon.game.as_deref(), Some("1.20 || 1.20.1"));
    assert_eq!(addon.provides, ["lights"]);
    assert_eq!(
        needs(&addon),
        [
            ("fabric-api", None, Required),
            ("fabricloader", Some(">=0.15"), Required),
            ("minecraft", Some("1.20 || 1.20.1"), Required),
            ("torches", Some("<2"), Excluded),
            ("candles", None, Optional),
        ]
    );
}

#[test]
fn quilt_in_all_its_forms() {
    let addon = one(
        Kind::Quilt,
        r#"{"schema_version": 1, "quilt_loader": {"group": "g", "id": "quilts", "version": "1.0",
            "metadata": {"name": "Quilts"}, "provides": [{"id": "blankets", "version": "1"}, "rugs"],
            "entrypoints": {"init": "q.Main"},
            "depends": ["quilted_fabric_api", {"id": "minecraft", "versions": ">=1.19"},
                {"id": "org:wool", "versions": {"any": ["1", "2"]}}, {"id": "silk", "optional": true}],
            "breaks": {"id": "moths", "versions": "*"}}, "minecraft": {"environment": "dedicated_server"}}"#,
    );
    assert_eq!((addon.id.as_str(), addon.side), ("quilts", AddonSide::Server));
    assert_eq!(addon.provides, ["blankets", "rugs"]);
    assert_eq!(
        needs(&addon),
        [
            ("quilted_fabric_api", None, Required),
            ("minecraft", Some(">=1.19"), Required),
            ("wool", Some("1 || 2"), Required),
            ("silk", None, Optional),
            ("moths", None, Excluded),
        ]
    );
}

const MODS_TOML: &str = r##"
modLoader="javafml" # a comment
loaderVersion="[47,)"
license="All rights reserved"
[[mods]]
modId="create_lamps" #mandatory
version="${file.jarVersion}"
displayName="Lamps"
description='''
[[mods]] is no head in here
'''
[[dependencies.create_lamps]]
    modId="forge"
    mandatory=true
    versionRange="[47,)"
    ordering="NONE"
    side="BOTH"
[[dependencies.create_lamps]]
    modId="jei"
    mandatory=false
    versionRange="[1,)"
    side="CLIENT"
[[mods]]
modId="second"
version="2"
"##;

#[test]
fn forge_with_several_mods_and_the_version_of_the_jar() {
    let parsed = Kind::Forge.parse(MODS_TOML.as_bytes(), Some("1.2.3"));
    assert_eq!(parsed.broken, None);
    let [first, second] = parsed.addons.as_slice() else { panic!("{parsed:?}") };
    assert_eq!((first.id.as_str(), first.version.as_deref()), ("create_lamps", Some("1.2.3")));
    assert_eq!(needs(first), [("forge", Some("[47,)"), Required), ("jei", Some("[1,)"), Optional)]);
    assert_eq!((second.id.as_str(), second.depends.len()), ("second", 0));
    let unversioned = Kind::Forge.parse(MODS_TOML.as_bytes(), None);
    assert_eq!(unversioned.addons[0].version, None);
}

#[test]
fn neoforge_types_of_dependencies() {
    let addon = one(
        Kind::NeoForge,
        "modLoader='javafml'\nclientSideOnly=true\n[[mods]]\nmodId='n'\nversion='1'\n\
         [[dependencies.n]]\nmodId='minecraft'\ntype='required'\nversionRange='[1.21,1.22)'\n\
         [[dependencies.n]]\nmodId='bad'\ntype='incompatible'\n[[dependencies.n]]\nmodId='o'\ntype=\"OPTIONAL\"",
    );
    assert_eq!((addon.loader, addon.side), (AddonLoader::NeoForge, AddonSide::Client));
    assert_eq!(addon.game.as_deref(), Some("[1.21,1.22)"));
    assert_eq!(
        needs(&addon),
        [("minecraft", Some("[1.21,1.22)"), Required), ("bad", None, Excluded), ("o", None, Optional)]
    );
}

#[test]
fn broken_toml_still_names_the_mod() {
    let text = MODS_TOML.replace("license=\"All rights reserved\"", "license=All rights reserved\nlicense=");
    let parsed = Kind::Forge.parse(text.as_bytes(), Some("1.2.3"));
    assert!(parsed.broken.unwrap().contains("no TOML"));
    assert_eq!(parsed.addons[0].id, "create_lamps");
    let bracket = Kind::Forge.parse(MODS_TOML.replacen("lamps]]", "lamps]", 1).as_bytes(), None);
    assert_eq!(needs(&bracket.addons[0]), needs(&parsed.addons[0]));
    assert_eq!(needs(&parsed.addons[0])[0], ("forge", Some("[47,)"), Required));
}

#[test]
fn old_forge_lists() {
    let list = r#"[{"modid": "old", "name": "Old Mod", "version": "@VERSION@", "mcversion": "1.7.10",
        "requiredMods": ["Forge@[10.13,)"], "dependencies": ["required-after:CoFHCore", "NotEnoughItems"]}]"#;
    let addon = one(Kind::LegacyForge, list);
    assert_eq!((addon.version.as_deref(), addon.game.as_deref()), (Some("9.9"), Some("1.7.10")));
    assert_eq!(
        needs(&addon),
        [
            ("Forge", Some("[10.13,)"), Required),
            ("CoFHCore", None, Required),
            ("NotEnoughItems", None, Optional)
        ]
    );
    let wrapped = format!(r#"{{"modListVersion": 2, "modList": {list}}}"#);
    assert_eq!(one(Kind::LegacyForge, &wrapped), addon);
    assert!(Kind::LegacyForge.parse(b"[]", None).broken.is_none());
}

#[test]
fn broken_json_still_names_the_mod() {
    let parsed = Kind::Fabric.parse(br#"{"id": "half", "version": "1" "name": "Half a mod"}"#, None);
    assert!(parsed.broken.unwrap().contains("no JSON"));
    assert_eq!((parsed.addons[0].id.as_str(), parsed.addons[0].version.as_deref()), ("half", Some("1")));
    assert!(Kind::Fabric.parse(b"", None).broken.is_some());
    assert!(Kind::Fabric.parse(b"\xff\xfe", None).broken.is_some());
    assert!(Kind::Fabric.parse(b"[[[[", None).broken.is_some());
}

#[test]
fn plugins_as_people_write_them() {
    let addon = one(
        Kind::Bukkit,
        "# plugin\r\nname:   'It''s' # the name\r\nversion: 1.10\r\nmain: \"com.example.Main\"\r\n\
         description: >-\r\n  name: not this\r\n  depend: [nor, this]\r\nauthors: [a, b]\r\n\
         depend: [Vault, \"ProtocolLib\",\r\n  WorldEdit]\r\nsoftdepend:\r\n- PlaceholderAPI\r\n- Towny # comment\r\n\
         commands:\r\n  name:\r\n    usage: \"/<command> #x\"\r\napi-version: 1.20\r\nprovides: Other\r\n",
    );
    assert_eq!((addon.id.as_str(), addon.version.as_deref()), ("It's", Some("1.10")));
    assert_eq!((addon.main.as_deref(), addon.game.as_deref()), (Some("com.example.Main"), Some("1.20")));
    assert_eq!(
        needs(&addon),
        [
            ("Vault", None, Required),
            ("ProtocolLib", None, Required),
            ("WorldEdit", None, Required),
            ("PlaceholderAPI", None, Optional),
            ("Towny", None, Optional),
        ]
    );
    assert_eq!(addon.provides, ["Other"]);
    assert_eq!(
        one(Kind::Bukkit, "name: A\nversion: ${project.version}\ndepend: Vault\n").version.unwrap(),
        "9.9"
    );
}

#[test]
fn paper_old_and_new() {
    let new = one(
        Kind::Paper,
        "name: P\nversion: '1'\nmain: a.B\ndependencies:\n  bootstrap:\n    Boot: {required: false}\n  server:\n    \
         Vault:\n      load: BEFORE\n      required: true\n    Maybe:\n      required: false\n    Plain:\n",
    );
    let mut found = needs(&new);
    found.sort_by_key(|need| need.0);
    assert_eq!(
        found,
        [
            ("Boot", None, Optional),
            ("Maybe", None, Optional),
            ("Plain", None, Required),
            ("Vault", None, Required)
        ]
    );
    let old = one(
        Kind::Paper,
        "name: P\nversion: '1'\nmain: a.B\ndependencies:\n  - name: Vault\n    required: true\n  - name: Maybe\n",
    );
    assert_eq!(needs(&old), [("Vault", None, Required), ("Maybe", None, Optional)]);
}

#[test]
fn proxies() {
    let bungee = one(Kind::Bungee, "name: B\nversion: 1\nmain: a.B\ndepends: [X]\nsoftDepends: [Y]\n");
    assert_eq!(needs(&bungee), [("X", None, Required), ("Y", None, Optional)]);
    let velocity = one(
        Kind::Velocity,
        r#"{"id":"viaversion","name":"ViaVersion","version":"5","main":"a.B",
            "dependencies":[{"id":"luckperms","optional":true},{"id":"x"}]}"#,
    );
    assert_eq!((velocity.id.as_str(), velocity.name.as_deref()), ("viaversion", Some("ViaVersion")));
    assert_eq!(needs(&velocity), [("luckperms", None, Optional), ("x", None, Required)]);
}

#[test]
fn the_version_of_a_jar_may_go_on_in_the_next_line() {
    let text = b"Manifest-Version: 1.0\r\nimplementation-version: 1.2\r\n .3-beta\r\n\r\nName: x\r\nImplementation-Version: 9\r\n";
    assert_eq!(implementation_version(text).as_deref(), Some("1.2.3-beta"));
    assert_eq!(implementation_version(b"A: b\n\nImplementation-Version: 9\n"), None);
}

#[test]
fn what_a_terminal_would_obey_does_not_get_through() {
    let addon = one(Kind::Bukkit, "name: \"a\u{1b}]0;x\u{7}b\u{202e}c\"\nversion: 1\nmain: x\n");
    assert_eq!(addon.id, "a]0;xbc");
    let long = format!("name: {}\nversion: 1\nmain: x", "n".repeat(5_000));
    assert_eq!(one(Kind::Bukkit, &long).id.len(), MAX_NAME);
}
