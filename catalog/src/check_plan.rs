//! Whether a launch plan can work with the files and the runtime of its entry.
//!
//! Refused: an empty or relative command, files and executables that do not exist,
//! cache files outside an installer, two steps for one target, our own bookkeeping as
//! a target, commands of more than one line, an `eula.txt` nobody accepted.

use std::collections::{BTreeMap, BTreeSet};

use crate::name::Shown;
use crate::{
    Artifact, FileFormat, FileRule, Id, InstallStep, LaunchPlan, MediaType, RelPath, RuntimeVersion,
    Template, Variable,
};

/// What the plan can refer to.
pub(crate) struct Context<'a> {
    pub(crate) files: &'a [Artifact],
    pub(crate) runtime: Option<&'a RuntimeVersion>,
}

/// Everything that is wrong, in sentences.
pub(crate) fn check_plan(plan: &LaunchPlan, context: &Context<'_>) -> Vec<String> {
    let mut check = Check { context, problems: Vec::new() };
    check.steps(&plan.install);
    let unpacks = plan.install.iter().any(|step| matches!(step, InstallStep::Unpack { .. }));
    let scope = Scope { files: false, server: unpacks };
    check.command(&plan.argv, scope);
    for (name, value) in &plan.env {
        if !is_env_name(name) || BUILT_IN_ENV.contains(&name.as_str()) {
            check.say(format!("environment variable {} cannot be set by a plan", Shown(name)));
        }
        check.template(value, scope);
    }
    check.files(&plan.files, scope);
    check.seconds("readiness.timeout_s", plan.readiness.timeout_s, 1, MAX_START_S);
    check.problems.extend(plan.stop.problems());
    let save = plan.save.iter().flat_map(|save| [&save.off, &save.flush, &save.flushed, &save.on]);
    let warnings = plan.stop.warn.iter().map(|warning| &warning.command);
    for line in plan.stop.command.iter().chain(warnings).chain(save) {
        if line.trim().is_empty() || line.len() > MAX_LINE_BYTES || line.chars().any(char::is_control) {
            check.say(format!("console command {} is not one line of at most 4,095 bytes", Shown(line)));
        }
    }
    check.problems
}

/// What is available where a template stands.
#[derive(Clone, Copy)]
struct Scope {
    files: bool,
    server: bool,
}

struct Check<'a> {
    context: &'a Context<'a>,
    problems: Vec<String>,
}

impl Check<'_> {
    fn say(&mut self, what: String) {
        self.problems.push(what);
    }

    fn steps(&mut self, steps: &[InstallStep]) {
        let mut targets = BTreeSet::new();
        let mut unpacked = false;
        for step in steps {
            match step {
                InstallStep::Place { file, to } => {
                    self.file(file);
                    self.target(to);
                    if !targets.insert(to.as_str()) {
                        self.say(format!("two steps place `{to}`"));
                    }
                }
                InstallStep::Unpack { file, .. } => {
                    if self.file(file).is_some_and(|media_type| !media_type.is_archive()) {
                        self.say(format!("file `{file}` is unpacked but is no archive"));
                    }
                    if std::mem::replace(&mut unpacked, true) {
                        self.say("the server tree is unpacked twice".to_owned());
                    }
                }
                InstallStep::Run { argv, produces, timeout_s } => {
                    let scope = Scope { files: true, server: unpacked };
                    self.command(argv, scope);
                    if produces.is_empty() {
                        self.say("an installer has to say what it produces".to_owned());
                    }
                    produces.iter().for_each(|path| self.template(path, scope));
                    self.seconds("timeout_s", *timeout_s, 1, MAX_START_S);
                }
            }
        }
    }

    fn files(&mut self, rules: &[FileRule], scope: Scope) {
        let mut paths = BTreeSet::new();
        for rule in rules {
            let path = &rule.path;
            self.target(path);
            if !paths.insert(path.as_str()) {
                self.say(format!("two rules write `{path}`"));
            }
            if rule.set.is_empty() && rule.default.is_empty() {
                self.say(format!("the rule for `{path}` sets nothing"));
            }
            if path.file_name().eq_ignore_ascii_case("eula.txt") && !rule.needs_eula {
                self.say(format!("`{path}` has to say `needs_eula`: only the operator accepts a licence"));
            }
            self.keys(rule, &rule.set, scope);
            self.keys(rule, &rule.default, scope);
            if let Some(key) = rule.set.keys().find(|key| rule.default.contains_key(*key)) {
                self.say(format!("`{path}` has key {} in `set` and in `default`", Shown(key)));
            }
        }
    }

    fn keys(&mut self, rule: &FileRule, keys: &BTreeMap<String, Template>, scope: Scope) {
        for (key, value) in keys {
            let good = match rule.format {
                FileFormat::Properties => is_properties_key(key),
                FileFormat::Json => !key.is_empty() && !key.chars().any(char::is_control),
            };
            if !good || key.len() > MAX_KEY_BYTES {
                self.say(format!("`{}` cannot have the key {}", rule.path, Shown(key)));
            }
            self.template(value, scope);
        }
    }

    fn command(&mut self, argv: &[Template], scope: Scope) {
        match argv.first() {
            None => self.say("the command is empty".to_owned()),
            Some(program) if !program.is_absolute() => {
                self.say(format!("program {} does not begin with an absolute path", Shown(program.as_str())));
            }
            Some(_) => {}
        }
        argv.iter().for_each(|argument| self.template(argument, scope));
    }

    fn template(&mut self, template: &Template, scope: Scope) {
        for variable in template.variables() {
            let problem = match variable {
                Variable::Exec(id) => match self.context.runtime {
                    None => Some("but the entry requires no runtime".to_owned()),
                    Some(runtime) if runtime.executables.contains_key(id) => None,
                    Some(runtime) => {
                        let known: Vec<&str> = runtime.executables.keys().map(Id::as_str).collect();
                        Some(format!("but the runtime {} has {}", runtime.version, known.join(", ")))
                    }
                },
                Variable::File(_) if !scope.files => Some("which only installers may".to_owned()),
                Variable::File(id) if !self.context.files.iter().any(|file| file.name == *id) => {
                    Some("which the entry does not have".to_owned())
                }
                Variable::Server if !scope.server => Some("but nothing was unpacked".to_owned()),
                _ => None,
            };
            if let Some(problem) = problem {
                self.say(format!("{} uses `{{{variable}}}`, {problem}", Shown(template.as_str())));
            }
        }
    }

    fn file(&mut self, name: &Id) -> Option<MediaType> {
        let found = self.context.files.iter().find(|file| file.name == *name);
        if found.is_none() {
            self.say(format!("a step uses file `{name}`, which the entry does not have"));
        }
        found.map(|file| file.media_type)
    }

    fn target(&mut self, path: &RelPath) {
        if path.components().any(|component| component.starts_with(".zlh")) {
            self.say(format!("`{path}` is reserved"));
        }
    }

    fn seconds(&mut self, what: &str, value: u64, least: u64, most: u64) {
        if !(least..=most).contains(&value) {
            self.say(format!("{what} is {value}, it must be {least} to {most} seconds"));
        }
    }
}

fn is_env_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.len() <= MAX_KEY_BYTES
}

fn is_properties_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic() && !b"=:#!\\".contains(&byte))
}

/// Set by the agent for every workload.
const BUILT_IN_ENV: [&str; 7] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TERM", "ZLH_INSTANCE"];
const MAX_START_S: u64 = 7200;
const MAX_KEY_BYTES: usize = 128;
/// The longest line a terminal takes in cooked mode.
const MAX_LINE_BYTES: usize = 4095;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures;

    /// The fixture's plan with one field replaced, checked.
    fn problems(field: &str, value: Value) -> String {
        let catalog = fixtures::catalog();
        let entry = catalog.game_version("minecraft", "flying-squid", "1.18.2").unwrap();
        let mut plan = serde_json::to_value(entry.launch.as_ref().unwrap()).unwrap();
        plan[field] = value;
        let plan: LaunchPlan = serde_json::from_value(plan).unwrap();
        let runtime = catalog.runtime_version("node", "22.23.3").ok();
        check_plan(&plan, &Context { files: &entry.files, runtime }).join("\n")
    }

    #[test]
    fn plans_that_cannot_work() {
        let run = |argv: Value, produces: Value| json!([{"step":"run","argv":argv,"produces":produces,"timeout_s":60}]);
        let table = [
            ("argv", json!(["node"]), "program `node` does not begin with an absolute path"),
            (
                "argv",
                json!(["{exec:deno}"]),
                "`{exec:deno}` uses `{exec:deno}`, but the runtime 22.23.3 has node",
            ),
            ("argv", json!(["{exec:node}", "{file:server}"]), "which only installers may"),
            ("install", json!([]), "uses `{server}`, but nothing was unpacked"),
            ("install", json!([{"step":"unpack","file":"tree"}]), "a step uses file `tree`"),
            (
                "install",
                json!([{"step":"unpack","file":"server"},{"step":"unpack","file":"server"}]),
                "unpacked twice",
            ),
            (
                "install",
                json!([{"step":"place","file":"server","to":".zlh_metadata.json"}]),
                "`.zlh_metadata.json` is reserved",
            ),
            (
                "install",
                json!([{"step":"place","file":"server","to":"a"},{"step":"place","file":"server","to":"a"}]),
                "two steps place `a`",
            ),
            (
                "install",
                run(json!(["{exec:node}", "{file:nope}"]), json!(["{root}/x"])),
                "`{file:nope}`, which the entry does not have",
            ),
            ("install", run(json!([]), json!(["{root}/x"])), "the command is empty"),
            ("install", run(json!(["{exec:node}"]), json!([])), "has to say what it produces"),
            ("env", json!({"PATH": "/x"}), "variable `PATH` cannot be set"),
            ("env", json!({"A=B": "/x"}), "variable `A=B` cannot be set"),
            (
                "files",
                json!([{"path":"eula.txt","format":"properties","set":{"eula":"true"}}]),
                "has to say `needs_eula`",
            ),
            ("files", json!([{"path":"x","format":"properties","set":{}}]), "sets nothing"),
            (
                "files",
                json!([{"path":"x","format":"properties","set":{"a\nb":"1"}}]),
                "cannot have the key `a\\nb`",
            ),
            (
                "files",
                json!([{"path":"x","format":"json","set":{"a":"1"},"default":{"a":"2"}}]),
                "in `set` and in `default`",
            ),
            ("stop", json!({"command":"stop\nop me"}), "`stop\\nop me` is not one line"),
            ("stop", json!({"command":" "}), "is not one line"),
            (
                "stop",
                json!({"command":"stop","warn":[{"before_s":5,"command":"say bye\nop me"}]}),
                "`say bye\\nop me` is not one line",
            ),
            ("stop", json!({"grace_s":999_999}), "stop.grace_s is 999999"),
            ("readiness", json!({"probe":"tcp_connect","timeout_s":0}), "readiness.timeout_s is 0"),
            ("save", json!({"off":"a","flush":"b\r","flushed":"c","on":"d"}), "is not one line"),
        ];
        for (field, value, expected) in table {
            let text = problems(field, value.clone());
            assert!(text.contains(expected), "{field} {value}: {text}\nshould contain: {expected}");
        }
        assert_eq!(problems("workdir", json!("sub")), "", "the plan itself is good");
    }

    #[test]
    fn an_executable_needs_a_runtime() {
        let catalog = fixtures::catalog();
        let entry = catalog.game_version("minecraft", "flying-squid", "1.18.2").unwrap();
        let context = Context { files: &entry.files, runtime: None };
        let text = check_plan(entry.launch.as_ref().unwrap(), &context).join("\n");
        assert!(text.contains("but the entry requires no runtime"), "{text}");
    }
}
