//! The folder of one run: its configuration, log, metrics and checkpoints.
//!
//! - `config.toml`: the resolved configuration; it says which run this folder belongs to
//! - `log.txt`: the log lines of all its sessions
//! - `metrics.jsonl`: one JSON object a line, each with its `epoch`
//! - `best.safetensors`, `last.safetensors`: the chosen and the newest checkpoint
//! - `run.lock`: held while a process works here
//!
//! Whole files are replaced in one step ([`write_atomic`]), so a crash leaves the old or the new
//! one; `metrics.jsonl` can lose no more than its last line.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

const CONFIG: &str = "config.toml";
const LOG: &str = "log.txt";
const METRICS: &str = "metrics.jsonl";
const BEST: &str = "best.safetensors";
const LAST: &str = "last.safetensors";
const LOCK: &str = "run.lock";

/// A run's folder, held by this process alone until dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    metrics: File,
    _lock: File,
}

impl RunDir {
    /// Opens `path`, made if need be, for the run that `resolved_config_toml` describes.
    ///
    /// With `resume`, a folder of that same run is taken up where it stands; one without a run is
    /// begun. Fails on a folder that another run or process owns, and without `resume` on one that
    /// holds results.
    pub fn create(path: &Path, resolved_config_toml: &str, resume: bool) -> Result<Self> {
        fs::create_dir_all(path)
            .with_context(|| format!("cannot make the run folder {}", path.display()))?;
        let lock = lock(path)?;
        let shown = path.display();
        let has_results = [METRICS, BEST, LAST].iter().any(|name| file_len(&path.join(name)) > 0);
        match fs::read_to_string(path.join(CONFIG)) {
            Ok(theirs) if theirs != resolved_config_toml => bail!(
                "{shown} holds another run: {}; choose another --out, go on with that run by \
                 --resume with its own {CONFIG}, or replace it with --overwrite",
                first_difference(&theirs, resolved_config_toml)
            ),
            Ok(_) if has_results && !resume => bail!(
                "{shown} already holds this run; go on with it by --resume, choose another --out, \
                 or start over with --overwrite"
            ),
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::NotFound && has_results => bail!(
                "{shown} holds results but no {CONFIG} that says of which run; choose another \
                 --out, or replace them with --overwrite"
            ),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                write_atomic(&path.join(CONFIG), resolved_config_toml.as_bytes())?;
            }
            Err(err) => {
                return Err(err).with_context(|| format!("cannot read {shown}/{CONFIG}"));
            }
        }
        let metrics = open_metrics(&path.join(METRICS))?;
        Ok(Self { path: path.to_owned(), metrics, _lock: lock })
    }

    /// Removes what an earlier run left in `path`, for `--overwrite`; files of other kinds stay.
    /// Fails when a process still works there. A folder that does not exist is fine.
    pub fn clear(path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let _lock = lock(path)?;
        let entries =
            fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", path.display()))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if [CONFIG, LOG, METRICS, BEST, LAST].contains(&&*name)
                || name.starts_with("events.out.tfevents.")
            {
                fs::remove_file(entry.path())
                    .with_context(|| format!("cannot remove {}", entry.path().display()))?;
            }
        }
        Ok(())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the checkpoint chosen on the validation split goes.
    pub fn best(&self) -> PathBuf {
        self.path.join(BEST)
    }

    /// Where the newest checkpoint goes, the one to resume from.
    pub fn last(&self) -> PathBuf {
        self.path.join(LAST)
    }

    /// Opens `log.txt` to append to, for [`log_to`](crate::telemetry::log_to).
    pub fn log_file(&self) -> Result<File> {
        let path = self.path.join(LOG);
        append(&path).with_context(|| format!("cannot open {}", path.display()))
    }

    /// Appends one line to `metrics.jsonl`. NaN and infinities must already be something JSON has.
    pub fn append_metrics(&mut self, line: &Value) -> Result<()> {
        // One write a line: a reader or a crash sees all of it or none, short of a full disk.
        self.metrics.write_all(format!("{line}\n").as_bytes()).with_context(|| {
            format!("cannot write {}; is the disk full?", self.path.join(METRICS).display())
        })
    }

    /// The lines of `metrics.jsonl` so far.
    pub fn metrics(&self) -> Result<Vec<Value>> {
        read_metrics(&self.path.join(METRICS))
    }

    /// Drops the lines of epochs after `epoch`, which a resumed run will write again. Lines without
    /// an `epoch` stay.
    pub fn truncate_metrics_after(&mut self, epoch: usize) -> Result<()> {
        let path = self.path.join(METRICS);
        let kept: String = read_metrics(&path)?
            .iter()
            .filter(|line| line["epoch"].as_u64().is_none_or(|at| at <= epoch as u64))
            .map(|line| format!("{line}\n"))
            .collect();
        write_atomic(&path, kept.as_bytes())?;
        self.metrics = open_metrics(&path)?; // the old handle is on the file just replaced
        Ok(())
    }
}

/// The lines of a `metrics.jsonl`. A torn last line, left by a crash, is skipped with a warning;
/// any other line that is not JSON is an error.
pub fn read_metrics(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = Vec::new();
    for (i, line) in text.split_inclusive('\n').enumerate() {
        match serde_json::from_str(line) {
            Ok(value) if line.ends_with('\n') => lines.push(value),
            Err(err) if line.ends_with('\n') => bail!(
                "{}, line {}: {err}; remove that line, or start over with --overwrite",
                path.display(),
                i + 1
            ),
            _ => tracing::warn!("{}: skipped its torn last line", path.display()),
        }
    }
    Ok(lines)
}

/// Whether a run of this configuration may work in `path`: it holds no run, or that very run.
pub fn is_free_for(path: &Path, resolved_config_toml: &str) -> bool {
    match fs::read_to_string(path.join(CONFIG)) {
        Ok(theirs) => theirs == resolved_config_toml,
        Err(_) => ![METRICS, BEST, LAST].iter().any(|name| path.join(name).exists()),
    }
}

/// Replaces `path` by `bytes` in one step: a reader or a crash sees the old file or the new one,
/// whole. The new file is on the disk when this returns.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let write = || -> io::Result<()> {
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask
        let mut file = builder.prefix(".writing-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|err| err.error)?;
        #[cfg(unix)]
        File::open(folder)?.sync_all()?; // the new name, too
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {
            // Only for the message below, so it may fail.
            let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            bail!(
                "{} is in use by another process (pid {}); wait for it, or choose another --out",
                folder.display(),
                if pid.is_empty() { "unknown" } else { &pid }
            );
        }
        Err(TryLockError::Error(err)) => tracing::warn!(
            "{}: this file system has no locks ({err}); let no second process train here",
            folder.display()
        ),
    }
    Ok(file)
}

/// Opens `metrics.jsonl` to append to, first cutting off a torn last line: the next line would
/// join it and be lost too.
fn open_metrics(path: &Path) -> Result<File> {
    let open = || -> io::Result<File> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            tracing::warn!("{}: cut off its torn last line", path.display());
            file.set_len(whole as u64)?;
        }
        Ok(file)
    };
    open().with_context(|| format!("cannot open {}", path.display()))
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn file_len(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

/// Says where two texts part, for a message.
fn first_difference(theirs: &str, ours: &str) -> String {
    let (mut theirs, mut ours) = (theirs.lines(), ours.lines());
    loop {
        match (theirs.next(), ours.next()) {
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return format!("its {CONFIG} differs in line endings"),
            (a, b) => {
                let say = |line: Option<&str>| match line {
                    Some(line) => format!("`{}`", line.trim()),
                    None => "nothing".to_owned(),
                };
                return format!("its {CONFIG} says {} where this run has {}", say(a), say(b));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MINE: &str = "seed = 1\n[optim]\nepochs = 20\n";

    fn refusal(path: &Path, config: &str, resume: bool) -> String {
        format!("{:#}", RunDir::create(path, config, resume).unwrap_err())
    }

    #[test]
    fn a_new_folder_is_made_with_its_config_and_nested_parents() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(&dir.path().join("runs/a"), MINE, false).unwrap();
        assert_eq!(fs::read_to_string(run.path().join("config.toml")).unwrap(), MINE);
        assert_eq!(run.best(), run.path().join("best.safetensors"));
        assert_eq!(run.last(), run.path().join("last.safetensors"));
        writeln!(run.log_file().unwrap(), "one").unwrap();
        writeln!(run.log_file().unwrap(), "two").unwrap();
        assert_eq!(fs::read_to_string(run.path().join("log.txt")).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn another_run_in_the_folder_is_refused_whether_resuming_or_not() {
        let dir = tempfile::tempdir().unwrap();
        drop(RunDir::create(dir.path(), MINE, false).unwrap());
        for resume in [false, true] {
            let message = refusal(dir.path(), "seed = 1\n[optim]\nepochs = 30\n", resume);
            assert!(message.contains("says `epochs = 20` where this run has `epochs = 30`"));
            for way_out in ["--resume", "--out", "--overwrite"] {
                assert!(message.contains(way_out), "{way_out} is missing: {message}");
            }
        }
        assert_eq!(fs::read_to_string(dir.path().join("config.toml")).unwrap(), MINE);
    }

    #[test]
    fn the_same_run_goes_on_only_with_resume() {
        let dir = tempfile::tempdir().unwrap();
        // Nothing to lose yet: beginning again is fine.
        drop(RunDir::create(dir.path(), MINE, false).unwrap());
        let mut run = RunDir::create(dir.path(), MINE, false).unwrap();
        run.append_metrics(&json!({"epoch": 1})).unwrap();
        drop(run);
        let message = refusal(dir.path(), MINE, false);
        assert!(message.contains("already holds this run"), "{message}");
        let run = RunDir::create(dir.path(), MINE, true).unwrap();
        assert_eq!(run.metrics().unwrap(), [json!({"epoch": 1})]);
    }

    #[test]
    fn resume_begins_a_run_that_is_not_there_yet() {
        let dir = tempfile::tempdir().unwrap();
        RunDir::create(&dir.path().join("a"), MINE, true).unwrap();
    }

    #[test]
    fn results_without_a_config_are_refused_and_overwrite_clears_only_a_run_s_files() {
        let dir = tempfile::tempdir().unwrap();
        let run_s = ["best.safetensors", "log.txt", "events.out.tfevents.1.host.2"];
        for name in run_s.iter().chain(&["notes.md"]) {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let message = refusal(dir.path(), MINE, true);
        assert!(message.contains("no config.toml"), "{message}");
        RunDir::clear(dir.path()).unwrap();
        for name in run_s {
            assert!(!dir.path().join(name).exists(), "{name} is still there");
        }
        assert!(dir.path().join("notes.md").exists());
        RunDir::create(dir.path(), MINE, false).unwrap();
        RunDir::clear(&dir.path().join("never made")).unwrap();
    }

    #[test]
    fn two_processes_cannot_share_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunDir::create(dir.path(), MINE, false).unwrap();
        let message = refusal(dir.path(), MINE, true); // a second handle stands for a second process
        assert!(message.contains(&format!("pid {}", std::process::id())), "{message}");
        assert!(RunDir::clear(dir.path()).is_err(), "cleared under a running process");
        drop(first);
        RunDir::create(dir.path(), MINE, true).unwrap();
    }

    #[test]
    fn truncation_keeps_earlier_epochs_and_later_lines_follow_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut run = RunDir::create(dir.path(), MINE, false).unwrap();
        let lines = [json!({"note": "start"}), json!({"epoch": 1}), json!({"epoch": 2})];
        for line in lines.iter().chain(&[json!({"epoch": 3})]) {
            run.append_metrics(line).unwrap();
        }
        run.truncate_metrics_after(2).unwrap();
        assert_eq!(run.metrics().unwrap(), lines);
        run.append_metrics(&json!({"epoch": 3, "again": true})).unwrap();
        assert_eq!(run.metrics().unwrap()[3], json!({"epoch": 3, "again": true}));
        assert_eq!(run.metrics().unwrap().len(), 4);
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        drop(RunDir::create(dir.path(), MINE, false).unwrap());
        let path = dir.path().join("metrics.jsonl");
        // Torn in the middle of a character, and where what is left is still JSON.
        for torn in [&b"{\"epoch\": 1}\n{\"x\": \"\xc3"[..], b"{\"epoch\": 1}\n2"] {
            fs::write(&path, torn).unwrap();
            assert_eq!(read_metrics(&path).unwrap(), [json!({"epoch": 1})]);
            let mut run = RunDir::create(dir.path(), MINE, true).unwrap();
            run.append_metrics(&json!({"epoch": 2})).unwrap();
            assert_eq!(run.metrics().unwrap(), [json!({"epoch": 1}), json!({"epoch": 2})]);
        }
    }

    #[test]
    fn a_broken_line_before_the_end_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        fs::write(&path, "{\"epoch\": 1}\n{\"epo\n{\"epoch\": 3}\n").unwrap();
        let message = read_metrics(&path).unwrap_err().to_string();
        assert!(message.contains("line 2"), "{message}");
    }

    #[test]
    fn an_atomic_write_replaces_and_leaves_nothing_beside_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        // Others may read it, as the umask says; a plain temporary file would be ours alone.
        fs::write(dir.path().join("plain"), "").unwrap();
        let plain = dir.path().join("plain").metadata().unwrap().permissions();
        assert_eq!(path.metadata().unwrap().permissions(), plain);
        let message = write_atomic(&dir.path().join("no/a.txt"), b"").unwrap_err().to_string();
        assert!(message.contains("no/a.txt"), "{message}");
    }
}
