//! Predictions for a folder of labelled logs, in the form that a scorer of them reads:
//! `file<TAB>label<TAB>culprits<TAB>dependencies<TAB>needs_java`, for the rows of its
//! `labels.tsv`. Measures the time as it goes.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used, reason = "a tool for developers")]

use std::time::Instant;

use zlh_crash::{Analysis, Cause, Class, Evidence, Exit, Text, analyse};

fn main() {
    let dir = std::path::PathBuf::from(std::env::args().nth(1).expect("usage: predict DIR"));
    let labels = std::fs::read_to_string(dir.join("labels.tsv")).unwrap();
    let mut lines = labels.lines();
    let header: Vec<&str> = lines.next().unwrap().split('\t').collect();
    let column = |name: &str| header.iter().position(|one| *one == name).unwrap();
    let (file, exit, label) = (column("file"), column("exit"), column("label"));
    let mut slowest = (0.0, String::new());
    let mut total = 0.0;
    for row in lines.map(|line| line.split('\t').collect::<Vec<_>>()) {
        let bytes = std::fs::read(dir.join(row[file])).unwrap();
        let exit = exit_of(row.get(exit).copied().unwrap_or_default());
        let exit = exit.filter(|_| row[label] != "healthy");
        let evidence = Evidence {
            exit,
            console: vec![Text { name: row[file], bytes: &bytes, first_line: 1 }],
            ..Evidence::default()
        };
        let begun = Instant::now();
        let analysis = analyse(&evidence);
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        total += took;
        if took > slowest.0 {
            slowest = (took, row[file].to_owned());
        }
        if std::env::args().nth(2).is_some_and(|only| row[file].contains(&only)) {
            eprintln!("{}\n{}", row[file], serde_json::to_string_pretty(&analysis).unwrap());
        }
        let names = |list: Vec<String>| list.join("|");
        let culprits = analysis.culprit.iter().flat_map(|c| {
            std::iter::once(c.id.clone())
                .chain(c.name.clone())
                .chain(c.file.clone().map(|f| f.rsplit('/').next().unwrap_or_default().to_owned()))
        });
        println!(
            "{}\t{}\t{}\t{}\t{}",
            row[file],
            label_of(&analysis),
            names(culprits.collect()),
            names(analysis.dependency.iter().map(|d| d.id.clone()).collect()),
            analysis.java.and_then(|java| java.need).map(|n| n.to_string()).unwrap_or_default()
        );
    }
    eprintln!("slowest: {:.1} ms ({}), all: {total:.0} ms", slowest.0, slowest.1);
}

fn exit_of(text: &str) -> Option<Exit> {
    let mut exit = Exit::default();
    for (key, value) in text.split(';').filter_map(|part| part.split_once('=')) {
        match key {
            "code" => exit.code = value.parse().ok(),
            "signal" => exit.signal = value.parse().ok(),
            "oom_kill" => exit.oom_kills = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    (!text.is_empty()).then_some(exit)
}

fn label_of(analysis: &Analysis) -> String {
    let (Some(class), Some(cause)) = (analysis.classification, analysis.cause) else {
        return "healthy".to_owned();
    };
    let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let class_word = word(serde_json::to_value(class).unwrap());
    match class {
        Class::Oom | Class::ModOrPluginError | Class::MissingDependency if cause != Cause::AddonJava => {
            class_word
        }
        _ => match cause {
            Cause::JavaTooOld | Cause::JavaTooNew | Cause::AddonJava => "other:java_version".to_owned(),
            Cause::LevelDat | Cause::ChunkCorrupt => "other:world_corrupt".to_owned(),
            Cause::WorldNewer => "other:world_downgrade".to_owned(),
            Cause::BadAddress => "other:port_in_use".to_owned(),
            Cause::Ticking
            | Cause::LoopCrash
            | Cause::Watchdog
            | Cause::Deadlock
            | Cause::Silent
            | Cause::Killed
            | Cause::Terminated
            | Cause::CleanUnrequested
            | Cause::WatchdogFollowUp
            | Cause::StackOverflow => class_word,
            _ => format!("other:{}", word(serde_json::to_value(cause).unwrap())),
        },
    }
}
