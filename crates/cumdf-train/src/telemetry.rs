//! What a run says while it works: log lines on stderr, the same lines in the run's own file, and
//! progress bars that neither garbles.
//!
//! `RUST_LOG` chooses what is logged, as everywhere in Rust; without it, `info`.

use std::borrow::Cow;
use std::env;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing::Subscriber;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;

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

/// A new bar of `len` steps called `label`, shown below those already there. Its message, set with
/// `set_message`, is where a loss or an epoch goes.
pub fn bar(len: u64, label: impl Into<Cow<'static, str>>) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{prefix} {wide_bar:.cyan/dim} {pos}/{len} {per_sec} {eta} {msg}",
    )
    .expect("the template is valid");
    bars().add(ProgressBar::new(len).with_style(style).with_prefix(label))
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
    fn bars_are_hidden_where_stderr_is_no_terminal() {
        let bar = bar(10, "epoch");
        assert_eq!(bar.is_hidden(), !io::stderr().is_terminal());
        bar.inc(1);
        assert_eq!((bar.position(), bar.prefix()), (1, "epoch".to_owned()));
        bar.finish_and_clear();
    }
}
