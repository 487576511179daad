//! Runs cells in child processes, a few at once, and shows how far they are.

use std::{
    collections::VecDeque,
    env, fs,
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use cumdf_train::telemetry;

use crate::cell::{Cell, CellResult};

/// What the child says on standard error lies beside its result.
const LOG: &str = "log.txt";
/// How often the parent looks at what the children have written.
const LOOK: Duration = Duration::from_millis(500);
/// How often progress is told where there is no terminal for a bar.
const TELL: Duration = Duration::from_secs(60);

/// A cell with the number of epochs that it may take at most, for the time left.
#[derive(Debug, Clone)]
pub struct Job {
    /// What to run.
    pub cell: Cell,
    /// Epochs of all its stages.
    pub n_epochs: u64,
}

/// How cells are run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Processes at once.
    pub n_processes: usize,
    /// Device of every cell, as on the command line.
    pub device: String,
    /// Whether to pass on what the children say.
    pub verbose: bool,
}

enum Event {
    Line(usize, String),
    Finished(usize, Result<CellResult>),
}

/// Runs all jobs and returns their results in the same order. One that fails does not stop the
/// others.
pub fn run(jobs: &[Job], options: &Options) -> Vec<Result<CellResult>> {
    let next = AtomicUsize::new(0);
    let (events, inbox) = mpsc::channel();
    let mut results: Vec<Option<Result<CellResult>>> = jobs.iter().map(|_| None).collect();
    thread::scope(|scope| {
        for _ in 0..options.n_processes.clamp(1, jobs.len().max(1)) {
            let (events, next) = (events.clone(), &next);
            scope.spawn(move || {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(i) else { break };
                    let result = run_child(&job.cell, options, i, &events);
                    // The receiver lives until all senders are gone.
                    let _ = events.send(Event::Finished(i, result));
                }
            });
        }
        drop(events);

        let mut progress = Progress::new(jobs);
        loop {
            match inbox.recv_timeout(LOOK) {
                Ok(Event::Line(i, line)) => tracing::info!("{}: {line}", title(&jobs[i].cell)),
                Ok(Event::Finished(i, result)) => {
                    progress.finish(i, &result);
                    results[i] = Some(result);
                }
                Err(RecvTimeoutError::Timeout) => progress.look(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        progress.bar.finish_and_clear();
    });
    results.into_iter().map(|r| r.expect("every job was taken and reported")).collect()
}

/// `CMU-MOSI, cumdf, seed 1`.
pub fn title(cell: &Cell) -> String {
    let id = &cell.identity;
    format!("{}, {}, seed {}", id.dataset, id.model, id.seed)
}

fn run_child(
    cell: &Cell,
    options: &Options,
    i: usize,
    events: &Sender<Event>,
) -> Result<CellResult> {
    cell.prepare()?;
    let mut child = Command::new(this_program()?)
        .arg("cell")
        .arg("--dir")
        .arg(&cell.dir)
        .args(["--device", &options.device])
        // Read by libtorch before the child's own code could say so.
        .env("OMP_NUM_THREADS", "1")
        .env("MKL_NUM_THREADS", "1")
        // Never written to: the child ends when it closes, which it does even if we are killed.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start a child process")?;
    let stderr = child.stderr.take().expect("stderr is piped");
    let last = follow(stderr, &cell.dir.join(LOG), |line| {
        if options.verbose {
            let _ = events.send(Event::Line(i, line.to_owned()));
        }
    })?;
    let status = wait(&mut child)?;
    if !status.success() {
        bail!(
            "{}",
            what_it_said(&last)
                .unwrap_or_else(|| format!("the training's process ended with {status}"))
        );
    }
    cell.finished()
        .ok_or_else(|| anyhow!("the training's process ended without writing its result"))
}

/// This program. On Linux by a name that stays true when its file is replaced, as a build does
/// while a long table runs.
fn this_program() -> Result<PathBuf> {
    let running = PathBuf::from("/proc/self/exe");
    match running.exists() {
        true => Ok(running),
        false => env::current_exe().context("cannot find this program's own file"),
    }
}

fn wait(child: &mut Child) -> Result<std::process::ExitStatus> {
    // `wait` closes stdin, and the child takes that for our end: it must be over by itself first.
    let stdin = child.stdin.take();
    let status = child.wait().context("cannot wait for a child process");
    drop(stdin);
    status
}

/// Copies a child's lines to `log` until it closes them; returns the last few.
fn follow(stderr: ChildStderr, log: &Path, mut see: impl FnMut(&str)) -> Result<VecDeque<String>> {
    let mut log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut last = VecDeque::new();
    for line in BufReader::new(stderr).split(b'\n') {
        let line = line.context("cannot read from a child process")?;
        let line = String::from_utf8_lossy(&line).into_owned();
        // A full disk must not end a training.
        let _ = writeln!(log, "{line}");
        see(&line);
        if last.len() == 20 {
            last.pop_front();
        }
        last.push_back(line);
    }
    Ok(last)
}

/// The child's own error, or else its last words.
fn what_it_said(last: &VecDeque<String>) -> Option<String> {
    let error = last.iter().rposition(|line| line.starts_with("error: "));
    let words: Vec<_> = match error {
        Some(at) => last.iter().skip(at).map(|line| line.trim_start_matches("error: ")).collect(),
        None => last.iter().skip(last.len().saturating_sub(3)).map(String::as_str).collect(),
    };
    let words = words.join(" ").trim().to_owned();
    (!words.is_empty()).then_some(words)
}

/// One bar over the epochs of all cells; in a log, lines.
struct Progress<'a> {
    jobs: &'a [Job],
    finished: Vec<bool>,
    bar: indicatif::ProgressBar,
    start: Instant,
    told: Instant,
    /// Epochs that earlier sessions had done.
    before: u64,
}

impl<'a> Progress<'a> {
    fn new(jobs: &'a [Job]) -> Self {
        let total = jobs.iter().map(|job| job.n_epochs).sum();
        let bar = telemetry::bar(total, "epochs");
        let now = Instant::now();
        let mut new =
            Self { jobs, finished: vec![false; jobs.len()], bar, start: now, told: now, before: 0 };
        new.before = new.n_done();
        new.bar.set_position(new.before);
        new.bar.reset_eta();
        new
    }

    /// Epochs done: all of a finished cell, which may have stopped early.
    fn n_done(&self) -> u64 {
        let done = |(job, finished): (&Job, &bool)| match finished {
            true => job.n_epochs,
            false => n_epochs(&job.cell.run_dir()).min(job.n_epochs),
        };
        self.jobs.iter().zip(&self.finished).map(done).sum()
    }

    fn n_finished(&self) -> usize {
        self.finished.iter().filter(|f| **f).count()
    }

    fn look(&mut self) {
        self.bar.set_position(self.n_done());
        self.bar.set_message(format!(
            "left, {} of {} trainings",
            self.n_finished(),
            self.jobs.len()
        ));
        if self.bar.is_hidden() && self.told.elapsed() > TELL {
            self.told = Instant::now();
            let (done, total) = (self.n_done(), self.bar.length().unwrap_or(0));
            let new = done.saturating_sub(self.before).max(1) as f64;
            let left = self.start.elapsed().as_secs_f64() / new * total.saturating_sub(done) as f64;
            tracing::info!("{done} of {total} epochs, about {} left", minutes(left));
        }
    }

    fn finish(&mut self, i: usize, result: &Result<CellResult>) {
        self.finished[i] = true;
        let (n, total) = (self.n_finished(), self.jobs.len());
        let title = title(&self.jobs[i].cell);
        match result {
            Ok(result) => {
                tracing::info!("[{n}/{total}] {title}: {}", minutes(result.seconds));
            }
            Err(err) => {
                let log = self.jobs[i].cell.dir.join(LOG);
                tracing::error!("[{n}/{total}] {title} failed: {err:#}; see {}", log.display());
            }
        }
        self.look();
    }
}

/// Epochs that a training has done so far: the lines of every `metrics.jsonl` under its folder.
fn n_epochs(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let count = |entry: fs::DirEntry| {
        let path = entry.path();
        if path.is_dir() {
            n_epochs(&path)
        } else if entry.file_name() == "metrics.jsonl" {
            let text = fs::read(&path).unwrap_or_default();
            text.iter().filter(|byte| **byte == b'\n').count() as u64
        } else {
            0
        }
    };
    entries.flatten().map(count).sum()
}

/// `41 s`, `3 min 5 s`, `2 h 12 min`.
fn minutes(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s / 60 % 60),
    }
}

/// Ends this process when standard input closes: a child without its parent would go on for hours
/// unseen, and hold its folder.
pub fn end_with_parent() {
    thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(1);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_childs_error_is_told_rather_than_its_log() {
        let said = |lines: &[&str]| what_it_said(&lines.iter().map(ToString::to_string).collect());
        assert_eq!(said(&["INFO epoch 3", "error: no such file", ""]).unwrap(), "no such file");
        assert_eq!(
            said(&["a", "thread panicked at x", "b", "c"]).unwrap(),
            "thread panicked at x b c"
        );
        assert_eq!(said(&[]), None);
    }

    #[test]
    fn epochs_are_counted_over_the_stages() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(n_epochs(&dir.path().join("absent")), 0);
        fs::create_dir(dir.path().join("teacher")).unwrap();
        fs::write(dir.path().join("teacher/metrics.jsonl"), "{}\n{}\n").unwrap();
        fs::write(dir.path().join("metrics.jsonl"), "{}\n{\"torn").unwrap();
        assert_eq!(n_epochs(dir.path()), 3);
    }

    #[test]
    fn times_print_in_the_unit_that_is_read() {
        assert_eq!([41.2, 185.0, 7930.0].map(minutes), ["41 s", "3 min 5 s", "2 h 12 min"]);
    }
}
