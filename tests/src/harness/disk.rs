//! A disk of the test's own that can lose its power or turn read-only: ext4 in a file, mounted in
//! a mount namespace of the calling thread.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use super::wait::{SOON, until};

/// A mounted ext4 image. Seen by the thread that made it and what it starts.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    at: PathBuf,
}

mod request {
    //! What xfstests calls `godown`: the file system stops where it stands.
    #![allow(
        unsafe_code,
        missing_docs,
        reason = "the macro wraps ioctl(2); the kernel reads the four bytes it is given"
    )]
    #![allow(clippy::undocumented_unsafe_blocks, reason = "inside the macro")]

    nix::ioctl_read!(shutdown, b'X', 125, u32);

    /// Nothing that waits in the journal is written any more.
    pub(super) const NO_LOG_FLUSH: u32 = 2;

    pub(super) fn power_off(file: std::os::fd::RawFd) -> nix::Result<()> {
        let mut how = NO_LOG_FLUSH;
        // SAFETY: the descriptor is open and the kernel only reads the four bytes of `how`.
        unsafe { shutdown(file, &raw mut how) }.map(drop)
    }
}

impl Disk {
    /// A fresh one at `at`, which is made; `Err` says why this machine has none to give.
    pub fn mount(image: &Path, at: &Path) -> Result<Self, String> {
        if !geteuid().is_root() {
            return Err("mounting an image needs root".to_owned());
        }
        let told = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        fs::create_dir_all(at).map_err(told("its folder"))?;
        let file = File::create(image).map_err(told("its image"))?;
        file.set_len(96 << 20).map_err(told("its image"))?;
        // Without a namespace of its own a test that is killed would leave a mount behind.
        unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| format!("a mount namespace: {errno}"))?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .map_err(|errno| format!("a private mount tree: {errno}"))?;
        run(Command::new("mkfs.ext4").args(["-q", "-E", "lazy_itable_init=0"]).arg(image))?;
        let disk = Self { image: image.to_owned(), at: at.to_owned() };
        disk.attach()?;
        fs::set_permissions(at, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(told("its folder"))?;
        Ok(disk)
    }

    /// The power fails: what was not forced to the disk is gone.
    pub fn power_off(&self) -> nix::Result<()> {
        let root = File::open(&self.at).expect("the mounted disk");
        request::power_off(root.as_raw_fd())
    }

    /// The kernel finds the disk damaged and writes to it no more.
    pub fn turn_read_only(&self) -> io::Result<()> {
        let mounts = fs::read_to_string("/proc/thread-self/mounts")?;
        let at = self.at.to_string_lossy();
        let mut devices = mounts.lines().filter_map(|line| {
            let mut fields = line.split(' ');
            let device = fields.next()?;
            (fields.next()? == at).then(|| device.trim_start_matches("/dev/").to_owned())
        });
        let device = devices.next_back().ok_or_else(|| io::Error::other("the disk is not mounted"))?;
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test asked for it")
    }

    /// As a container's root that was mounted so.
    pub fn mount_read_only(&self) -> nix::Result<()> {
        let none: Option<&str> = None;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, &self.at, none, flags, none)
    }

    /// Nobody uses it any more: repaired and mounted again.
    #[track_caller]
    pub fn remount(&self) {
        until("the disk to be free", SOON, || umount(&self.at).is_ok());
        // 1: errors were corrected.
        let check = Command::new("fsck.ext4").arg("-p").arg(&self.image).output().expect("fsck.ext4");
        assert!(matches!(check.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&check.stdout));
        self.attach().expect("mount the disk again");
    }

    fn attach(&self) -> Result<(), String> {
        let options = "loop,errors=remount-ro";
        run(Command::new("mount").args(["-t", "ext4", "-o", options]).arg(&self.image).arg(&self.at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still holds it lets go when it ends.
        let _ = nix::mount::umount2(&self.at, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{}: {said}", command.get_program().display())) }
}
