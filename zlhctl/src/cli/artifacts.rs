//! What can be typed after `zlhctl artifacts`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueHint};
use zlh_catalog::{Id, RelPath, Requirement, VersionRange};

use crate::ui::units::parse_duration;

#[derive(Debug, Subcommand)]
pub(crate) enum ArtifactsCommand {
    /// Serve a folder over HTTP, read-only
    ///
    /// For a small deployment. No directory listings, no hidden files, nothing outside the folder;
    /// who takes nothing of an answer for 30 s loses the connection.
    Serve {
        /// The folder
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
        /// Where to listen
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8090")]
        listen: SocketAddr,
    },
    /// Pack a folder as an archive for a store; the same content gives the same bytes
    ///
    /// Prints what the catalog has to say about it; `tree_sha256` is for an entry without
    /// `strip_components`. Anything that agents would refuse (links
    /// that lead out, devices, names that are no UTF-8) is refused here, with its path.
    #[command(after_long_help = PACK_EXAMPLES)]
    Pack {
        /// The folder; it is not itself an entry
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
        /// The archive: NAME.tar.gz or NAME.tar.zst
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        out: PathBuf,
    },
    /// Prove that a store holds what its catalog says: the gate of a publication
    ///
    /// Every file of the catalog: there, its size, its SHA-256; archives are unpacked as agents
    /// unpack them, the tree is compared with the pinned one, and their programs are looked at.
    #[command(after_long_help = VERIFY_EXAMPLES)]
    Verify(Verify),
    /// Put a file into a store, and into its catalog
    ///
    /// Copies FILE to its place, pins its size and SHA-256, and writes the catalog anew. An archive
    /// (.tar.gz, .tar.zst, .tar.xz or .zip) is unpacked first, as agents unpack it, to see that its
    /// programs are where they are said to be; the hash of its tree is pinned, too. A store that is not there yet is made.
    #[command(override_usage = "zlhctl artifacts add [OPTIONS] <WHAT> <STORE> <FILE>")]
    #[command(after_long_help = ADD_EXAMPLES)]
    Add(Box<Add>),
    /// Fetch versions from where they are made, verified, into a store
    ///
    /// Each file has to have the checksum that its publisher states; our own SHA-256 is pinned
    /// beside it. Where none is stated, the length has to be known. NAME is one of vanilla, paper, purpur, fabric, forge, neoforge, java, node,
    /// python, go, dotnet and code-server; without a version it is the newest stable one.
    ///
    /// The jars of paper, purpur, fabric, forge and neoforge fetch further files, unpinned, where
    /// they are installed. With --prepare each is run once, in a folder of its own and as the user
    /// who calls this, and the tree that it makes is what agents get; worlds, logs and eula.txt
    /// are left out.
    #[command(after_long_help = IMPORT_EXAMPLES)]
    Import(Box<Import>),
    /// Offer a version in another channel, or to more of it
    ///
    /// The bytes stay the same ones. Who follows the channel gets the version from then on; with
    /// --wave only a part of the containers does, always the same part.
    #[command(after_long_help = PROMOTE_EXAMPLES)]
    Promote(Promote),
    /// Mark a version as one that should no longer be chosen
    #[command(after_long_help = DEPRECATE_EXAMPLES)]
    Deprecate(Reason),
    /// Mark a version as one that must no longer be installed
    ///
    /// What is installed still runs, and says so. The file stays until `gc` is told otherwise.
    #[command(after_long_help = WITHDRAW_EXAMPLES)]
    Withdraw(Reason),
    /// Check a store's catalog, sign it, and write the lists that older readers want
    #[command(after_long_help = SIGN_EXAMPLES)]
    Sign(SignStore),
    /// Copy a whole store, verified, into a folder
    ///
    /// What is there and right is not fetched again, and a file that was interrupted is gone on with
    /// for a week, so an interrupted mirror goes on where it stopped. The catalog comes last: at every moment the copy has all that it promises.
    #[command(after_long_help = MIRROR_EXAMPLES)]
    Mirror(Mirror),
    /// Remove files that no entry of the catalog names
    #[command(after_long_help = GC_EXAMPLES)]
    Gc(Gc),
}

/// How a catalog is written.
#[derive(Debug, Args)]
pub(crate) struct Publishing {
    /// Sign it with this secret key; without, the old signature goes
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key: Option<PathBuf>,
    /// How long agents take it for current
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = parse_duration)]
    pub(crate) expires: Duration,
    /// Also write agents/manifest.json, which makes older agents update
    #[arg(long)]
    pub(crate) publish_agent: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("kind").required(true).args(["runtime", "addon", "game", "agent"]))]
pub(crate) struct Add {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) store: PathBuf,
    /// The file or archive
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// It is a runtime: node, java, …
    #[arg(long, value_name = "ID", requires = "version", help_heading = WHAT)]
    pub(crate) runtime: Option<String>,
    /// It is a tool of workspaces: code-server, …
    #[arg(long, value_name = "ID", requires = "version", help_heading = WHAT)]
    pub(crate) addon: Option<String>,
    /// It is a server of this game
    #[arg(long, value_name = "ID", requires_all = ["version", "variant"], help_heading = WHAT)]
    pub(crate) game: Option<String>,
    /// It is this version of the agent
    #[arg(long, value_name = "VERSION", conflicts_with = "version", help_heading = WHAT)]
    pub(crate) agent: Option<String>,
    /// Which server of the game: paper, fabric, …
    #[arg(long, value_name = "ID", requires = "game", help_heading = WHAT)]
    pub(crate) variant: Option<String>,
    /// Its version
    #[arg(long, value_name = "VERSION", help_heading = WHAT)]
    pub(crate) version: Option<String>,
    /// Leading path components of every entry of the archive to drop
    #[arg(long, value_name = "COUNT", default_value_t = 0, conflicts_with_all = ["game", "agent"])]
    pub(crate) strip: u8,
    /// Program of the archive, below what --strip leaves; may be repeated
    #[arg(
        long = "exec", value_name = "NAME=PATH", value_parser = parse_program,
        conflicts_with_all = ["game", "agent"],
    )]
    pub(crate) programs: Vec<(Id, RelPath)>,
    /// What a game server runs on, where no plan is built in: java, node@>=22
    #[arg(long, value_name = "RUNTIME[@RANGE]", requires = "game", value_parser = parse_requirement)]
    pub(crate) requires: Option<Requirement>,
    /// How a game server is installed and run (JSON), where no plan is built in
    #[arg(long, value_name = "FILE", requires = "game", value_hint = ValueHint::FilePath)]
    pub(crate) launch: Option<PathBuf>,
    /// Offer it in this channel only [default: stable]
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: Option<Id>,
    /// Take the place of other bytes of the same version
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) publishing: Publishing,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) store: PathBuf,
    /// What to fetch, for example paper@1.21.7, node@22 or java@21
    #[arg(value_name = "NAME[@VERSION]", required = true)]
    pub(crate) what: Vec<String>,
    /// Also take versions that their publisher does not call stable
    #[arg(long)]
    pub(crate) unstable: bool,
    /// Ask this server instead of the publisher's; may be repeated
    #[arg(long = "base-url", value_name = "NAME=URL", value_parser = parse_base_url)]
    pub(crate) base_urls: Vec<(String, String)>,
    /// Offer it in this channel only [default: stable]
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: Option<Id>,
    /// Take the place of other bytes of the same version, such as an older build
    #[arg(long)]
    pub(crate) replace: bool,
    /// Run what fetches further files once, here, and pin the tree that it makes
    #[arg(long)]
    pub(crate) prepare: bool,
    /// The Java to run it with
    #[arg(long, value_name = "FILE", default_value = "java", requires = "prepare", value_hint = ValueHint::FilePath)]
    pub(crate) java: PathBuf,
    /// How long one run may take
    #[arg(long, value_name = "TIME", default_value = "10m", hide = true, value_parser = parse_duration)]
    pub(crate) prepare_timeout: Duration,
    #[command(flatten)]
    pub(crate) publishing: Publishing,
}

#[derive(Debug, Args)]
pub(crate) struct Promote {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) store: PathBuf,
    /// As in `zlhctl catalog show`: 'java 21.0.3', 'minecraft/paper 1.21.7'
    pub(crate) entry: String,
    /// The channel
    #[arg(long, value_name = "CHANNEL")]
    pub(crate) to: Id,
    /// Only to this part of the containers
    #[arg(long, value_name = "PERCENT", default_value = "100%", value_parser = parse_percent)]
    pub(crate) wave: u8,
    /// Refuse it unless everybody who follows this channel gets it already
    #[arg(long, value_name = "CHANNEL")]
    pub(crate) from: Option<Id>,
    #[command(flatten)]
    pub(crate) publishing: Publishing,
}

#[derive(Debug, Args)]
pub(crate) struct Reason {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) store: PathBuf,
    /// As in `zlhctl catalog show`: 'java 21.0.3', 'minecraft/paper 1.21.7'
    pub(crate) entry: String,
    /// Why, in one line; operators and players' portals show it
    #[arg(long, value_name = "TEXT", required_unless_present = "undo", conflicts_with = "undo")]
    pub(crate) because: Option<String>,
    /// Take the mark away again
    #[arg(long)]
    pub(crate) undo: bool,
    #[command(flatten)]
    pub(crate) publishing: Publishing,
}

#[derive(Debug, Args)]
pub(crate) struct SignStore {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) store: PathBuf,
    /// The secret key
    #[arg(long, value_name = "FILE", default_value = "catalog.key", value_hint = ValueHint::FilePath)]
    pub(crate) key: PathBuf,
    /// Issue it anew, with a higher serial, to be current for this time
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) expires: Option<Duration>,
    /// Also write agents/manifest.json, which makes older agents update
    #[arg(long)]
    pub(crate) publish_agent: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Mirror {
    /// A folder, or the URL of an artifact server
    #[arg(value_name = "DIR|URL", value_hint = ValueHint::DirPath)]
    pub(crate) source: String,
    /// The copy; it is made if it is not there
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) dest: PathBuf,
    /// Public key that must have signed the catalog, or a file with it; may be repeated
    #[arg(long = "key", value_name = "KEY|FILE")]
    pub(crate) keys: Vec<String>,
    /// Files at a time
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) jobs: u8,
    /// Also write agents/manifest.json, which makes older agents update
    #[arg(long)]
    pub(crate) publish_agent: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) store: PathBuf,
    /// Only say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Leave what is younger: agents with an older catalog may still want it
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_duration)]
    pub(crate) grace: Duration,
}

fn parse_program(text: &str) -> Result<(Id, RelPath), String> {
    let (name, path) = text.split_once('=').ok_or("it has to be NAME=PATH, such as node=bin/node")?;
    Ok((Id::new(name).map_err(|e| e.to_string())?, RelPath::new(path).map_err(|e| e.to_string())?))
}

fn parse_requirement(text: &str) -> Result<Requirement, String> {
    let (runtime, range) = text.split_once('@').unwrap_or((text, "*"));
    let version = if range == "*" { VersionRange::parse(">=0") } else { VersionRange::parse(range) };
    Ok(Requirement {
        runtime: Id::new(runtime).map_err(|e| e.to_string())?,
        version: version.map_err(|e| e.to_string())?,
    })
}

fn parse_percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse();
    number.ok().filter(|part| (1..=100).contains(part)).ok_or_else(|| "1% to 100%".to_owned())
}

fn parse_base_url(text: &str) -> Result<(String, String), String> {
    let (name, url) = text.split_once('=').ok_or("it has to be NAME=URL")?;
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err("the URL has to begin with http:// or https://".to_owned());
    }
    Ok((name.to_owned(), url.to_owned()))
}

const WHAT: &str = "What it is";

const ADD_EXAMPLES: &str = "\
Without --exec the usual programs of node, python, go, java, dotnet and code-server
are taken.

Examples:
  zlhctl artifacts add ./store node-v22.23.3-linux-x64.tar.gz --runtime node --version 22.23.3 \\
    --strip 1 --exec node=bin/node --key catalog.key
  zlhctl artifacts add ./store paper-1.21.7-32.jar --game minecraft --variant paper --version 1.21.7
  zlhctl artifacts add ./store dist/zlh-agent --agent 1.4.0 --channel beta --key catalog.key";

const IMPORT_EXAMPLES: &str = "\
Examples:
  zlhctl artifacts import ./store java@21 paper@1.21.7 --key catalog.key
  zlhctl artifacts import ./store node@22 code-server --channel beta
  zlhctl artifacts import ./store paper@1.21.7 --prepare --java /opt/jdk-21/bin/java
  zlhctl artifacts import ./store forge@1.20.1 --base-url forge=http://10.20.0.2:8091/maven";

const PROMOTE_EXAMPLES: &str = "\
Examples:
  zlhctl artifacts promote ./store 'agent 1.4.0' --from beta --to stable --wave 10%
  zlhctl artifacts promote ./store 'agent 1.4.0' --to stable --key catalog.key";

const DEPRECATE_EXAMPLES: &str = "\
Examples:
  zlhctl artifacts deprecate ./store 'node 20.19.4' --because 'ends in April, take 22'
  zlhctl artifacts deprecate ./store 'node 20.19.4' --undo";

const WITHDRAW_EXAMPLES: &str = "\
Examples:
  zlhctl artifacts withdraw ./store 'minecraft/paper 1.21.6' --because 'loses chunks' --key catalog.key
  zlhctl artifacts withdraw ./store 'minecraft/paper 1.21.6' --undo";

const SIGN_EXAMPLES: &str = "\
Examples:
  zlhctl artifacts sign ./store --key catalog.key
  zlhctl artifacts sign ./store --expires 90d";

const MIRROR_EXAMPLES: &str = "\
Key lists that follow on the key given are followed as agents follow them.

Examples:
  zlhctl artifacts mirror http://10.20.0.2:8090 /srv/artifacts --key catalog.pub
  zlhctl artifacts mirror ./store /mnt/usb/store --key catalog.pub --jobs 8";

const GC_EXAMPLES: &str = "\
Examples:
  zlhctl artifacts gc ./store --dry-run
  zlhctl artifacts gc ./store --grace 30d";

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// A folder, or the URL of an artifact server
    #[arg(value_name = "DIR|URL", value_hint = ValueHint::DirPath)]
    pub(crate) source: String,
    /// Public key that agents are configured with, or a file with it; may be repeated
    #[arg(long = "key", value_name = "KEY|FILE")]
    pub(crate) keys: Vec<String>,
    /// Also run every program of a runtime, and the agent, to see that it answers with its version
    #[arg(long)]
    pub(crate) run: bool,
    /// Files at a time
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) jobs: u8,
    /// Also write the result as JUnit XML
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) junit: Option<PathBuf>,
}

const PACK_EXAMPLES: &str = "\
Examples:
  zlhctl artifacts pack node-22.23.3 --out store/node/22.23.3.tar.zst";

const VERIFY_EXAMPLES: &str = "\
Fails if agents would refuse a single file, the catalog or a list of keys, and if the
catalog expired more than a week ago. --key is the key that agents are configured with; the
lists of keys are followed from it, as agents do.

Examples:
  zlhctl artifacts verify ./store --key catalog.pub
  zlhctl artifacts verify http://10.20.0.2:8090 --key catalog.pub --run --jobs 4
  zlhctl artifacts verify ./store --key catalog.pub --junit report.xml -o json";
