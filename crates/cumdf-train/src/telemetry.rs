//! What a run says while it works: log lines on stderr, the same lines in the run's own file, and
//! how far the work is. On a terminal that is a bar, which the log lines do not garble; elsewhere it
//! is a log line now and then ([`progress`]).
//!
//! `RUST_LOG` chooses what is logged, as everywhere in Rust; without it, `info`.

use std::env;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use tracing::{Subscriber, dispatcher};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;

/// When progress is told where there is no terminal for a bar: first after, and then every.
const TELL: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(20)];

/// The file of the run in progress, if any.
static RUN_LOG: Mutex<Option<File>> = Mutex::new(None);

/// Starts logging; `verbose` also shows the details of our own crates. Call it once, at the start
/// of `main`: later calls change nothing.
pub fn init(verbose: bool) {
    let fallback = if verbose {
        "info,cumdf_data=debug,cumdf_model=debug,cumdf_train=debug,cumdf_bench=debug"
    } else {
        "info"
    };
    let asked = env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let (filter, refused) = match EnvFilter::builder().parse(&asked) {
        Ok(filter) if !asked.is_empty() => (filter, None),
        parsed => (EnvFilter::new(fallback), parsed.err()),
    };
    if tracing::subscriber::set_global_default(subscriber(filter)).is_ok()
        && let Some(err) = refused
    {
        tracing::warn!("RUST_LOG={asked:?} is not understood ({err}); logging {fallback:?}");
    }
}

fn subscriber(filter: EnvFilter) -> impl Subscriber + Send + Sync {
    let colour = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let console = fmt::layer()
        .without_time()
        .with_target(false)
        .with_ansi(colour)
        .with_writer(Console::default);
    let file = fmt::layer().with_ansi(false).with_writer(|| RunLog);
    tracing_subscriber::registry().with(filter).with(console).with(file)
}

/// Copies all log lines to `file` until the returned guard is dropped. One run at a time: a second
/// file takes the place of the first.
#[must_use = "logging to the file stops when this is dropped"]
pub fn log_to(file: File) -> LogGuard {
    *run_log() = Some(file);
    LogGuard(())
}

/// Ends the copying that [`log_to`] began.
#[derive(Debug)]
pub struct LogGuard(());

impl Drop for LogGuard {
    fn drop(&mut self) {
        *run_log() = None;
    }
}

fn run_log() -> MutexGuard<'static, Option<File>> {
    // A panic elsewhere while a line was written leaves a usable file behind.
    RUN_LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All progress bars of the process. Other code that writes to the terminal does it inside
/// `bars().suspend(..)`.
pub fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new) // on stderr, and hidden where that is no terminal
}

/// Prints the last line of a process that was told to stop, where a bar may be drawn.
pub(crate) fn last_word(line: &str) {
    let _ = bars().clear();
    let _ = writeln!(io::stderr(), "{line}");
    let _ = writeln!(RunLog, "{line}");
}

/// Work of `len` steps called `label`, whose steps are counted in `unit` ("batches").
///
/// On a terminal this is a bar, below those already there. Elsewhere it is a log line, the first
/// after ten seconds and then one every twenty, also while no step ends:
///
/// ```text
/// teacher: 340 of 820 batches, epoch 9/20 loss 0.412, about 1 min 20 s left
/// ```
pub fn progress(len: u64, label: impl Into<String>, unit: &'static str) -> Progress {
    Progress::new(len, label.into(), unit, TELL)
}

/// How far a piece of work is; made by [`progress`]. It is shown until it is dropped.
///
/// The time left follows from the mean speed since the beginning, pauses between the steps (say, a
/// validation after each epoch) included.
#[derive(Debug)]
pub struct Progress {
    work: Arc<Work>,
    bar: ProgressBar,
    teller: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    fn new(len: u64, label: String, unit: &'static str, tell: [Duration; 2]) -> Self {
        let count = Count { done: 0, before: None, since: Instant::now(), message: String::new() };
        let work = Arc::new(Work { len, label, unit, count: Mutex::new(count) });
        let bar = bars().add(ProgressBar::new(len).with_style(style(&work)));
        bar.set_prefix(work.label.clone());
        let teller = if bar.is_hidden() {
            Some(tell_now_and_then(Arc::clone(&work), tell))
        } else {
            bar.enable_steady_tick(Duration::from_secs(1)); // the time left, also in long steps
            None
        };
        Self { work, bar, teller }
    }

    /// `n` more steps are done.
    pub fn inc(&self, n: u64) {
        let mut count = self.work.count();
        count.before.get_or_insert(0);
        count.done += n;
        drop(count); // the bar takes the lock when it draws itself
        self.bar.inc(n);
    }

    /// `position` steps are done in all. The first call, before any [`Progress::inc`], says where
    /// the work starts: what was done earlier says nothing about the speed.
    pub fn set_position(&self, position: u64) {
        let mut count = self.work.count();
        if count.before.is_none() {
            (count.before, count.since) = (Some(position), Instant::now());
        }
        count.done = position;
        drop(count);
        self.bar.set_position(position);
    }

    /// Says what else there is to say, such as the epoch and its loss.
    pub fn message(&self, message: impl Into<String>) {
        let message = message.into();
        self.work.count().message.clone_from(&message);
        self.bar.set_message(message);
    }

    /// The work is over: nothing is shown any more. Dropping it does the same.
    pub fn finish(self) {}
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, teller)) = self.teller.take() {
            drop(stop);
            let _ = teller.join();
        }
        self.bar.finish_and_clear();
    }
}

/// What the bar, or the log lines, tell.
#[derive(Debug)]
struct Work {
    len: u64,
    label: String,
    unit: &'static str,
    count: Mutex<Count>,
}

#[derive(Debug)]
struct Count {
    done: u64,
    /// Steps that were done when the work began here; `None` while there was no step.
    before: Option<u64>,
    since: Instant,
    message: String,
}

impl Work {
    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `340 of 820 batches` and so on, after `label: `.
    fn line(&self) -> String {
        let count = self.count();
        let so_far = format!("{}: {} of {} {}", self.label, count.done, self.len, self.unit);
        let left = left(self.len.saturating_sub(count.done), count.per_second());
        let parts = [so_far, count.message.clone(), left];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
    }
}

impl Count {
    /// Steps in a second, once there was one.
    fn per_second(&self) -> Option<f64> {
        let n = self.done.saturating_sub(self.before?);
        let seconds = self.since.elapsed().as_secs_f64();
        (n > 0 && seconds > 0.0).then(|| n as f64 / seconds)
    }
}

fn style(work: &Arc<Work>) -> ProgressStyle {
    let (for_rate, for_left) = (Arc::clone(work), Arc::clone(work));
    let template = "{prefix} {wide_bar:.cyan/dim} {pos}/{len} {rate} {left} {msg}";
    ProgressStyle::with_template(template)
        .expect("the template is valid")
        .with_key("rate", move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            let speed = for_rate.count().per_second();
            let _ = out.write_str(&speed.map_or_else(String::new, |n| rate(n, for_rate.unit)));
        })
        .with_key("left", move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let speed = for_left.count().per_second();
            let _ = out.write_str(&left(for_left.len.saturating_sub(state.pos()), speed));
        })
}

/// Logs how far `work` is, until the returned sender is dropped.
fn tell_now_and_then(
    work: Arc<Work>,
    [first, every]: [Duration; 2],
) -> (Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = mpsc::channel();
    let log = dispatcher::get_default(Clone::clone); // this thread's, which may not be the global one
    let teller = thread::spawn(move || {
        let mut wait = first;
        while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            dispatcher::with_default(&log, || tracing::info!("{}", work.line()));
            wait = every;
        }
    });
    (stop, teller)
}

/// `14.5 batches/s`, in a unit of time that leaves at least one.
fn rate(per_second: f64, unit: &str) -> String {
    let (value, time) = match per_second {
        n if n >= 1.0 => (n, "s"),
        n if n * 60.0 >= 1.0 => (n * 60.0, "min"),
        n => (n * 3600.0, "h"),
    };
    if value < 100.0 {
        format!("{value:.1} {unit}/{time}")
    } else {
        format!("{value:.0} {unit}/{time}")
    }
}

/// `about 1 min 20 s left`; nothing when nothing is left.
fn left(n_steps: u64, per_second: Option<f64>) -> String {
    match per_second {
        _ if n_steps == 0 => String::new(),
        None => "no estimate yet".to_owned(),
        Some(speed) => match n_steps as f64 / speed {
            seconds if seconds < 1.0 => "< 1 s left".to_owned(),
            seconds => format!("about {} left", duration(seconds)),
        },
    }
}

/// A time in the units that are read: `< 1 s`, `41 s`, `3 min 5 s`, `2 h 12 min`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64; // what is negative or no number becomes 0
    match s {
        0 => "< 1 s".to_owned(),
        1..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s / 60 % 60),
    }
}

/// One log line on its way to stderr: gathered whole, then written while the bars step aside.
#[derive(Debug, Default)]
struct Console(Vec<u8>);

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // A closed stderr must not end a training that has run for hours.
        bars().suspend(|| drop(io::stderr().write_all(&self.0)));
    }
}

/// The way to the run's file, or to nowhere while there is none.
#[derive(Debug)]
struct RunLog;

impl Write for RunLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(file) = run_log().as_mut() {
            file.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_run_log_holds_the_lines_between_attaching_and_dropping() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.txt");
        tracing::subscriber::with_default(subscriber(EnvFilter::new("info")), || {
            tracing::info!("before");
            let guard = log_to(File::create(&path).unwrap());
            tracing::info!(epoch = 3, "within");
            tracing::debug!("too detailed");
            drop(guard);
            tracing::info!("after");
        });
        let log = fs::read_to_string(path).unwrap();
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains("INFO") && log.contains("within epoch=3"), "{log}");
        assert!(!log.contains('\x1b'), "colour codes in a file:\n{log}");
    }

    #[test]
    fn times_and_rates_print_in_the_unit_that_is_read() {
        let seconds = [0.2, 0.9, 41.2, 59.6, 185.0, 7930.0, -1.0, f64::NAN];
        assert_eq!(
            seconds.map(duration),
            ["< 1 s", "1 s", "41 s", "1 min 0 s", "3 min 5 s", "2 h 12 min", "< 1 s", "< 1 s"]
        );
        assert_eq!(rate(14.4828, "batches"), "14.5 batches/s");
        assert_eq!(rate(1234.5, "batches"), "1234 batches/s");
        assert_eq!(rate(0.5, "epochs"), "30.0 epochs/min");
        assert_eq!(rate(0.01, "epochs"), "36.0 epochs/h");
    }

    #[test]
    fn the_time_left_is_never_zero_while_work_remains() {
        assert_eq!(left(5, None), "no estimate yet");
        assert_eq!(left(1, Some(1000.0)), "< 1 s left");
        assert_eq!(left(160, Some(2.0)), "about 1 min 20 s left");
        assert_eq!(left(0, Some(2.0)), "");
        for n_steps in 1..5000 {
            let said = left(n_steps, Some(777.7));
            assert!(!said.contains("0 s") || said.contains("10 s"), "{n_steps} steps: {said}");
        }
    }

    #[test]
    fn what_an_earlier_session_did_says_nothing_about_the_speed() {
        let progress = progress(1000, "teacher", "batches");
        let ago = |seconds: u64| progress.work.count().since -= Duration::from_secs(seconds);
        assert_eq!(progress.work.line(), "teacher: 0 of 1000 batches, no estimate yet");
        ago(3600); // opening the data, say
        progress.set_position(900);
        assert_eq!(progress.work.line(), "teacher: 900 of 1000 batches, no estimate yet");
        ago(20);
        progress.inc(20);
        progress.message("epoch 19/20 loss 0.412");
        assert_eq!(
            progress.work.line(),
            "teacher: 920 of 1000 batches, epoch 19/20 loss 0.412, about 1 min 20 s left"
        );
        progress.set_position(1000);
        let line = progress.work.line();
        assert_eq!(line, "teacher: 1000 of 1000 batches, epoch 19/20 loss 0.412");
        progress.finish();
    }

    #[test]
    fn without_a_terminal_progress_is_told_by_the_clock_also_when_no_step_ends() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("log.txt")).unwrap();
        let log = fmt::layer().with_ansi(false).with_writer(Mutex::new(file));
        let told = || fs::read_to_string(dir.path().join("log.txt")).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log), || {
            let tell = [30, 60].map(Duration::from_millis);
            let progress = Progress::new(10, "student".to_owned(), "batches", tell);
            if !progress.bar.is_hidden() {
                eprintln!("skipped: stderr is a terminal, which gets a bar");
                return;
            }
            let started = Instant::now();
            while told().lines().count() < 3 && started.elapsed() < Duration::from_secs(20) {
                thread::sleep(Duration::from_millis(10));
            }
            progress.finish();
            let (told, took) = (told(), started.elapsed());
            assert!(told.lines().count() >= 3, "{told}");
            assert!(told.contains("student: 0 of 10 batches, no estimate yet"), "{told}");
            assert!(took >= Duration::from_millis(150), "three lines after {took:?}");
        });
        let before = told();
        thread::sleep(Duration::from_millis(200));
        assert_eq!(told(), before, "it is told on after its end");
    }

    /// A terminal that keeps all that was ever printed on it.
    #[derive(Debug, Clone, Default)]
    struct Paper(Arc<Mutex<String>>);

    impl indicatif::TermLike for Paper {
        fn width(&self) -> u16 {
            120
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_bar_has_a_unit_and_the_time_left() {
        let paper = Paper::default();
        let target = indicatif::ProgressDrawTarget::term_like(Box::new(paper.clone()));
        let progress = Progress::new(820, "teacher".to_owned(), "batches", TELL);
        bars().remove(&progress.bar);
        progress.bar.set_draw_target(target);
        progress.set_position(0);
        progress.work.count().since -= Duration::from_secs(10);
        progress.inc(145);
        progress.message("epoch 4/20");
        progress.bar.tick();
        let shown = paper.0.lock().unwrap().clone();
        for part in ["teacher ", "145/820", "14.5 batches/s", "about 47 s left", "epoch 4/20"] {
            assert!(shown.contains(part), "no {part:?} in {shown:?}");
        }
    }
}
