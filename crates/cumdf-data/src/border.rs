//! The border of a program: every way in which its work can end becomes an exit code, and at most
//! one line on stderr.
//!
//! | exit code | meaning |
//! | --- | --- |
//! | 0 | all went well; also when whoever read the output has seen enough (`\| head`) |
//! | 1 | an error, told as `error: ...`; or a problem that the program has told itself |
//! | 2 | a command line that is not understood |
//! | [`SOFTWARE`] | a panic: a bug, or a size that is impossible here |
//! | 75 | told by SIGUSR1 to stop and be started again, see [`crate::interrupt`] |
//! | 130, 143 | told to stop by Ctrl-C or by `kill`, see [`crate::interrupt`] |

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write as _};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use anyhow::Result;

/// The exit code after a panic: `EX_SOFTWARE` of sysexits.h, "internal software error".
pub const SOFTWARE: u8 = 70;

/// Characters of a message that are shown, about.
const SHOWN: usize = 300;
/// A first sentence of fewer characters says too little ("CUDA out of memory").
const SHORT: usize = 40;

/// What panicked so far and was not told yet.
static PANICS: Mutex<Vec<Panic>> = Mutex::new(Vec::new());

#[derive(Debug, Clone)]
struct Panic {
    message: String,
    /// `file:line`.
    place: String,
    thread: ThreadId,
}

/// Runs the work of the program called `name`, tells what went wrong, and says how to exit.
///
/// `run` returns whether all went well; with `false` it has told the problem itself. Call this once,
/// in `main`: panics of all threads are kept from then on, and told here as one line. With
/// `RUST_BACKTRACE=1` Rust's own report comes before it.
pub fn guard(name: &str, run: impl FnOnce() -> Result<bool>) -> ExitCode {
    let report = panic::take_hook();
    let wanted = Backtrace::capture().status() == BacktraceStatus::Captured; // by RUST_BACKTRACE
    panic::set_hook(Box::new(move |info| {
        let again = keep(info); // a panic while another unwinds: Rust aborts, nothing is told later
        if wanted || again {
            report(info);
        }
    }));
    // Nothing is used afterwards that a panic may have left half done.
    let ended = panic::catch_unwind(AssertUnwindSafe(run));
    let kept = std::mem::take(&mut *panics());
    let panic = match ended {
        Ok(Err(error)) if is_broken_pipe(&error) => return ExitCode::SUCCESS,
        Ok(Err(error)) => {
            say(&format!("{error:#}"));
            return ExitCode::FAILURE;
        }
        // A thread that nobody waited for.
        Ok(Ok(well)) => match kept.into_iter().next() {
            None if well => return ExitCode::SUCCESS,
            None => return ExitCode::FAILURE,
            Some(panic) => panic,
        },
        Err(payload) => the_first_cause(&text_of(payload.as_ref()), kept),
    };
    if panic.message.starts_with("failed printing to stdout")
        && panic.message.contains("Broken pipe")
    {
        return ExitCode::SUCCESS;
    }
    say(&tell(name, &panic));
    ExitCode::from(SOFTWARE)
}

fn say(error: &str) {
    let _ = writeln!(io::stderr(), "error: {error}"); // nobody may be listening, that is no panic
}

/// Whether somebody read our output and has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

fn panics() -> MutexGuard<'static, Vec<Panic>> {
    PANICS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a panic, and says whether this thread had one before.
fn keep(info: &PanicHookInfo<'_>) -> bool {
    let place = info.location().map(|at| format!("{}:{}", short(at.file()), at.line()));
    let place = place.unwrap_or_default();
    let thread = thread::current().id();
    let mut panics = panics();
    let again = panics.iter().any(|panic| panic.thread == thread);
    panics.push(Panic { message: text_of(info.payload()), place, thread });
    again
}

/// A source file without the folders in which cargo keeps a dependency.
fn short(file: &str) -> &str {
    let kept = file.split_once("/registry/src/").and_then(|(_, rest)| rest.split_once('/'));
    kept.map_or(file, |(_, rest)| rest)
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}

/// The panic that ended the work: the one with this message, or, where it only says that another
/// thread panicked, that thread's.
fn the_first_cause(message: &str, kept: Vec<Panic>) -> Panic {
    let second_hand =
        |message: &str| message == "a scoped thread panicked" || message.contains("Any { .. }");
    let wanted = |panic: &&Panic| match second_hand(message) {
        true => !second_hand(&panic.message),
        false => panic.message == message,
    };
    let found = kept.iter().find(wanted).or(kept.last()).cloned();
    found.unwrap_or_else(|| Panic {
        message: message.to_owned(),
        place: String::new(),
        thread: thread::current().id(),
    })
}

fn tell(name: &str, panic: &Panic) -> String {
    let at = match panic.place.as_str() {
        "" => String::new(),
        place => format!(", at {place}"),
    };
    format!(
        "{}: a bug in {name}, or a size that is impossible here{at}; RUST_BACKTRACE=1 before the \
         command shows the whole",
        essence(&panic.message)
    )
}

/// The first line of a panic's message, without what Rust wraps around errors and without the
/// addresses and stack frames that libtorch adds to its own.
fn essence(message: &str) -> String {
    let mut text = message.trim();
    if let Some((_, error)) = text.split_once("` on an `Err` value: ") {
        text = error;
    }
    // The library's errors come as Rust's debug output: Torch("first line\nException raised ...
    let unescaped;
    if let Some((_, quoted)) = text.split_once("Torch(\"") {
        unescaped = quoted.trim_end_matches("\")").replace("\\n", "\n").replace("\\\"", "\"");
        text = &unescaped;
    }
    text = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("a panic");
    text = text.split(" (most recent call first)").next().unwrap_or(text);
    text = text.split("Exception raised from ").next().unwrap_or(text);
    // `[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: ...`: code, not a sentence.
    if text.starts_with("[enforce fail at")
        && let Some((_, rest)) = text.split_once(". ")
    {
        text = rest;
    }
    let mut ends = text.match_indices(". ").map(|(at, _)| at);
    if let Some(end) = ends.find(|at| *at >= SHORT) {
        text = &text[..end];
    }
    let text = text.trim_end_matches(['.', ' ']);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_libtorchs_message_the_first_sentence_stays() {
        let allocation = "called `Result::unwrap()` on an `Err` value: Torch(\"[enforce fail at \
            alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to \
            allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)\\nException raised \
            from posix_memalign at /pytorch/c10/core/impl/alloc_cpu.cpp:124 (most recent call \
            first):\\nframe #0: c10::Error::Error(...)\")";
        assert_eq!(
            essence(allocation),
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000000 bytes"
        );
        let error = tch::Tensor::from_slice(&[1f32, 2.0])
            .f_add(&tch::Tensor::from_slice(&[1f32, 2.0, 3.0]))
            .map(drop);
        let panicked = panic::catch_unwind(AssertUnwindSafe(|| error.unwrap())).unwrap_err();
        assert_eq!(
            essence(&text_of(panicked.as_ref())),
            "The size of tensor a (2) must match the size of tensor b (3) at non-singleton dimension 0"
        );
        assert_eq!(
            essence("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 78 GiB in all."),
            "CUDA out of memory. Tried to allocate 20.00 GiB"
        );
    }

    #[test]
    fn a_dependencys_file_is_told_without_cargos_folders() {
        let file = "/root/.cargo/registry/src/index.crates.io-1949/tch-0.24.0/src/nn/var_store.rs";
        assert_eq!(short(file), "tch-0.24.0/src/nn/var_store.rs");
        assert_eq!(short("crates/cumdf-data/src/border.rs"), "crates/cumdf-data/src/border.rs");
    }

    #[test]
    fn of_our_own_message_the_first_line_stays_and_it_stays_short() {
        assert_eq!(essence("Modality::ALL is not empty"), "Modality::ALL is not empty");
        assert_eq!(essence("\n left: 1\nright: 2"), "left: 1");
        let long = essence(&"word ".repeat(500));
        assert!(long.len() < 320 && long.ends_with("..."), "{long}");
        assert_eq!(essence(""), "a panic");
    }

    #[test]
    fn the_thread_that_panicked_first_is_told_rather_than_the_one_that_waited_for_it() {
        let panic = |message: &str| Panic {
            message: message.to_owned(),
            place: "a.rs:1".into(),
            thread: thread::current().id(),
        };
        let kept = vec![panic("the cause"), panic("a scoped thread panicked")];
        assert_eq!(the_first_cause("a scoped thread panicked", kept.clone()).message, "the cause");
        assert_eq!(the_first_cause("the cause", kept).message, "the cause");
        assert_eq!(the_first_cause("resumed elsewhere", Vec::new()).message, "resumed elsewhere");
    }

    #[test]
    fn a_closed_output_is_found_however_deep_it_lies() {
        use anyhow::Context as _;
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        let deep = Err::<(), _>(closed).context("writing").context("reporting").unwrap_err();
        assert!(is_broken_pipe(&deep));
        assert!(!is_broken_pipe(&anyhow::anyhow!("another")));
    }
}
