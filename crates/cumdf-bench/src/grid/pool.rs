//! Does what is left of cells in child processes, a few at once, and shows how far they are.
//!
//! A cell that another process is on is left for later, and its result taken once it is there: two
//! tables that are made at the same time in one folder share the work.

use std::{
    collections::VecDeque,
    env,
    fs::OpenOptions,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use cumdf_data::View;
use cumdf_train::{
    answers::Answers,
    interrupt::{self, Interrupted},
    telemetry,
};

use super::{
    cell::{self, Cell, LOG, Lock},
    child,
    claim::{Holder, State, Watch},
    failure,
    source::Source,
    store,
};

/// How often the parent looks at what the children have written, and at cells of other processes.
const LOOK: Duration = Duration::from_millis(500);
/// Whoever kills a child may be about to kill all of us, which is no failure of the cell.
const GRACE: Duration = Duration::from_secs(2);
/// Lines of a child that are remembered, for what it said last.
const REMEMBERED: usize = 20;

/// A cell with the views that are wanted of it.
#[derive(Debug)]
pub struct Job<'a> {
    /// What to run.
    pub cell: Cell,
    /// Its data set.
    pub source: &'a Source,
    /// What its predictions are wanted for.
    pub views: Vec<View>,
}

/// How cells are run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Processes at once.
    pub n_processes: usize,
    /// Devices, as on the command line, at least one: each process has one, in turn.
    pub devices: Vec<String>,
    /// Threads of one tensor operation.
    pub threads: usize,
    /// How long another machine may be silent until its cell is taken over.
    pub dead_after: Duration,
    /// Whether to pass on what the children say.
    pub verbose: bool,
    /// What goes on after Ctrl-C: `the same command goes on where they stopped`.
    pub after_interrupt: String,
}

impl Job<'_> {
    /// The stored predictions under `view`.
    ///
    /// # Errors
    /// When there are none that can be read.
    pub fn answers(&self, view: &View) -> Result<Answers> {
        let views = store::folder(&self.cell.dir, self.source.split);
        store::read(&views, view, &self.source.task, self.source.ids())
    }

    /// The views without predictions, or with damaged ones.
    pub fn missing(&self) -> Vec<View> {
        self.views.iter().copied().filter(|view| self.answers(view).is_err()).collect()
    }

    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.cell.is_finished() && self.missing().is_empty()
    }

    /// Epochs of all its stages; 1 for what has none.
    fn n_epochs(&self) -> u64 {
        let stages = self.cell.config.iter().flat_map(|config| config.method.stages());
        stages.map(|stage| u64::from(stage.epochs)).sum::<u64>().max(1)
    }

    /// Whether a process holds the lock, maybe one of a version without claims.
    fn is_locked(&self) -> bool {
        matches!(cell::lock(&self.cell.dir), Ok(Lock::Held))
    }
}

enum Event {
    Line(usize, String),
    Waits(usize),
    Finished(usize, Result<f64>),
}

/// How a child ended.
enum Ended {
    Well,
    Held,
}

/// Does what is left of all jobs, in their order. One that fails does not stop the others.
///
/// - `finished`: is told of each job, once, by its position
pub fn run(jobs: &[&Job], options: &Options, finished: &mut dyn FnMut(usize, Result<()>)) {
    let queue = Mutex::new((0..jobs.len()).collect::<VecDeque<_>>());
    let watch = Watch::new(options.dead_after);
    let (events, inbox) = mpsc::channel();
    thread::scope(|scope| {
        for n in 0..options.n_processes.clamp(1, jobs.len().max(1)) {
            let worker = Worker {
                jobs,
                queue: &queue,
                watch: &watch,
                options,
                device: &options.devices[n % options.devices.len()],
                events: events.clone(),
            };
            scope.spawn(move || worker.work());
        }
        drop(events);
        let mut progress = Progress::new(jobs, options);
        loop {
            match inbox.recv_timeout(LOOK) {
                Ok(Event::Line(i, line)) => tracing::info!("{}: {line}", jobs[i].cell.title()),
                Ok(Event::Waits(i)) => tracing::info!(
                    "{}: another process is on it, its result is waited for",
                    jobs[i].cell.title()
                ),
                Ok(Event::Finished(i, result)) => {
                    progress.finish(i, &result);
                    finished(i, result.map(|_| ()));
                }
                Err(RecvTimeoutError::Timeout) => progress.look(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
}

/// One of the threads that have children.
struct Worker<'a> {
    jobs: &'a [&'a Job<'a>],
    queue: &'a Mutex<VecDeque<usize>>,
    watch: &'a Watch,
    options: &'a Options,
    device: &'a str,
    events: Sender<Event>,
}

impl Worker<'_> {
    /// Takes jobs until none is left. A job whose folder is in use goes back to the end of the queue.
    fn work(&self) {
        let mut told = vec![false; self.jobs.len()];
        let mut held_in_a_row = 0;
        loop {
            let Some(i) = self.queue().pop_front() else { break };
            let started = Instant::now();
            match self.turn(i) {
                Ok(Ended::Held) => {
                    if !std::mem::replace(&mut told[i], true) {
                        self.tell(Event::Waits(i));
                    }
                    let n_left = {
                        let mut queue = self.queue();
                        queue.push_back(i);
                        queue.len()
                    };
                    held_in_a_row += 1;
                    if held_in_a_row >= n_left {
                        thread::sleep(LOOK);
                        held_in_a_row = 0;
                    }
                }
                Ok(Ended::Well) => {
                    held_in_a_row = 0;
                    self.tell(Event::Finished(i, Ok(started.elapsed().as_secs_f64())));
                }
                Err(err) => self.tell(Event::Finished(i, Err(err))),
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<usize>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: Event) {
        drop(self.events.send(event)); // the receiver lives until all senders are gone
    }

    /// Does what is left of a job, if nobody else is on it.
    fn turn(&self, i: usize) -> Result<Ended> {
        let job = self.jobs[i];
        let dir = &job.cell.dir;
        let dead = match self.watch.look(dir) {
            State::Held(_) => return Ok(Ended::Held),
            State::Silent(holder) => Some(holder),
            State::Free => None,
        };
        if job.is_locked() {
            return Ok(Ended::Held);
        }
        if job.is_done() {
            return Ok(Ended::Well); // by another process
        }
        if let Some(failure) = failure::read(dir) {
            bail!("{failure}");
        }
        if let Some(Holder { host, pid, .. }) = &dead {
            tracing::warn!(
                "{}: process {pid} on {host} has been silent for {}, its cell is taken over",
                job.cell.title(),
                telemetry::duration(self.options.dead_after.as_secs_f64())
            );
        }
        self.run_child(i, dead.as_ref())
    }

    fn run_child(&self, i: usize, instead_of: Option<&Holder>) -> Result<Ended> {
        let job = self.jobs[i];
        let cell = &job.cell;
        cell.prepare()?;
        let threads = self.options.threads.to_string();
        let mut command = Command::new(this_program()?);
        command.arg("cell").arg("--dir").arg(&cell.dir).arg("--data").arg(&cell.data);
        command.args(["--device", self.device, "--threads", &threads]);
        command.args(["--split", job.source.split.name()]);
        for view in job.missing() {
            command.args(["--view", &store::key(&view)]);
        }
        if let Some(dead) = instead_of {
            command.args(["--instead-of", &dead.to_string()]);
        }
        let mut child = command
            // Read by libtorch before the child's own code could say so.
            .env("OMP_NUM_THREADS", &threads)
            .env("MKL_NUM_THREADS", &threads)
            // Never written to: the child ends when it closes, which it does even if we are killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start a child process")?;
        let stderr = child.stderr.take().expect("stderr is piped");
        let last = follow(stderr, &cell.dir.join(LOG), child.id(), |line| {
            if self.options.verbose {
                self.tell(Event::Line(i, line.to_owned()));
            }
        })?;
        let status = wait(&mut child)?;
        if status.code() == Some(i32::from(child::HELD)) {
            return Ok(Ended::Held);
        }
        if !status.success() {
            let said = what_it_said(&last);
            let why = said.unwrap_or_else(|| format!("its process ended with {status}"));
            if failure::read(&cell.dir).is_none() {
                thread::sleep(GRACE);
                failure::note(&cell.dir, why.clone())?; // the child could not do it
            }
            bail!("{why}");
        }
        job.views.iter().try_for_each(|view| job.answers(view).map(drop))?;
        Ok(Ended::Well)
    }
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

/// Appends a child's lines to `log` until it closes them; returns the last few.
fn follow(
    stderr: ChildStderr,
    log: &Path,
    process: u32,
    mut see: impl FnMut(&str),
) -> Result<VecDeque<String>> {
    let file = OpenOptions::new().create(true).append(true).open(log);
    let mut file = file.with_context(|| format!("cannot write {}", log.display()))?;
    let mut last = VecDeque::new();
    for line in BufReader::new(stderr).split(b'\n') {
        let line = line.context("cannot read from a child process")?;
        let line = String::from_utf8_lossy(&line).into_owned();
        // A full disk must not end a training.
        if last.is_empty() {
            let _ = writeln!(file, "--- a session begins (process {process})");
        }
        let _ = writeln!(file, "{line}");
        see(&line);
        if last.len() == REMEMBERED {
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
    jobs: &'a [&'a Job<'a>],
    finished: Vec<bool>,
    bar: telemetry::Progress,
    interrupted: Option<Interrupted>,
    after_interrupt: &'a str,
}

impl<'a> Progress<'a> {
    fn new(jobs: &'a [&'a Job<'a>], options: &'a Options) -> Self {
        let total = jobs.iter().map(|job| job.n_epochs()).sum();
        let bar = telemetry::progress(total, "cells", "epochs");
        let interrupted = interrupt::watch("interrupted");
        let interrupted =
            interrupted.inspect_err(|err| tracing::warn!("Ctrl-C will say nothing ({err})")).ok();
        let finished = vec![false; jobs.len()];
        let new =
            Self { jobs, finished, bar, interrupted, after_interrupt: &options.after_interrupt };
        new.look();
        new
    }

    /// Epochs done: all of a finished cell, which may have stopped early.
    fn n_done(&self) -> u64 {
        let done = |(job, finished): (&&Job, &bool)| match *finished || job.cell.is_finished() {
            true => job.n_epochs(),
            false => job.cell.epochs().min(job.n_epochs()),
        };
        self.jobs.iter().zip(&self.finished).map(done).sum()
    }

    fn n_finished(&self) -> usize {
        self.finished.iter().filter(|f| **f).count()
    }

    fn look(&self) {
        let so_far = format!("{} of {} cells are finished", self.n_finished(), self.jobs.len());
        self.bar.set_position(self.n_done());
        self.bar.message(so_far.clone());
        if let Some(interrupted) = &self.interrupted {
            interrupted.say(format!("interrupted; {so_far}; {}", self.after_interrupt));
        }
    }

    fn finish(&mut self, i: usize, result: &Result<f64>) {
        self.finished[i] = true;
        let (n, total) = (self.n_finished(), self.jobs.len());
        let cell = &self.jobs[i].cell;
        match result {
            Ok(seconds) => {
                tracing::info!("[{n}/{total}] {}: {}", cell.title(), telemetry::duration(*seconds));
            }
            Err(err) => {
                let log = cell.dir.join(LOG);
                tracing::error!(
                    "[{n}/{total}] {} failed: {err:#}; see {}",
                    cell.title(),
                    log.display()
                );
            }
        }
        self.look();
    }
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
}
