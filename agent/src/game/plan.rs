//! From an installed version and a payload to what the shim is told to run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zlh_catalog::{Id, InstallStep, LaunchPlan, RelPath, StopWarning, TemplateError, Values};
use zlh_shim::process::INSTANCE_VARIABLE;
use zlh_shim::spec::{ConsoleLimits, Size, Spec, StopPlan, Warning};

use super::payload::GameRequest;
use crate::users::GameUser;

/// Standard folders behind the runtime's own in `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Size of a game's terminal: wide enough that servers do not wrap their lines.
pub(crate) const SIZE: Size = Size { rows: 50, cols: 200 };

/// Open files a game may have.
const MAX_OPEN_FILES: u64 = 65_536;

/// How much sooner than the agent a game is chosen by the kernel when memory runs out.
const OOM_SCORE_ADJ: i32 = 200;

/// Id of the runtime whose major version a payload may choose.
pub(crate) const JAVA: &str = "java";

/// Schema of the stored record.
pub(crate) const SCHEMA: u32 = 1;

/// What is installed, with everything a start needs: the artifact server may be away then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Installed {
    pub game: String,
    pub variant: String,
    pub version: String,
    pub world: String,
    /// Serial of the catalog it came from.
    pub serial: u64,
    /// Whether the server fetches further files by itself.
    pub fetches_upstream: bool,
    pub plan: LaunchPlan,
    pub runtime: Option<InstalledRuntime>,
    /// The Java that was asked for instead of the catalog's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub java_version: Option<u32>,
    /// The unpacked server tree.
    pub server: Option<PathBuf>,
    /// Verified files by name.
    pub files: BTreeMap<Id, PathBuf>,
    /// Their sizes, bytes.
    #[serde(default)]
    pub sizes: BTreeMap<Id, u64>,
    pub warnings: Vec<String>,
}

/// The runtime it runs on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct InstalledRuntime {
    pub id: Id,
    pub version: String,
    pub dir: PathBuf,
    pub executables: BTreeMap<Id, RelPath>,
}

impl Installed {
    /// Whether this is what the request asks for.
    pub(crate) fn serves(&self, request: &GameRequest) -> bool {
        (&self.game, &self.variant, &self.version, &self.world)
            == (&request.game, &request.variant, &request.version, &request.world)
            && self.java_version == request.java_version
    }

    /// The values of its templates.
    pub(crate) fn values(&self, request: &GameRequest, root: &Path) -> Values {
        Values {
            executables: self.runtime.iter().flat_map(InstalledRuntime::paths).collect(),
            files: self.files.clone(),
            server: self.server.clone(),
            root: Some(root.to_owned()),
            world: Some(request.world.clone()),
            version: Some(request.version.clone()),
            port: Some(request.port),
            heap_mb: Some(request.heap_mb()),
        }
    }

    /// What the shim is to run.
    pub(crate) fn spec(
        &self,
        request: &GameRequest,
        root: &Path,
        user: &GameUser,
        instance: String,
    ) -> Result<Spec, TemplateError> {
        let values = self.values(request, root);
        let argv = self.plan.argv.iter().map(|t| t.expand(&values)).collect::<Result<_, _>>()?;
        let mut env = environment(self.runtime.as_ref(), root, &user.name);
        for (key, template) in &self.plan.env {
            env.insert(key.clone(), template.expand(&values)?);
        }
        // Everything the game starts carries it, wherever it hides from its parents.
        env.insert(INSTANCE_VARIABLE.to_owned(), instance.clone());
        Ok(Spec {
            instance,
            argv,
            env,
            workdir: self.plan.workdir.as_ref().map_or_else(|| root.to_owned(), |w| root.join(w.as_str())),
            user: user.ids.clone(),
            size: SIZE,
            controlling_terminal: false,
            new_privileges: false,
            oom_score_adj: OOM_SCORE_ADJ,
            max_open_files: MAX_OPEN_FILES,
            stop: self.stop_plan(),
            shutdown_ms: None,
            console: ConsoleLimits::default(),
        })
    }

    /// What the plan's steps put into the game's folder, relative to it.
    pub(crate) fn placed(&self, request: &GameRequest, root: &Path) -> Vec<String> {
        let places = self.plan.install.iter().filter_map(|step| match step {
            InstallStep::Place { to, .. } => Some(to.to_string()),
            InstallStep::Unpack { .. } | InstallStep::Run { .. } => None,
        });
        places.chain(self.produced(request, root)).collect()
    }

    /// What its installers made there.
    pub(crate) fn produced(&self, request: &GameRequest, root: &Path) -> Vec<String> {
        let values = self.values(request, root);
        let made = self.plan.install.iter().filter_map(|step| match step {
            InstallStep::Run { produces, .. } => Some(produces),
            InstallStep::Unpack { .. } | InstallStep::Place { .. } => None,
        });
        // A template that cannot be expanded names nothing that could be there.
        made.flatten().map(|template| template.expand(&values).unwrap_or_default()).collect()
    }

    /// The rungs of its stop ladder.
    pub(crate) fn stop_plan(&self) -> StopPlan {
        let stop = &self.plan.stop;
        let ms = |seconds: u64| seconds.saturating_mul(1000);
        let warn = |w: &StopWarning| Warning { before_ms: ms(w.before_s), command: w.command.clone() };
        StopPlan {
            command: stop.command.clone(),
            grace_ms: ms(stop.grace_s),
            term_ms: ms(stop.term_s),
            cap_ms: Some(ms(stop.cap_s)),
            warn: stop.warn.iter().map(warn).collect(),
        }
    }
}

impl InstalledRuntime {
    /// Its executables, absolute.
    pub(crate) fn paths(&self) -> impl Iterator<Item = (Id, PathBuf)> {
        self.executables.iter().map(|(name, path)| (name.clone(), self.dir.join(path.as_str())))
    }
}

/// The whole environment of a workload: nothing of the agent's own gets in.
pub(crate) fn environment(
    runtime: Option<&InstalledRuntime>,
    home: &Path,
    user: &str,
) -> BTreeMap<String, String> {
    let mut path: Vec<String> = Vec::new();
    for (_, executable) in runtime.iter().flat_map(|r| r.paths()) {
        if let Some(dir) = executable.parent().map(|d| d.display().to_string())
            && !path.contains(&dir)
        {
            path.push(dir);
        }
    }
    path.push(PATH.to_owned());
    [
        ("PATH", path.join(":")),
        ("HOME", home.display().to_string()),
        ("USER", user.to_owned()),
        ("LOGNAME", user.to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("TERM", "xterm-256color".to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}
