//! The folder of one stage's run: its configuration, log, metrics and checkpoints.
//!
//! - `run.json`: what decides the run's result; it says which run this folder belongs to
//! - `config.toml`: the resolved configuration
//! - `log.txt`: the log lines of all its sessions
//! - `metrics.jsonl`: one JSON object per line, each with its `epoch`
//! - `best.safetensors`, `last.safetensors`: the chosen checkpoint, and the state to resume from
//! - `run.lock`: held while a process works here
//!
//! Whole files are replaced in one step ([`write_atomic`]), so a crash leaves the old or the new
//! one; `metrics.jsonl` can lose no more than its last line.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cumdf_data::files;
pub use cumdf_data::files::write_atomic;
use serde_json::{Value, json};

const CARD: &str = "run.json";
const CONFIG: &str = "config.toml";
const LOG: &str = "log.txt";
const METRICS: &str = "metrics.jsonl";
const BEST: &str = "best.safetensors";
const LAST: &str = "last.safetensors";
/// Test figures, written by the command line after training.
pub const RESULT: &str = "result.json";
const LOCK: &str = "run.lock";

/// What may happen to a folder that already holds a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse any run.
    Refuse,
    /// Go on with this very run, or begin it; refuse another one.
    Resume,
    /// Remove whatever run is there.
    Overwrite,
    /// Go on with this very run, or begin it; another one is kept under a new name beside it.
    MoveAside,
}

/// Which run a folder is opened for.
#[derive(Debug, Clone)]
pub struct Card<'a> {
    /// What decides the result: two runs of equal identity have equal results.
    pub identity: &'a Value,
    /// The resolved configuration as TOML, for people.
    pub config: &'a str,
    /// Threads of one tensor operation: the order of sums, and so the last bits, depend on them.
    pub threads: i64,
    /// The kind of device; the same holds.
    pub device: String,
}

/// A run's folder, held by this process alone until dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    metrics: File,
    other_machine: Option<String>,
    _lock: File,
}

impl RunDir {
    /// Opens `path`, made if need be, for the run that `card` describes.
    ///
    /// # Errors
    /// When another process works there, or the folder holds something that `existing` does not
    /// allow to touch: what differs is named.
    pub fn open(path: &Path, card: &Card, existing: Existing) -> Result<Self> {
        let made = || format!("cannot make the run folder {}", path.display());
        fs::create_dir_all(path).with_context(made)?;
        let mut lock = lock(path)?;
        files::sweep(path);
        let shown = path.display();
        let here = Self::card_in(path);
        let same = here.as_ref().is_some_and(|here| here["identity"] == *card.identity);
        match (has_results(path), existing) {
            (false, _) => {}
            (true, Existing::Overwrite) => clear(path)?,
            (true, Existing::Refuse) if same => bail!(
                "{shown} already holds this run; go on with it by --resume, choose another --out, \
                 or start over with --overwrite"
            ),
            (true, _) if same => {}
            (true, Existing::MoveAside) => {
                let aside = free_name(path);
                drop(lock);
                fs::rename(path, &aside)
                    .with_context(|| format!("cannot move {shown} to {}", aside.display()))?;
                tracing::info!(
                    "{shown} held another run ({}): it is kept in {}",
                    why_other(here.as_ref(), card),
                    aside.display()
                );
                fs::create_dir_all(path).with_context(made)?;
                lock = self::lock(path)?;
            }
            (true, _) => bail!(
                "{shown} holds another run: {}; choose another --out, or replace it with --overwrite",
                why_other(here.as_ref(), card)
            ),
        }
        let begun = has_results(path);
        let session = json!({ "threads": card.threads, "device": card.device });
        let other_machine = match &here {
            Some(here) if begun && here["session"] != session => {
                Some(differences(&here["session"], &session))
            }
            _ => None,
        };
        if !begun {
            let card = json!({ "identity": card.identity, "session": session });
            let text = serde_json::to_string_pretty(&card)? + "\n";
            write_atomic(&path.join(CARD), text.as_bytes())?;
        }
        write_atomic(&path.join(CONFIG), card.config.as_bytes())?;
        let metrics = open_metrics(&path.join(METRICS))?;
        Ok(Self { path: path.to_owned(), metrics, other_machine, _lock: lock })
    }

    /// Whether a run in `path` may be gone on with or replaced, before hours go into a stage
    /// before it. Makes nothing.
    ///
    /// # Errors
    /// When it holds results and `existing` refuses any.
    pub fn refuse_early(path: &Path, existing: Existing) -> Result<()> {
        if existing == Existing::Refuse && has_results(path) {
            bail!(
                "{} already holds a run; go on with it by --resume, choose another --out, or \
                 start over with --overwrite",
                path.display()
            );
        }
        Ok(())
    }

    /// Refuses to go on with an unfinished run under other circumstances than it began with, as it
    /// would not end in the same bytes.
    ///
    /// # Errors
    /// Names the circumstances.
    pub fn check_session(&self) -> Result<()> {
        match &self.other_machine {
            None => Ok(()),
            Some(what) => bail!(
                "{} was begun with other threads or on another device: {what}; go on as it began \
                 (--threads, --device), or start over with --overwrite",
                self.path.display()
            ),
        }
    }

    fn card_in(path: &Path) -> Option<Value> {
        serde_json::from_str(&fs::read_to_string(path.join(CARD)).ok()?).ok()
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

/// Where two JSON values differ, by name, ours second: `data.sha256 is "ab.." there, "cd.." here`.
pub fn differences(theirs: &Value, ours: &Value) -> String {
    let (mut theirs_flat, mut ours_flat) = (Vec::new(), Vec::new());
    flatten("", theirs, &mut theirs_flat);
    flatten("", ours, &mut ours_flat);
    let find = |all: &[(String, String)], key: &str| {
        all.iter().find(|(k, _)| k == key).map_or_else(|| "not set".into(), |(_, v)| v.clone())
    };
    let mut keys: Vec<_> = theirs_flat.iter().chain(&ours_flat).map(|(k, _)| k.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    let differ: Vec<_> = keys
        .into_iter()
        .map(|key| (key, find(&theirs_flat, key), find(&ours_flat, key)))
        .filter(|(_, a, b)| a != b)
        .collect();
    const SHOWN: usize = 3;
    let shown =
        differ.iter().take(SHOWN).map(|(key, a, b)| format!("{key} is {a} there, {b} here"));
    let shown = shown.collect::<Vec<_>>().join("; ");
    match differ.len() {
        0 => "nothing differs".into(),
        n if n > SHOWN => format!("{shown}; and {} more", n - SHOWN),
        _ => shown,
    }
}

fn flatten(at: &str, value: &Value, into: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let dot = if at.is_empty() { "" } else { "." };
                flatten(&format!("{at}{dot}{key}"), value, into);
            }
        }
        Value::String(hash) if hash.len() == 64 => {
            into.push((at.to_owned(), format!("{}..", &hash[..12])))
        }
        value => into.push((at.to_owned(), value.to_string())),
    }
}

/// Why the run in a folder is another one.
fn why_other(here: Option<&Value>, card: &Card) -> String {
    match here {
        Some(here) => differences(&here["identity"], card.identity),
        None => format!("no {CARD} is in it, as an older version left it"),
    }
}

fn has_results(path: &Path) -> bool {
    [METRICS, BEST, LAST].iter().any(|name| file_len(&path.join(name)) > 0)
}

/// `<path>-1`, or the first number that is free.
fn free_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let beside = (1..).map(|n| path.with_file_name(format!("{name}-{n}")));
    beside.into_iter().find(|path| !path.exists()).expect("the numbers do not end")
}

/// Removes what an earlier run left in `path`; files of other kinds stay.
fn clear(path: &Path) -> Result<()> {
    let entries = fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", path.display()))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if [CARD, CONFIG, LOG, METRICS, BEST, LAST, RESULT].contains(&&*name)
            || name.starts_with("events.out.tfevents.")
        {
            fs::remove_file(entry.path())
                .with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TOML: &str = "seed = 1\n";

    fn identity(epochs: u32) -> Value {
        json!({ "method": "cumdf", "settings": { "student": { "epochs": epochs } } })
    }

    fn open(path: &Path, identity: &Value, existing: Existing) -> Result<RunDir> {
        let card = Card { identity, config: TOML, threads: 1, device: "cpu".into() };
        RunDir::open(path, &card, existing)
    }

    fn refusal(path: &Path, identity: &Value, existing: Existing) -> String {
        format!("{:#}", open(path, identity, existing).unwrap_err())
    }

    fn mine() -> Value {
        identity(20)
    }

    #[test]
    fn a_new_folder_is_made_with_its_config_and_nested_parents() {
        let dir = tempfile::tempdir().unwrap();
        let run = open(&dir.path().join("runs/a"), &mine(), Existing::Refuse).unwrap();
        assert_eq!(fs::read_to_string(run.path().join("config.toml")).unwrap(), TOML);
        assert_eq!(run.best(), run.path().join("best.safetensors"));
        assert_eq!(run.last(), run.path().join("last.safetensors"));
        writeln!(run.log_file().unwrap(), "one").unwrap();
        writeln!(run.log_file().unwrap(), "two").unwrap();
        assert_eq!(fs::read_to_string(run.path().join("log.txt")).unwrap(), "one\ntwo\n");
    }

    fn with_results(path: &Path) {
        let mut run = open(path, &mine(), Existing::Refuse).unwrap();
        run.append_metrics(&json!({"epoch": 1})).unwrap();
    }

    #[test]
    fn another_run_in_the_folder_is_refused_by_name_whether_resuming_or_not() {
        let dir = tempfile::tempdir().unwrap();
        with_results(dir.path());
        for existing in [Existing::Refuse, Existing::Resume] {
            let message = refusal(dir.path(), &identity(30), existing);
            assert!(message.contains("settings.student.epochs is 20 there, 30 here"), "{message}");
            for way_out in ["--out", "--overwrite"] {
                assert!(message.contains(way_out), "{way_out} is missing: {message}");
            }
        }
    }

    #[test]
    fn the_same_run_goes_on_only_with_permission() {
        let dir = tempfile::tempdir().unwrap();
        // Nothing to lose yet: beginning again is fine.
        drop(open(dir.path(), &mine(), Existing::Refuse).unwrap());
        with_results(dir.path());
        let message = refusal(dir.path(), &mine(), Existing::Refuse);
        assert!(message.contains("already holds this run"), "{message}");
        let run = open(dir.path(), &mine(), Existing::Resume).unwrap();
        assert_eq!(run.metrics().unwrap(), [json!({"epoch": 1})]);
        let empty = dir.path().join("a");
        open(&empty, &mine(), Existing::Resume).unwrap();
    }

    #[test]
    fn another_run_is_moved_aside_whole_and_the_name_is_free_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("student");
        with_results(&path);
        for n in 1..3 {
            let mut run = open(&path, &identity(20 + n), Existing::MoveAside).unwrap();
            assert!(run.metrics().unwrap().is_empty());
            run.append_metrics(&json!({"epoch": 7})).unwrap();
        }
        let kept = read_metrics(&dir.path().join("student-1/metrics.jsonl")).unwrap();
        assert_eq!(kept, [json!({"epoch": 1})]);
        let kept = read_metrics(&dir.path().join("student-2/metrics.jsonl")).unwrap();
        assert_eq!(kept, [json!({"epoch": 7})]);
        let run = open(&path, &identity(22), Existing::MoveAside).unwrap();
        assert_eq!(run.metrics().unwrap().len(), 1, "this very run goes on");
    }

    #[test]
    fn another_number_of_threads_is_told_by_name() {
        let dir = tempfile::tempdir().unwrap();
        with_results(dir.path());
        let identity = mine();
        let card = Card { identity: &identity, config: TOML, threads: 2, device: "cpu".into() };
        let run = RunDir::open(dir.path(), &card, Existing::Resume).unwrap();
        let message = run.check_session().unwrap_err().to_string();
        assert!(message.contains("threads is 1 there, 2 here"), "{message}");
    }

    #[test]
    fn results_without_a_card_are_refused_and_overwrite_clears_only_a_run_s_files() {
        let dir = tempfile::tempdir().unwrap();
        let run_s = ["best.safetensors", "result.json", "log.txt", "events.out.tfevents.1.host.2"];
        for name in run_s.iter().chain(&["notes.md"]) {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let message = refusal(dir.path(), &mine(), Existing::Resume);
        assert!(message.contains("no run.json"), "{message}");
        drop(open(dir.path(), &mine(), Existing::Overwrite).unwrap());
        for name in run_s {
            assert!(!dir.path().join(name).exists(), "{name} is still there");
        }
        assert!(dir.path().join("notes.md").exists());
    }

    #[test]
    fn two_processes_cannot_share_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), &mine(), Existing::Refuse).unwrap();
        // A second handle stands for a second process.
        for existing in [Existing::Resume, Existing::Overwrite, Existing::MoveAside] {
            let message = refusal(dir.path(), &mine(), existing);
            assert!(message.contains(&format!("pid {}", std::process::id())), "{message}");
        }
        drop(first);
        open(dir.path(), &mine(), Existing::Resume).unwrap();
    }

    #[test]
    fn truncation_keeps_earlier_epochs_and_later_lines_follow_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut run = open(dir.path(), &mine(), Existing::Refuse).unwrap();
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
        drop(open(dir.path(), &mine(), Existing::Refuse).unwrap());
        let path = dir.path().join("metrics.jsonl");
        // Torn in the middle of a character, and where what is left is still JSON.
        for torn in [&b"{\"epoch\": 1}\n{\"x\": \"\xc3"[..], b"{\"epoch\": 1}\n2"] {
            fs::write(&path, torn).unwrap();
            assert_eq!(read_metrics(&path).unwrap(), [json!({"epoch": 1})]);
            let mut run = open(dir.path(), &mine(), Existing::Resume).unwrap();
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
}
