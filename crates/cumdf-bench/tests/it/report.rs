//! The report of toy runs that the program made itself, and the page in a real browser.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    thread,
    time::Duration,
};

use cumdf_data::{ModalitySet, Task};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{artefact, said, text, tiny, toy};

/// A name that would close the script and open a tag.
const HOSTILE: &str = "</script><b>";

fn report(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cumdf-bench"));
    command.env("HDF5_USE_FILE_LOCKING", "FALSE");
    command.arg("report").arg(dir).args(args).output().expect("the program starts")
}

/// The page of a folder, and the data in it.
fn page(dir: &Path) -> (String, Value) {
    let output = report(dir, &[]);
    assert!(output.status.success(), "{}", said(&output));
    let page = fs::read_to_string(dir.join("report.html")).expect("it was written");
    let data = data_of(&page);
    (page, data)
}

fn data_of(page: &str) -> Value {
    let json = page.split_once("id=\"data\">").expect("the data").1;
    serde_json::from_str(json.split_once("</script>").expect("their end").0).expect("JSON")
}

/// CUMDF beside the floors on scores of a hostile name and on emotions, with table and figure. Made
/// once: tests copy what they change.
fn run() -> &'static Path {
    static RUN: OnceLock<TempDir> = OnceLock::new();
    RUN.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let scores = toy(dir.path(), HOSTILE, Task::Sentiment { lo: -1, hi: 1 }, ModalitySet::ALL);
        let classes = ["happy", "sad"].map(String::from).to_vec();
        let emotions = toy(dir.path(), "emotions", Task::Emotion { classes }, ModalitySet::ALL);
        let cumdf = ["--models", "cumdf", "--data", text(&scores), "--data", text(&emotions)];
        let set = tiny(&cumdf);
        for (name, more) in [("table1", &[][..]), ("figure3", &["--drop-ratios", "0,0.5,1"])] {
            let mut command = artefact(name, &dir.path().join("out"), &cumdf);
            let output = command.args(&set).args(more).stdin(Stdio::null()).output();
            let output = output.expect("the program starts");
            assert!(output.status.success(), "{}", said(&output));
        }
        dir
    })
    .path()
}

/// A copy of the run's folder without what `leave_out` names.
fn copy(to: &Path, leave_out: &dyn Fn(&str) -> bool) {
    fn walk(from: &Path, to: &Path, leave_out: &dyn Fn(&str) -> bool) {
        fs::create_dir_all(to).expect("a temporary folder can be made");
        for entry in fs::read_dir(from).expect("it is a folder").flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            if leave_out(name.to_str().expect("UTF-8")) {
                continue;
            }
            match path.is_dir() {
                true => walk(&path, &to.join(name), leave_out),
                false => drop(fs::copy(&path, to.join(name)).expect("it can be copied")),
            }
        }
    }
    walk(&run().join("out"), to, leave_out);
}

fn list<'a>(data: &'a Value, key: &str) -> &'a Vec<Value> {
    data[key].as_array().unwrap_or_else(|| panic!("{key} is a list"))
}

#[test]
fn the_page_has_what_lies_in_the_folder() {
    let (page, data) = page(&run().join("out"));
    assert!(!page.contains("<b>emotions") && !page.contains("</script><b>"), "a name is a tag");
    assert_eq!(page.matches("<script").count(), 2);
    for outside in ["http://", "https://", "src=", "@import"] {
        let found = page.find(outside).map(|at| &page[at.saturating_sub(60)..at + 60]);
        assert!(
            found.is_none_or(|around| around.contains("www.w3.org/2000/svg")),
            "the page reaches for {outside}: {found:?}"
        );
    }
    assert_eq!(data["datasets"], serde_json::json!([HOSTILE, "emotions"]));
    let names: Vec<_> = list(&data, "tables").iter().map(|t| t["name"].clone()).collect();
    assert_eq!(names, ["table1", "figure3"], "the table has all cells: there is none so far");
    let part = &data["tables"][0]["parts"][0];
    assert_eq!(part["columns"].as_array().unwrap().len(), 9);
    assert_eq!(data["tables"][1]["parts"].as_array().unwrap().len(), 8, "four kinds of holes each");
    // The figures are those of the table's file.
    let json: Value =
        serde_json::from_str(&fs::read_to_string(run().join("out/table1.json")).unwrap()).unwrap();
    let (own, theirs) = (&part["cells"][0][0][0]["mean"], &json["figures"][0]["mean"]);
    assert!((own.as_f64().unwrap() - theirs.as_f64().unwrap()).abs() < 1e-4, "{own} {theirs}");

    for judged in list(&data, "judged") {
        assert_eq!(judged["problem"], Value::Null);
        for model in list(judged, "models") {
            assert_eq!(model["is_of_table"], true, "{model}");
            for verdict in list(model, "conditions") {
                let counts =
                    list(verdict, "confusion").iter().flat_map(|row| row.as_array().unwrap());
                let n_answers = 12 * model["seeds"].as_u64().unwrap();
                assert_eq!(counts.map(|n| n.as_u64().unwrap()).sum::<u64>(), n_answers, "{model}");
            }
        }
        let kinds: Vec<_> = list(&judged["cases"], "list").iter().map(|c| &c["kind"]).collect();
        assert!(kinds.contains(&&Value::from("gain")) || kinds.contains(&&Value::from("loss")));
    }
    // Attributions are CUMDF's, under seven conditions on two data sets, and sum to 1.
    assert_eq!(list(&data, "attributions").len(), 14);
    for row in list(&data, "attributions") {
        let sum: f64 = list(row, "mean").iter().map(|share| share.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-3, "{row}");
    }
    let own = list(&data, "cells").iter().find(|cell| cell["model"] == "cumdf").unwrap();
    let stages: Vec<_> = list(own, "stages").iter().map(|stage| &stage["name"]).collect();
    assert_eq!(stages, ["teacher", "student"]);
    assert!(own["stages"][1]["chosen"].is_u64());
}

#[test]
fn a_half_finished_folder_makes_a_table_of_its_finished_cells() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("half");
    // No table yet, no mlp yet, and CUMDF is still training.
    let leave_out = |name: &str| {
        name.ends_with(".json") && name != "cell.json" || name == "views" || name == "mlp"
    };
    copy(&out, &leave_out);
    let linear = run().join("out/cells/emotions/linear");
    let cell = fs::read_dir(&linear).unwrap().next().unwrap().unwrap().file_name();
    let views = |root: &Path| root.join("cells/emotions/linear").join(&cell).join("views");
    fs::create_dir_all(views(&out)).unwrap();
    for entry in fs::read_dir(views(&run().join("out"))).unwrap().flatten() {
        fs::copy(entry.path(), views(&out).join(entry.file_name())).unwrap();
    }
    let (page, data) = page(&out);
    let table = &data["tables"][0];
    assert_eq!(table["name"], "so-far");
    let part = list(table, "parts").iter().find(|part| part["dataset"] == "emotions").unwrap();
    let rows: Vec<_> = list(part, "rows").iter().map(|row| row["model"].clone()).collect();
    assert_eq!(rows, ["constant", "linear"]);
    let in_training = list(&data, "cells").iter().find(|cell| cell["model"] == "cumdf").unwrap();
    assert_eq!(in_training["is_finished"], false);
    assert!(!list(in_training, "stages").is_empty(), "its epochs are shown");
    assert!(page.contains("no cell of CUMDF is tested"), "why there are no cases is said");
    let untested = list(&data, "judged").iter().find(|j| j["dataset"] == HOSTILE).unwrap();
    assert!(list(untested, "models").is_empty());
}

#[test]
fn without_the_data_file_and_attributions_the_page_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("moved");
    copy(&out, &|name| name.ends_with(".attributions.csv"));
    for path in configs(&out) {
        let text = fs::read_to_string(&path).unwrap();
        let here = text.lines().map(|line| match line.starts_with("file = ") {
            true => "file = \"/nowhere/toy.h5\"",
            false => line,
        });
        fs::write(&path, here.collect::<Vec<_>>().join("\n")).unwrap();
    }
    let (page, data) = page(&out);
    assert!(page.contains("None are stored here"), "nothing is said of attributions");
    for judged in list(&data, "judged") {
        let problem = judged["problem"].as_str().expect("a problem");
        assert!(problem.contains("/nowhere/toy.h5") && problem.contains("--data"), "{problem}");
    }
    assert_eq!(list(&data, "datasets").len(), 2, "the names are those of the table");
    // Told where it is now, the program reads it again.
    let emotions = run().join("emotions.h5");
    let output = report(&out, &["--data", text(&emotions), "--out", text(&out.join("b.html"))]);
    assert!(output.status.success(), "{}", said(&output));
    let data = data_of(&fs::read_to_string(out.join("b.html")).unwrap());
    let problems: Vec<_> = list(&data, "judged").iter().map(|j| j["problem"].is_null()).collect();
    assert_eq!(problems.iter().filter(|is_known| **is_known).count(), 1, "{problems:?}");
}

fn configs(out: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![out.join("cells")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("config.toml") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_folder_without_a_result_or_with_a_damaged_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = report(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("neither a table nor a cell"), "{}", said(&output));
    assert!(!dir.path().join("report.html").exists());
    fs::write(dir.path().join("table1.json"), "{\"figures\": [{\"dataset\"").unwrap();
    let output = report(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("table1.json: it is damaged"), "{}", said(&output));
}

/// Ends a server when its test does.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves a folder at the address that it says.
fn watch(dir: &Path) -> (Server, String) {
    let mut server = Command::new(env!("CARGO_BIN_EXE_cumdf-bench"));
    server.arg("report").arg(dir).arg("--watch").stdout(Stdio::piped());
    let mut server = Server(server.spawn().expect("the program starts"));
    let mut line = String::new();
    let mut out = BufReader::new(server.0.stdout.take().expect("it was asked for"));
    out.read_line(&mut line).expect("it says where it listens");
    let address = line.trim_start_matches("http://").split(' ').next().unwrap_or_default();
    assert!(address.starts_with("127.0.0.1:"), "{line}");
    (server, address.to_owned())
}

/// The answer to a request of `path` with that `Host`.
fn get(address: &str, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_watched_page_changes_as_cells_finish_and_is_for_this_computer_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, address) = watch(dir.path());
    let before = get(&address, "/state", &address);
    let empty = get(&address, "/", &address);
    assert!(empty.starts_with("HTTP/1.1 200") && empty.contains("No results yet"), "{empty}");
    fs::copy(run().join("out/table1.json"), dir.path().join("table1.json")).unwrap();
    assert_ne!(before, get(&address, "/state", &address));
    assert!(get(&address, "/", "localhost").contains("Table 1"));
    assert!(get(&address, "/", "evil.example").starts_with("HTTP/1.1 403"));
    assert!(get(&address, "/../secret", &address).starts_with("HTTP/1.1 404"));
}

/// The browser, if there is one.
fn chromium() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        let version = Command::new(name).arg("--version").output();
        version.is_ok_and(|output| output.status.success())
    })
}

/// A browser without a window that shows the page after so many seconds of its own time, which pass
/// as fast as it can.
fn browser(name: &str, url: &str, profile: &Path, seconds: u32) -> Command {
    let mut command = Command::new(name);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"])
        .args(["--window-size=1200,900", "--dump-dom"])
        .arg(format!("--virtual-time-budget={}", 1000 * seconds))
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url);
    command
}

/// What the scripts of a page said on the console.
fn console(output: &Output) -> Vec<String> {
    let said = said(output);
    said.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect()
}

/// The browser, or a word that the test is skipped.
fn browser_or_skip() -> Option<&'static str> {
    let browser = chromium();
    if browser.is_none() {
        eprintln!("skipped: there is no chromium here (Debian: apt install chromium)");
    }
    browser
}

#[test]
fn in_a_browser_the_page_is_quiet_and_its_switches_work() {
    let Some(name) = browser_or_skip() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (page, _) = page(&run().join("out"));
    let check = format!("<script>{}</script></body>", include_str!("report_check.js"));
    let file = dir.path().join("report.html");
    fs::write(&file, page.replace("</body>", &check)).unwrap();
    let url = format!("file://{}", file.display());
    let output = browser(name, &url, &dir.path().join("profile"), 5).output().unwrap();
    assert_eq!(console(&output), [""; 0], "the page is not quiet");
    let dom = String::from_utf8_lossy(&output.stdout);
    let found = dom.split_once("id=\"checked\">").expect("the check ran to its end").1;
    let found = found.split_once("</pre>").expect("its end").0;
    assert_eq!(found, "all is well", "{found}");
}

#[test]
fn in_a_browser_a_watched_page_renews_itself() {
    let Some(name) = browser_or_skip() else { return };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::copy(run().join("out/table1.json"), out.join("table1.json")).unwrap();
    let (_server, address) = watch(&out);
    let url = format!("http://{address}/");
    let mut shown = browser(name, &url, &dir.path().join("profile"), 30);
    let shown = thread::spawn(move || shown.output().expect("the browser starts"));
    // It is not known when the page is there, so results come in all the time.
    for n in 0.. {
        if shown.is_finished() {
            break;
        }
        fs::write(out.join("news.csv"), "x".repeat(n % 1000)).expect("a temporary folder");
        thread::sleep(Duration::from_millis(50));
    }
    let output = shown.join().expect("the browser ends");
    assert_eq!(console(&output), [""; 0], "the page is not quiet");
    let dom = String::from_utf8_lossy(&output.stdout);
    assert!(dom.contains("Renewed "), "the page stayed what it was");
    assert!(dom.contains("id=\"table1\""), "its tables are gone");
}
