//! Ctrl-C seen from outside: this test starts its own program anew, interrupts it, and reads what
//! it says and leaves.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, thread, time::Duration};

use cumdf_train::{interrupt, telemetry};

/// Where the child works.
const FOLDER: &str = "CUMDF_INTERRUPT_FOLDER";

/// Not a test of its own: what is interrupted.
#[test]
fn child() {
    let Ok(folder) = env::var(FOLDER) else { return };
    let log = File::create(Path::new(&folder).join("log.txt")).expect("the folder is there");
    let _log = telemetry::log_to(log);
    let interrupted = interrupt::watch("nothing was kept yet").expect("a signal handler");
    for epoch in 1..=3 {
        interrupted.say(format!("interrupted; --resume goes on after epoch {epoch}"));
    }
    eprintln!("ready");
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

#[test]
#[cfg(unix)]
fn ctrl_c_says_how_to_go_on_and_exits_with_130() {
    let folder = tempfile::tempdir().unwrap();
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.ends_with("ready\n") {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "it ended early: {said}");
        }
        let kill = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{said}");
        assert_eq!(said, "interrupted; --resume goes on after epoch 3\n");
        let log = fs::read_to_string(folder.path().join("log.txt")).unwrap();
        assert_eq!(log, said, "the run's log does not tell it");
    }
}
