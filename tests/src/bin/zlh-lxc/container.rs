//! One LXC container with a root file system of its own; gone when dropped.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A container, running or not.
#[derive(Debug)]
pub(crate) struct Container {
    /// LXC's folder of containers, with one in it.
    home: PathBuf,
}

/// How it is set apart from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As Proxmox makes them: its root is nobody outside, one unified control group tree.
    Unprivileged,
    /// As LXC comes, for machines that cannot map the owners of files.
    Privileged,
}

impl Kind {
    /// Who its root is outside.
    const fn owner(self) -> u32 {
        match self {
            Self::Unprivileged => MAPPED,
            Self::Privileged => 0,
        }
    }

    const fn lines(self) -> &'static str {
        match self {
            Self::Unprivileged => UNPRIVILEGED,
            Self::Privileged => "",
        }
    }
}

impl Container {
    /// Copies the root file system and writes a configuration.
    pub(crate) fn create(rootfs: &Path, work: &Path) -> Result<Self> {
        // LXC takes no relative paths.
        let home = std::path::absolute(work)?.join(format!("run-{}", std::process::id()));
        let this = Self { home };
        fs::create_dir_all(this.home.join(NAME))?;
        let copied = Command::new("cp")
            .args(["--archive", "--reflink=auto"])
            .arg(std::path::absolute(rootfs)?)
            .arg(this.root())
            .status()?;
        if !copied.success() {
            bail!("copying {} failed", rootfs.display());
        }
        Ok(this)
    }

    fn configuration(&self, kind: Kind) -> String {
        // No network but its own loopback: nothing it does is seen outside. Nothing of it is
        // confined, so that the machine's own confinement is not what is tested.
        format!(
            "lxc.include = /usr/share/lxc/config/common.conf\n\
             lxc.uts.name = {NAME}\n\
             lxc.rootfs.path = dir:{}\n\
             lxc.net.0.type = empty\n\
             lxc.apparmor.profile = unconfined\n\
             lxc.console.logfile = {}\n\
             {}",
            self.root().display(),
            self.home.join("console.log").display(),
            kind.lines(),
        )
    }

    /// Its files, seen from outside.
    pub(crate) fn root(&self) -> PathBuf {
        self.home.join(NAME).join("rootfs")
    }

    /// A file of it.
    pub(crate) fn path(&self, absolute: &str) -> PathBuf {
        self.root().join(absolute.trim_start_matches('/'))
    }

    /// Writes a file of it, and the folders above it.
    pub(crate) fn write(&self, absolute: &str, content: &str) -> Result<()> {
        let path = self.path(absolute);
        fs::create_dir_all(path.parent().context("a path with a folder")?)?;
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        let root = fs::metadata(self.root())?.uid();
        Ok(lchown(&path, Some(root), Some(root))?)
    }

    /// Boots it for the first time, in the best way this machine can.
    pub(crate) fn begin(&self) -> Result<Kind> {
        let mut last = Ok(Kind::Privileged);
        for kind in [Kind::Unprivileged, Kind::Privileged] {
            fs::write(self.home.join(NAME).join("config"), self.configuration(kind))?;
            give_to(&self.root(), kind.owner())?;
            last = self.start().map(|()| kind);
            if last.is_ok() {
                break;
            }
            self.kill();
        }
        last
    }

    /// Boots it, and waits until systemd has.
    pub(crate) fn start(&self) -> Result<()> {
        let log = self.home.join("lxc.log");
        let output =
            self.lxc("lxc-start", &["--logfile", &log.to_string_lossy(), "--logpriority", "WARN"])?;
        if !output.status.success() {
            bail!("{}", words(&output));
        }
        self.wait_booted()
    }

    /// Waits until systemd has started everything.
    pub(crate) fn wait_booted(&self) -> Result<()> {
        wait_for("the boot", BOOT, || {
            let output = self.attach(&["systemctl", "is-system-running"])?;
            let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            // A unit of the distribution's that fails in a container is not ours.
            if state == "running" || state == "degraded" { Ok(()) } else { bail!("systemd is {state:?}") }
        })
    }

    /// Shuts it down as a host does, and answers how long it took. LXC kills it after `limit`.
    pub(crate) fn shut_down(&self, limit: Duration) -> Result<Duration> {
        let begun = Instant::now();
        let output = self.lxc("lxc-stop", &["--timeout", &limit.as_secs().to_string()])?;
        if !output.status.success() {
            bail!("lxc-stop: {}", words(&output));
        }
        Ok(begun.elapsed())
    }

    /// Reboots it from inside, and waits until it is up again.
    pub(crate) fn reboot(&self) -> Result<Duration> {
        let begun = Instant::now();
        let before = self.init()?;
        self.run(&["systemctl", "reboot"])?;
        wait_for("another init", BOOT, || match self.init() {
            Ok(now) if now != before => Ok(()),
            _ => bail!("the old one is there"),
        })?;
        self.wait_booted()?;
        Ok(begun.elapsed())
    }

    /// Pid of its init, seen from outside.
    fn init(&self) -> Result<String> {
        let output = self.lxc("lxc-info", &["--pid", "--no-humanize"])?;
        if !output.status.success() {
            bail!("it does not run");
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Runs a program in it; anything but success is an error.
    pub(crate) fn run(&self, command: &[&str]) -> Result<String> {
        let output = self.attach(command)?;
        if !output.status.success() {
            bail!("{}: {}", command.join(" "), words(&output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn attach(&self, command: &[&str]) -> Result<Output> {
        const PATH: &str = "PATH=/usr/local/bin:/usr/sbin:/usr/bin";
        let fixed = ["--clear-env", "--set-var", PATH, "--set-var", "HOME=/root", "--"];
        self.lxc("lxc-attach", &[&fixed, command].concat())
    }

    fn lxc(&self, tool: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(Path::new("/usr/bin").join(tool));
        // Without newuidmap in its way LXC writes the owners' map itself, as root may; with it,
        // this machine's /etc/subuid would have to be changed.
        command.env("PATH", "/usr/sbin:/sbin");
        command
            .arg("--lxcpath")
            .arg(&self.home)
            .args(["--name", NAME])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run {tool}"))
    }

    fn kill(&self) {
        let _ = self.lxc("lxc-stop", &["--kill"]);
    }

    /// The end of its console.
    pub(crate) fn console(&self) -> String {
        let text = fs::read(self.home.join("console.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Whatever state it is in; it may not even have started.
        self.kill();
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// Gives a tree whose owners count from 0, or from [`MAPPED`], to owners that count from `root`.
fn give_to(path: &Path, root: u32) -> Result<()> {
    let meta = fs::symlink_metadata(path)?;
    let owner = |id: u32| Some(id % MAPPED + root);
    lchown(path, owner(meta.uid()), owner(meta.gid()))?;
    if !meta.is_symlink() {
        // What programs set for their owners is lost with the owner.
        fs::set_permissions(path, meta.permissions())?;
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            give_to(&entry?.path(), root)?;
        }
    }
    Ok(())
}

/// Asks until it says `Ok`; its last word is the error at the deadline.
pub(crate) fn wait_for<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + within;
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > end => {
                return Err(error.context(format!("{what}: not within {within:?}")));
            }
            Err(_) => std::thread::sleep(STEP),
        }
    }
}

fn words(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    format!("{}: {}", output.status, String::from_utf8_lossy(&text).trim())
}

/// Files are given to the mapped owners on disk: what the kernel could map at mount time LXC
/// does not map again when a container reboots.
const UNPRIVILEGED: &str = "\
lxc.include = /usr/share/lxc/config/userns.conf
lxc.idmap = u 0 100000 65536
lxc.idmap = g 0 100000 65536
lxc.mount.auto =
lxc.mount.auto = proc:mixed sys:mixed
lxc.mount.entry = cgroup2 sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime 0 0
";
const MAPPED: u32 = 100_000;
const NAME: &str = "zlh";
const BOOT: Duration = Duration::from_secs(90);
const STEP: Duration = Duration::from_millis(50);
