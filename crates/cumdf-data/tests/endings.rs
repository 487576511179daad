//! How a process ends that works inside [`cumdf_data::border::guard`]: by itself, by an error, by a
//! panic, or because it was told to. This program starts itself anew for each case and looks from
//! outside.

use std::io::{self, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use anyhow::{Context as _, Result, bail, ensure};
use cumdf_data::{Dataset, border, interrupt};

/// Names the case in a child.
const CASE: &str = "CUMDF_ENDINGS_CASE";

fn main() -> ExitCode {
    match env::var(CASE) {
        Ok(case) => border::guard("endings", || work(&case)),
        Err(_) => {
            check();
            ExitCode::SUCCESS
        }
    }
}

/// What a child does.
fn work(case: &str) -> Result<bool> {
    match case {
        "well" => {}
        "told" => return Ok(false),
        "error" => bail!("no such file"),
        "panic" => panic!("a broken promise\nwith details"),
        "libtorch" => {
            let two = tch::Tensor::from_slice(&[1f32, 2.0]);
            let three = tch::Tensor::from_slice(&[1f32, 2.0, 3.0]);
            show(&(two + three));
        }
        "thread" => thread::scope(|scope| {
            scope.spawn(|| panic!("the thread's own words"));
        }),
        "forgotten thread" => {
            let ended = thread::spawn(|| panic!("nobody waited")).join();
            ensure!(ended.is_err());
        }
        "pipe" => loop {
            writeln!(io::stdout(), "more").context("writing a report")?;
        },
        "println" => loop {
            #[expect(
                clippy::print_stdout,
                reason = "it panics on a closed pipe, which is looked at"
            )]
            {
                println!("more");
            }
        },
        signal => {
            let folder = env::current_dir()?;
            interrupt::watch(|| eprintln!("first word"))?;
            interrupt::watch(|| eprintln!("last word"))?;
            let number = match signal {
                "ctrl-c" => 2,
                "kill" => 15,
                _ => signal_hook::consts::SIGUSR1,
            };
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(200)); // now a file is being written
                signal_hook::low_level::raise(number)
            });
            loop {
                cumdf_data::synthetic::generate(cumdf_data::synthetic::Kind::Emotion)?
                    .write(folder.join("new.h5"))?;
                fs::remove_file(folder.join("new.h5"))?;
            }
        }
    }
    Ok(true)
}

fn show(tensor: &tch::Tensor) {
    eprintln!("{tensor:?}");
}

/// Exit code and stderr of a child.
fn end_of(case: &str, change: impl FnOnce(&mut Command) -> &mut Command) -> (Option<i32>, String) {
    let mut command = Command::new(env::current_exe().expect("this program has a path"));
    command
        .env(CASE, case)
        .env_remove("RUST_BACKTRACE")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let output = change(&mut command).spawn().and_then(|mut child| {
        drop(child.stdout.take()); // where it is piped, nobody reads
        child.wait_with_output()
    });
    let output = output.expect("this program can be started");
    (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
}

fn check() {
    let plain = |case: &str| end_of(case, |command| command);
    assert_eq!(plain("well"), (Some(0), String::new()));
    assert_eq!(plain("told"), (Some(1), String::new()));
    assert_eq!(plain("error"), (Some(1), "error: no such file\n".to_owned()));

    for (case, words) in [
        ("panic", "error: a broken promise: a bug in endings, or a size that is impossible here"),
        ("libtorch", "error: The size of tensor a (2) must match the size of tensor b (3)"),
        ("thread", "error: the thread's own words: a bug"),
        ("forgotten thread", "error: nobody waited: a bug"),
    ] {
        let (code, said) = plain(case);
        assert_eq!(code, Some(i32::from(border::SOFTWARE)), "{case}: {said}");
        assert!(said.starts_with(words), "{case}: {said}");
        assert_eq!(said.lines().count(), 1, "{case}: {said}");
        assert!(said.contains("RUST_BACKTRACE=1") && said.contains(".rs:"), "{case}: {said}");
        for noise in ["panicked at", "frame #", "Exception raised"] {
            assert!(!said.contains(noise), "{case}: {said}");
        }
    }
    let (_, said) = end_of("panic", |command| command.env("RUST_BACKTRACE", "1"));
    assert!(said.contains("panicked at") && said.contains("with details"), "{said}");
    assert!(said.contains("stack backtrace"), "{said}");

    for case in ["pipe", "println"] {
        let ended = end_of(case, |command| command.stdout(Stdio::piped()));
        assert_eq!(ended, (Some(0), String::new()), "{case}: `| head` is no failure");
    }

    for (case, code) in [("ctrl-c", 130), ("kill", 143), ("time is up", 75)] {
        let folder = tempfile::tempdir().expect("a folder");
        let ended = end_of(case, |command| command.current_dir(&folder));
        assert_eq!(ended, (Some(code), "last word\n".to_owned()), "{case}");
        // Between two rounds there may be a whole file, but never half of one.
        for entry in fs::read_dir(&folder).expect("it is there").flatten() {
            assert_eq!(entry.file_name(), "new.h5");
            Dataset::open(entry.path()).expect("a file that is whole");
        }
    }
}
