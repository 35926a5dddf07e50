//! Who is at fault, from stack traces: frame annotations, suspected mods, ids of what
//! ticks, packages. Vanilla, loaders, libraries and mere wrappers are never blamed.

use crate::known::KnownAddons;
use crate::log::{Kind, Log};
use crate::platform;
use crate::trace::{Exception, Frame, Trace};
use crate::{AddonLookup, Culprit, Dependency};

/// Resolves names, ids, files and classes to mods and plugins.
pub(crate) struct Names<'a> {
    pub known: &'a KnownAddons,
    pub index: Option<&'a dyn AddonLookup>,
}

impl Names<'_> {
    /// By id, or by name where nobody has the id.
    pub(crate) fn by_id(&self, id: &str, why: &str) -> Culprit {
        let mut culprit = Culprit { id: id.to_owned(), why: why.to_owned(), ..Culprit::default() };
        if matches!(id, "fabric" | "fabric-api") {
            culprit.name = Some("Fabric API".to_owned());
        }
        if let Some(known) = self.known.by_id(id).or_else(|| self.known.by_name(id)) {
            culprit.id.clone_from(&known.id);
            culprit.name = known.name.clone().or(culprit.name);
            culprit.file.clone_from(&known.file);
            culprit.version.clone_from(&known.version);
        }
        if let Some(info) = self.index.and_then(|index| index.by_id(id).first().copied()) {
            culprit.id.clone_from(&info.id);
            culprit.name = culprit.name.or_else(|| info.name.clone());
            culprit.file = Some(info.file.clone());
            culprit.version = info.version.clone().or(culprit.version);
        }
        culprit
    }

    /// By the file's name.
    pub(crate) fn by_file(&self, file: &str, why: &str) -> Culprit {
        let file = file.rsplit(['/', '\\']).next().unwrap_or(file);
        if let Some(info) = self.index.and_then(|index| index.by_file(file).first().copied()) {
            return Culprit {
                id: info.id.clone(),
                name: info.name.clone(),
                file: Some(info.file.clone()),
                version: info.version.clone(),
                why: why.to_owned(),
            };
        }
        if let Some(known) = self.known.by_file(file) {
            return self.by_id(&known.id.clone(), why);
        }
        let stem = file.strip_suffix(".jar").unwrap_or(file);
        Culprit {
            id: stem.to_owned(),
            file: Some(file.to_owned()),
            why: why.to_owned(),
            ..Culprit::default()
        }
    }

    /// By a class of it; none when nobody or several have its package.
    fn by_class(&self, class: &str, why: &str) -> Option<Culprit> {
        if let Some(index) = self.index {
            match index.owners_of_package(class).as_slice() {
                [one] => return Some(self.by_id(&one.id.clone(), why)),
                [] => {}
                _ => return None,
            }
        }
        if let Some(known) = self.known.of_package(class)
            && !platform::is_platform_id(&known.id)
        {
            return Some(self.by_id(&known.id.clone(), why));
        }
        // The jars are known and none of them has it: it is the server's own.
        if self.index.is_some() {
            return None;
        }
        // A log from anywhere, and nothing in it lists it: what the package calls itself.
        let id = guess(class)?;
        Some(Culprit { id, why: format!("{why}, by the name of its package"), ..Culprit::default() })
    }

    /// Who a frame belongs to, with whether its own annotation says so.
    fn of_frame(&self, frame: &Frame) -> Option<(Culprit, bool)> {
        if let Some(id) = mixin_handler(&frame.method)
            && !platform::is_platform_id(id)
            && !id.starts_with("fabric-")
        {
            return Some((self.by_id(id, "its mixin is in the trace"), true));
        }
        if platform::is_platform(&frame.class) || platform::is_wrapper(&frame.class) {
            return None;
        }
        if let Some((id, _)) = &frame.module
            && !platform::is_platform_id(id)
        {
            let known =
                self.known.by_id(id).is_some() || self.index.is_some_and(|index| !index.by_id(id).is_empty());
            // A plain library is a module too.
            return (known || frame.jar.is_some())
                .then(|| (self.by_id(id, "the trace goes through it"), true));
        }
        if let Some(jar) = &frame.jar
            && !platform::is_platform_id(jar)
            && !is_server_jar(jar)
        {
            let culprit = if jar.ends_with(".jar") {
                let mut culprit = self.by_file(jar, "the trace goes through it");
                if let Some(named) = self.by_class(&frame.class, "the trace goes through it")
                    && culprit.name.is_none()
                    && self.known.by_file(jar).is_none()
                {
                    culprit.id = named.id;
                    culprit.name = named.name;
                }
                culprit
            } else {
                self.by_id(jar, "the trace goes through it")
            };
            return Some((culprit, true));
        }
        self.by_class(&frame.class, "the trace goes through it").map(|culprit| (culprit, false))
    }

    /// Who an exception came from: the innermost frame that belongs to somebody.
    pub(crate) fn of_exception(&self, exception: &Exception) -> Option<(Culprit, bool)> {
        exception.frames.iter().enumerate().find_map(|(depth, frame)| {
            if platform::is_caller(&frame.class) && depth > 0 {
                return None;
            }
            self.of_frame(frame)
        })
    }

    /// Who a trace came from, its root cause first.
    pub(crate) fn of_trace(&self, trace: &Trace) -> Option<(Culprit, bool)> {
        trace.exceptions.iter().rev().find_map(|exception| self.of_exception(exception))
    }

    /// Who could not be loaded because a class of somebody else is missing: the outer of two
    /// linkage errors names the victim.
    pub(crate) fn of_victim(&self, trace: &Trace) -> Option<(Culprit, bool)> {
        let linkage = |one: &&Exception| {
            ["NoClassDefFoundError", "ClassNotFoundException", "ExceptionInInitializerError"]
                .iter()
                .any(|end| one.class.ends_with(end))
        };
        let mut missing =
            trace.exceptions.iter().filter(linkage).filter_map(|one| missing_class(&one.message));
        let outer = missing.next()?;
        let other = missing.find(|class| class != &outer)?;
        if platform::is_platform(&outer) || outer == other {
            return None;
        }
        self.by_class(&outer, "it could not be loaded").map(|culprit| (culprit, false))
    }

    /// What is missing when a class of nobody in the trace cannot be found.
    pub(crate) fn missing(&self, trace: &Trace) -> Option<Dependency> {
        let first = trace.exceptions.first().filter(|one| one.class.ends_with("NoClassDefFoundError"))?;
        let class = missing_class(&first.message).filter(|class| !platform::is_platform(class))?;
        let id = self.by_class(&class, "").map_or(class, |owner| owner.id);
        Some(Dependency { id, ..Dependency::default() })
    }

    /// Whose class is missing, by what the error says: `a/b/C`, `'void a.b.C.d()'`.
    pub(crate) fn owner_of_missing(&self, message: &str) -> Option<Culprit> {
        let class = missing_class(message)?;
        (!platform::is_platform(&class))
            .then(|| self.by_class(&class, "what is called is not there"))
            .flatten()
    }
}

/// The class that an error names.
pub(crate) fn missing_class(message: &str) -> Option<String> {
    let text = message.trim_matches(['\'', '"', ' ']);
    let text = text.strip_prefix("Could not initialize class ").unwrap_or(text);
    // `'return.Type owner.Class.method(args)'`: the owner stands before the parenthesis.
    let head = text.split('(').next().unwrap_or(text);
    let last = head.rsplit(' ').next().unwrap_or(head);
    let dotted = last.replace('/', ".");
    let dotted = dotted.trim_end_matches([';', ':', '.', ',']);
    let class =
        if text.contains('(') { dotted.rsplit_once('.').map_or(dotted, |(class, _)| class) } else { dotted };
    (class.contains('.') && class.len() < 300).then(|| class.to_owned())
}

/// `handler$abc000$mod$method` and its relatives.
fn mixin_handler(method: &str) -> Option<&str> {
    let (kind, rest) = method.split_once('$')?;
    let known = kind.starts_with("handler")
        || kind.starts_with("redirect")
        || kind.starts_with("modify")
        || kind.starts_with("wrap")
        || kind.starts_with("localvar")
        || kind.starts_with("constant")
        || kind.starts_with("inject");
    let (unique, rest) = rest.split_once('$')?;
    let id = rest.split('$').next()?;
    let shaped = unique.len() == 6 && unique.chars().all(|c| c.is_ascii_alphanumeric());
    let plain =
        id.len() > 1 && id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c));
    // Without a mod's id in between the method itself stands there.
    (known && shaped && plain && rest.contains('$')).then_some(id)
}

fn is_server_jar(jar: &str) -> bool {
    let jar = jar.to_ascii_lowercase();
    const SERVERS: [&str; 22] = [
        "server",
        "minecraft",
        "forge",
        "neoforge",
        "fabric-loader",
        "fabric.jar",
        "fmlcore",
        "fmlloader",
        "modlauncher",
        "paper",
        "purpur",
        "spigot",
        "craftbukkit",
        "folia",
        "mohist",
        "arclight",
        "magma",
        "velocity",
        "waterfall",
        "bungeecord",
        "patched",
        "eventbus",
    ];
    SERVERS.iter().any(|server| jar.starts_with(server))
}

/// `de.maxhenkel.pipez.blocks.X` → `pipez`; `mekanism.common.X` → `mekanism`.
fn guess(class: &str) -> Option<String> {
    let parts: Vec<&str> = class.split('.').collect();
    let packages = &parts[..parts.len().checked_sub(1)?];
    let top = *packages.first()?;
    let domain = TOP.contains(&top);
    let candidates: &[&str] = if domain { packages.get(2..).unwrap_or(&[]) } else { packages };
    let named = |part: &&&str| part.len() > 2 && !GENERIC.contains(&part.to_ascii_lowercase().as_str());
    let chosen = if domain {
        candidates.iter().find(named).or_else(|| packages.get(1))
    } else {
        // `author.mod.X` or `mod.common.X`
        candidates.get(1).filter(|part| named(part)).or_else(|| candidates.first())
    };
    chosen.filter(|part| part.len() > 1).map(|part| (*part).to_owned())
}

const TOP: [&str; 27] = [
    "com", "net", "org", "de", "io", "me", "dev", "team", "fr", "ru", "uk", "eu", "cn", "pl", "it", "nl",
    "xyz", "us", "co", "tv", "gg", "ca", "info", "top", "cc", "cz", "br",
];
const GENERIC: [&str; 24] = [
    "common",
    "core",
    "mod",
    "mods",
    "minecraft",
    "server",
    "api",
    "util",
    "utils",
    "impl",
    "init",
    "main",
    "forge",
    "fabric",
    "neoforge",
    "plugin",
    "plugins",
    "bukkit",
    "client",
    "lib",
    "block",
    "blocks",
    "mixin",
    "mixins",
];

/// `Mekanism (mekanism), Version: 10.3.9`, several by commas; `NONE` and `Unknown` are nobody.
pub(crate) fn suspects(names: &Names<'_>, text: &str) -> Vec<Culprit> {
    let mut found: Vec<Culprit> = Vec::new();
    for (before, rest) in text.split(')').filter_map(|part| part.rsplit_once('(')) {
        let id = rest.trim();
        let plain = !id.is_empty() && id.len() < 80 && !id.contains(' ') && !id.contains(':');
        if plain && !platform::is_platform_id(id) && !before.trim().eq_ignore_ascii_case("none") {
            let culprit = names.by_id(id, "the report suspects it");
            if !found.iter().any(|known| known.id == culprit.id) {
                found.push(culprit);
            }
        }
    }
    found
}

/// What a report says about the thing that ticked.
#[derive(Debug, Default)]
pub(crate) struct Ticked {
    /// `pipez:energy_pipe`, or an old name.
    pub what: Option<String>,
    pub class: Option<String>,
    pub block: Option<[i32; 3]>,
    pub dimension: Option<String>,
    pub line: usize,
}

/// The first section about an entity or a block entity.
pub(crate) fn ticked(log: &Log) -> Option<Ticked> {
    let mut found = Ticked::default();
    let mut inside = false;
    for (index, line) in log.lines.iter().enumerate().filter(|(_, line)| line.kind == Kind::Report) {
        let text = line.message().trim();
        if text.starts_with("-- ") {
            if inside && found.what.is_some() && !text.contains("level") {
                break;
            }
            let lower = text.to_ascii_lowercase();
            inside = lower.contains("being ticked") || lower.contains("affected level");
            continue;
        }
        if !inside {
            continue;
        }
        let Some((key, value)) = text.split_once(": ") else { continue };
        let value = value.trim();
        match key {
            "Entity Type" | "Name" | "Id" if found.what.is_none() => {
                // `pipez:energy_pipe // de.max…`, `minecraft:item (net.minecraft.…)`
                let (what, class) =
                    value.split_once(" // ").or_else(|| value.split_once(" (")).unwrap_or((value, ""));
                found.what = Some(what.trim().to_owned());
                found.class =
                    Some(class.trim_end_matches(')').trim().to_owned()).filter(|class| class.contains('.'));
                found.line = index;
            }
            "Entity's Exact location" | "Block location" if found.block.is_none() => {
                found.block = coordinates(value);
            }
            "Level dimension" | "Dimension" if found.dimension.is_none() => {
                found.dimension = Some(value.trim_matches('\'').to_owned());
            }
            _ => {}
        }
    }
    (found.what.is_some() || found.block.is_some()).then_some(found)
}

/// `World: (-298,68,14), Chunk: …`, `78.50, 50.00, 50.50`
#[allow(clippy::cast_possible_truncation, reason = "a float's cast saturates")]
fn coordinates(value: &str) -> Option<[i32; 3]> {
    let inside = value.strip_prefix("World: (").and_then(|rest| rest.split(')').next()).unwrap_or(value);
    let mut numbers = inside.split(',').map(|number| number.trim().parse::<f64>());
    let mut next = || numbers.next()?.ok().filter(|n| n.is_finite()).map(|n| n.floor() as i32);
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_tell_a_name() {
        for (class, id) in [
            ("de.maxhenkel.pipez.blocks.Pipe", "pipez"),
            ("mekanism.common.util.MinerUtils", "mekanism"),
            ("team.creative.littleframes.LittleFrames$1", "littleframes"),
            ("draylar.omegaconfig.OmegaConfig", "omegaconfig"),
            ("com.simibubi.create.content.X", "create"),
        ] {
            assert_eq!(guess(class).as_deref(), Some(id), "{class}");
        }
    }

    #[test]
    fn where_the_jars_are_known_nobody_is_blamed_by_a_guess() {
        #[derive(Debug)]
        struct Nothing;
        impl AddonLookup for Nothing {
            fn owners_of_package(&self, _: &str) -> Vec<&crate::AddonInfo> {
                Vec::new()
            }
            fn by_id(&self, _: &str) -> Vec<&crate::AddonInfo> {
                Vec::new()
            }
            fn by_file(&self, _: &str) -> Vec<&crate::AddonInfo> {
                Vec::new()
            }
        }
        let log = b"[12:00:00] [Server thread/ERROR]: Encountered an unexpected exception\n\
            java.lang.IllegalStateException: boom\n\tat acme.server.Game.tick(Game.java:1)\n";
        let console = || vec![crate::Text { name: "console", bytes: log, first_line: 1 }];
        let exit = Some(crate::Exit { code: Some(3), ..crate::Exit::default() });
        let run = crate::Evidence {
            exit: exit.clone(),
            console: console(),
            addons: Some(&Nothing),
            ..Default::default()
        };
        let known = crate::analyse(&run);
        assert_eq!(
            (known.culprit.as_slice(), known.classification),
            ([].as_slice(), Some(crate::Class::NonzeroExit))
        );
        let pasted = crate::analyse(&crate::Evidence { exit, console: console(), ..Default::default() });
        assert!(!pasted.culprit.is_empty() && !pasted.certain, "a guess, and said to be one");
    }

    #[test]
    fn mixin_handlers_name_their_mod() {
        assert_eq!(mixin_handler("handler$zbd000$lithium$tick"), Some("lithium"));
        assert_eq!(mixin_handler("handler$zbd000$onTick"), None);
        assert_eq!(mixin_handler("lambda$tick$0"), None);
    }

    #[test]
    fn the_missing_class_is_named() {
        for (message, class) in [
            ("com/creativemd/littletiles/Gui", "com.creativemd.littletiles.Gui"),
            (
                "'net.minecraft.class_2540 net.minecraft.class_2540.method_10794(net.minecraft.class_2487)'",
                "net.minecraft.class_2540",
            ),
            ("nc.tile.energy.TileEnergy.addTileToENet()V", "nc.tile.energy.TileEnergy"),
            ("Could not initialize class a.b.C", "a.b.C"),
        ] {
            assert_eq!(missing_class(message).as_deref(), Some(class), "{message}");
        }
    }

    #[test]
    fn places_are_read() {
        assert_eq!(coordinates("World: (-298,68,14), Chunk: (at 6"), Some([-298, 68, 14]));
        assert_eq!(coordinates("-37.80, 106.00, 82.88"), Some([-38, 106, 82]));
    }
}
