//! Doors for the fuzz targets in `tests/fuzz`, and a short run of the same in the tests.

/// Reads a manifest: the first byte says of which kind.
pub fn manifest(data: &[u8]) {
    crate::addons::fuzz_manifest(data);
}

/// Reads a jar.
pub fn jar(data: &[u8]) {
    crate::addons::fuzz_jar(data);
}

/// Analyses a console, and the same bytes as a crash report.
pub fn log(data: &[u8]) {
    let text = crate::Text { name: "latest.log", bytes: data, first_line: 1 };
    check(&crate::Evidence { console: vec![text], ..crate::Evidence::default() });
    check(&crate::Evidence { reports: vec![text], ..crate::Evidence::default() });
}

/// Analyses a fatal error log.
pub fn hs_err(data: &[u8]) {
    let text = crate::Text { name: "hs_err_pid1.log", bytes: data, first_line: 1 };
    check(&crate::Evidence { hs_err: Some(text), ..crate::Evidence::default() });
}

/// What holds of every analysis, whatever it was made of.
fn check(evidence: &crate::Evidence<'_>) {
    let analysis = crate::analyse(evidence);
    assert_eq!(analysis.healthy, analysis.cause.is_none());
    assert_eq!(analysis.cause.is_some(), analysis.classification.is_some());
    assert!(!analysis.title.is_empty());
    for line in &analysis.evidence {
        assert!(line.text.len() <= 600 && !line.text.contains('\u{1b}'));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::addons::fixtures::{self, bukkit, fabric};

    /// A fixed sequence: what fails once fails always.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            usize::try_from(self.0 >> 33).unwrap() % end.max(1)
        }

        /// Flips, copies, cuts and doubles, as a fuzzer does.
        fn mangle(&mut self, seed: &[u8]) -> Vec<u8> {
            let mut bytes = seed.to_vec();
            for _ in 0..=self.below(6) {
                let at = self.below(bytes.len());
                match self.below(6) {
                    0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                    1 => bytes.truncate(at),
                    2 => {
                        let piece = bytes[at..(at + self.below(64)).min(bytes.len())].to_vec();
                        let to = self.below(bytes.len());
                        bytes.splice(to..to, piece);
                    }
                    3 => drop(bytes.splice(at..at, *b"\xff\xff\xff\xff")),
                    4 if at + 4 <= bytes.len() => bytes[at..at + 4].copy_from_slice(b"\xff\xff\xff\x7f"),
                    _ => {
                        let mark = b"\"'[]{}:,#=-|\n \\\0"[self.below(16)];
                        bytes.insert(at, mark);
                    }
                }
            }
            bytes
        }
    }

    #[test]
    fn a_short_run() {
        let toml = b"[[mods]]\nmodId='a'\nversion='1'\n[[dependencies.a]]\nmodId='b'\nversionRange='[1,)'\n"
            .to_vec();
        let yaml =
            b"name: A\ndepend: [B, 'C']\nsoftdepend:\n- D\ndescription: |\n  x\nversion: \"1\"\n".to_vec();
        let quilt =
            br#"{"quilt_loader":{"id":"q","depends":[{"id":"a","versions":{"any":["1"]}}]}}"#.to_vec();
        let inner = fixtures::jar(&[("fabric.mod.json", &fabric("i", "1")), ("i/I.class", b"")]);
        let jar = fixtures::jar(&[
            ("META-INF/MANIFEST.MF", b"Implementation-Version: 1\n"),
            ("META-INF/mods.toml", &toml),
            ("plugin.yml", &bukkit("P", "1")),
            ("META-INF/jars/inner.jar", &inner),
            ("a/b/C.class", b"x"),
        ]);
        let mut dice = Dice(1);
        let started = Instant::now();
        for round in 0..3_000 {
            for seed in [&toml, &yaml, &quilt] {
                let mut input = vec![u8::try_from(round % 9).unwrap()];
                input.extend(dice.mangle(seed));
                super::manifest(&input);
            }
            super::jar(&dice.mangle(&jar));
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    }

    #[test]
    fn a_short_run_of_logs() {
        let report = b"---- Minecraft Crash Report ----\n\nTime: 1\nDescription: Ticking entity\n\n\
            java.lang.Error: x\n\tat TRANSFORMER/a@1/a.b.C.d(C.java:1) ~[a.jar%231!/:1]\nCaused by: a.B: y\n\
            -- Entity being ticked --\nDetails:\n\tEntity Type: m:x (a.b.C)\n\tEntity's Exact location: 1.5, 2, -3\n\
            | LC | id | 1 | f.jar |\n\tSuspected Mods: A (a), B (b)\n"
            .to_vec();
        let console = b"[12:00:00] [Server thread/ERROR]: Encountered an unexpected exception\n\
            java.lang.OutOfMemoryError: Java heap space\n\tat a.b.C.d(C.java:1)\n\
            [12:00:00] [main/ERROR]: Mod ID: 'a', Requested by: 'b', Expected range: '[1,)', Actual version: '[MISSING]'\n\
            - Mod 'A' (a) 1 requires any version of b, which is missing!\n> \r\x1b[31m\xc2\xa7c[x INFO]: <E> hi\n"
            .to_vec();
        let fatal = b"#\n# A fatal error has been detected by the Java Runtime Environment:\n#\n\
            #  SIGSEGV (0xb) at pc=0x1, pid=1, tid=2\n#\n# Problematic frame:\n# C  [libx.so+0x1]  f+0x1\n"
            .to_vec();
        let mut dice = Dice(2);
        for _ in 0..400 {
            super::log(&dice.mangle(&report));
            super::log(&dice.mangle(&console));
            super::hs_err(&dice.mangle(&fatal));
        }
    }
}
