//! Files that appear whole or not at all: written under a temporary name beside their place, put on
//! the disk, then renamed.
//!
//! A process that is killed leaves its temporary file behind. It is called `.writing-*`, and its
//! writer holds a lock on it, which the system lets go when the process ends, however it ends. So
//! [`sweep`] can tell a file that nobody finishes any more from one that is being written, also by
//! a process of another container on the same machine, whose number would say nothing.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

/// How temporary files are called.
const PREFIX: &str = ".writing-";
/// A new temporary file that is swept away before its lock is taken is made again, so often.
const TRIES: usize = 10;

/// The temporary files of this process, for [`discard_unfinished`].
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Replaces `path` by `bytes` in one step: a reader or a crash sees the old file or the new one,
/// whole. The new file is on the disk when this returns.
///
/// # Errors
/// When the folder does not exist or cannot be written to, or the disk is full.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut unfinished = Unfinished::beside(path)?;
        unfinished.temporary.write_all(bytes)?;
        unfinished.finish(path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Removes the temporary files in `folder` that no living process is writing, and says how many
/// these were. What cannot be listed, locked or removed stays: the next sweep may fare better.
pub fn sweep(folder: &Path) -> usize {
    let mut n_swept = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let path = entry.path();
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_ok() && fs::remove_file(&path).is_ok() {
            tracing::debug!(path = %path.display(), "removed what a killed process left behind");
            n_swept += 1;
        }
    }
    n_swept
}

/// Removes whatever this process is writing, for when it is about to end.
pub fn discard_unfinished() {
    for path in std::mem::take(&mut *unfinished()) {
        // It may be finished or removed at this very moment.
        let _ = fs::remove_file(path);
    }
}

/// A file in the making beside its place; gone when dropped.
#[derive(Debug)]
pub(crate) struct Unfinished {
    temporary: NamedTempFile,
    listed: Listed,
}

/// A path that stands in [`UNFINISHED`] until dropped.
#[derive(Debug)]
struct Listed(PathBuf);

impl Drop for Listed {
    fn drop(&mut self) {
        unfinished().remove(&self.0);
    }
}

impl Unfinished {
    /// Begins a file that will stand at `path`, with the rights that any new file gets.
    pub(crate) fn beside(path: &Path) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask
        builder.prefix(PREFIX);
        for _ in 0..TRIES {
            let temporary = builder.tempfile_in(folder_of(path))?;
            match temporary.as_file().try_lock() {
                // A sweep came between: it has the lock, or had it and took the name away.
                Err(TryLockError::WouldBlock) => continue,
                Ok(()) if !temporary.path().exists() => continue,
                // A file system without locks is one where nothing is swept.
                Ok(()) | Err(TryLockError::Error(_)) => {}
            }
            let listed = Listed(temporary.path().to_owned());
            unfinished().insert(listed.0.clone());
            return Ok(Self { temporary, listed });
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process removes our new files"))
    }

    /// Where it is written.
    pub(crate) fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Puts it on the disk and in its place, which it takes over from any file there.
    pub(crate) fn finish(self, path: &Path) -> io::Result<()> {
        let Self { temporary, listed } = self;
        temporary.as_file().sync_all()?;
        temporary.persist(path).map_err(|err| err.error)?;
        drop(listed);
        #[cfg(unix)]
        File::open(folder_of(path))?.sync_all()?; // the new name, too
        Ok(())
    }
}

fn unfinished() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner) // a set of paths is never half changed
}

/// The folder that `path` lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_atomic_write_replaces_and_leaves_nothing_beside_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["a.txt"]);
        // Others may read it, as the umask says; a plain temporary file would be ours alone.
        fs::write(dir.path().join("plain"), "").unwrap();
        let plain = dir.path().join("plain").metadata().unwrap().permissions();
        assert_eq!(path.metadata().unwrap().permissions(), plain);
        let message = write_atomic(&dir.path().join("no/a.txt"), b"").unwrap_err().to_string();
        assert!(message.contains("no/a.txt"), "{message}");
    }

    #[test]
    fn a_sweep_takes_what_a_killed_process_left_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".writing-killed", "result.json", ".hidden"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::create_dir(dir.path().join(".writing-folder")).unwrap();
        // A lock belongs to the open file, so that a second handle here stands for a second process.
        let living = Unfinished::beside(&dir.path().join("new.h5")).unwrap();
        assert_eq!(sweep(dir.path()), 1);
        assert!(living.path().exists(), "a file was swept away while it was written");
        living.finish(&dir.path().join("new.h5")).unwrap();
        assert_eq!(names(dir.path()), [".hidden", ".writing-folder", "new.h5", "result.json"]);
        assert_eq!(sweep(dir.path()), 0);
        assert_eq!(sweep(&dir.path().join("no/such/folder")), 0);
    }

    #[test]
    fn sweeps_and_writes_at_the_same_time_lose_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    sweep(dir.path());
                }
            });
            for i in 0..50 {
                let written = Unfinished::beside(&dir.path().join("a"))
                    .and_then(|file| file.finish(&dir.path().join(format!("{i:02}"))));
                over.store(written.is_err() || i == 49, std::sync::atomic::Ordering::Relaxed);
                written.unwrap();
            }
        });
        assert_eq!(names(dir.path()).len(), 50);
    }
}
