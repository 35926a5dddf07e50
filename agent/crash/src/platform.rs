//! What is never to blame: the game, Java, loaders, their libraries, and mods that merely
//! wrap every tick.

/// Packages of the platform, with the dot that ends a part.
const PACKAGES: &[&str] = &[
    "net.minecraft.",
    "com.mojang.",
    "net.minecraftforge.",
    "cpw.mods.",
    "net.neoforged.",
    "net.fabricmc.",
    "org.quiltmc.",
    "org.bukkit.",
    "org.spigotmc.",
    "io.papermc.",
    "com.destroystokyo.",
    "co.aikar.",
    "org.purpurmc.",
    "net.pl3x.purpur.",
    "gg.pufferfish.",
    "ca.spottedleaf.",
    "com.tuinity.",
    "dev.folia.",
    "net.md_5.",
    "com.velocitypowered.",
    "io.github.waterfallmc.",
    "com.mohistmc.",
    "io.izzel.arclight.",
    "org.magmafoundation.",
    "red.mohist.",
    "catserver.",
    "org.cauldron.",
    "thermos.",
    "net.glowstone.",
    "java.",
    "javax.",
    "jdk.",
    "sun.",
    "com.sun.",
    "org.openjdk.",
    "kotlin.",
    "kotlinx.",
    "scala.",
    "groovy.",
    "io.netty.",
    "org.apache.",
    "com.google.",
    "it.unimi.",
    "org.spongepowered.asm.",
    "org.slf4j.",
    "oshi.",
    "joptsimple.",
    "org.objectweb.",
    "org.lwjgl.",
    "org.joml.",
    "gnu.trove.",
    "com.llamalad7.",
    "org.yaml.",
    "org.spongepowered.configurate.",
    "com.electronwill.",
    "net.kyori.",
    "org.jline.",
    "jline.",
    "com.fasterxml.",
    "org.fusesource.",
    "org.sqlite.",
    "com.mysql.",
    "org.mariadb.",
    "com.zaxxer.",
    "org.jetbrains.",
    "com.ibm.",
    "org.json.",
    "org.tukaani.",
    "paulscode.",
    "org.codehaus.",
    "javassist.",
    "net.bytebuddy.",
    "ninja.leaping.",
    "io.leangen.",
    "org.jctools.",
    "reactor.",
    "org.jboss.",
    "jakarta.",
    "org.eclipse.",
    "org.reflections.",
    "us.myles.ViaVersion.api.",
    "org.sinytra.connector.",
    "dev.su5ed.sinytra.",
    "org.embeddedt.modernfix.",
    "com.typesafe.",
    "akka.",
    "LZMA.",
    "org.relaxng.",
    "antlr.",
    "org.antlr.",
    "software.amazon.",
    "net.jpountz.",
];

/// Mods that only stand in a trace because every tick goes through them.
const WRAPPERS: &[&str] = &[
    "me.lucko.spark.",
    "com.ishland.",
    "me.jellysquid.mods.",
    "net.caffeinemc.",
    "me.steinborn.",
    "org.dimdev.vanillafix.",
    "de.tr7zw.",
    "com.viaversion.",
    "io.github.retrooper.packetevents.",
    "com.comphenix.protocol.",
    "net.earthcomputer.",
    "fudge.notenoughcrashes.",
    "com.natamus.collective.",
    "dev.architectury.",
    "me.shedaniel.architectury.",
    "com.teamresourceful.",
    "team.creative.creativecore.",
];

/// Plugins that call others: theirs only where the trace begins in them.
const CALLERS: &[&str] = &["me.lucko.luckperms.", "com.earth2me.", "net.ess3.", "com.onarandombox."];

/// Ids that name the platform.
const IDS: &[&str] = &[
    "minecraft",
    "java",
    "forge",
    "neoforge",
    "fabricloader",
    "fabric-loader",
    "quilt_loader",
    "fml",
    "mcp",
    "fml_loader",
    "fmlcore",
    "javafmllanguage",
    "lowcodelanguage",
    "mclanguage",
    "fabric",
    "fabric-api",
    "mixinextras",
    "minecraftforge",
    "server",
    "client",
    "forge.jar",
    "minecraft.jar",
    "mohist",
    "arclight",
    "magma",
    "paper",
    "spigot",
    "craftbukkit",
    "bukkit",
    "purpur",
    "folia",
    "velocity",
    "bungeecord",
    "waterfall",
    "quilted_fabric_api",
    "connector",
    "modlauncher",
];

/// Whether a class belongs to the platform.
pub(crate) fn is_platform(class: &str) -> bool {
    // Obfuscated, or in no package: the game's own.
    if !class.contains('.')
        || class
            .split('.')
            .all(|part| part.len() <= 3 && part.chars().all(|c| c.is_ascii_lowercase() || c == '$'))
    {
        return true;
    }
    PACKAGES.iter().any(|package| class.starts_with(package))
}

/// Whether a class stands in every trace.
pub(crate) fn is_wrapper(class: &str) -> bool {
    WRAPPERS.iter().any(|package| class.starts_with(package))
}

/// Whether a class mostly calls others.
pub(crate) fn is_caller(class: &str) -> bool {
    CALLERS.iter().any(|package| class.starts_with(package))
}

/// Whether an id is the game's, Java's or a loader's.
pub(crate) fn is_platform_id(id: &str) -> bool {
    let id = id.to_ascii_lowercase();
    IDS.contains(&id.as_str())
}

/// What a dependency on a platform id is really about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlatformNeed {
    Game,
    Java,
    Loader,
}

/// The game, Java or a loader; none for a mod. Fabric API is a mod here: it can be missing.
pub(crate) fn need(id: &str) -> Option<PlatformNeed> {
    Some(match id.to_ascii_lowercase().as_str() {
        "minecraft" => PlatformNeed::Game,
        "java" => PlatformNeed::Java,
        "forge" | "neoforge" | "fabricloader" | "fabric-loader" | "quilt_loader" | "fml"
        | "minecraftforge" | "javafml" => PlatformNeed::Loader,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_is_known() {
        for class in [
            "net.minecraft.server.v1_13_R1.Chunk",
            "aog$a",
            "aqh",
            "a.b.c",
            "java.lang.Thread",
            "cpw.mods.fml.X",
        ] {
            assert!(is_platform(class), "{class}");
        }
        for class in ["mekanism.common.X", "com.sk89q.worldedit.X", "de.maxhenkel.pipez.X"] {
            assert!(!is_platform(class), "{class}");
        }
        assert_eq!(need("NeoForge"), Some(PlatformNeed::Loader));
        assert_eq!(need("fabric-api"), None);
    }
}
