//! `report`: all results of a folder as one page for a browser, without a network.
//!
//! `gather` reads tables, trainings, predictions and, for what needs them, true labels into plain
//! `data`. The template makes tables of it, which need no script; the script (`templates/report.js`)
//! draws the charts from the same data, sorts and switches. `watch` serves the page while a sweep
//! runs.

mod cases;
mod cells;
mod data;
mod gather;
mod judge;
mod tables;
mod watch;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use cumdf_train::run_dir::write_atomic;
use minijinja::{Environment, Value, context};

use self::{data::Report, gather::Gatherer};

const TEMPLATE: &str = include_str!("../../templates/report.html");
const STYLE: &str = include_str!("../../templates/report.css");
const SCRIPT: &str = include_str!("../../templates/report.js");

/// Arguments of `report`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The --out folder of a table or figure.
    #[arg(value_name = "DIR", default_value = "runs/table1")]
    pub dir: PathBuf,

    /// Where the page goes. Default: report.html in DIR.
    #[arg(long, value_name = "FILE.html")]
    pub out: Option<PathBuf>,

    /// A data file that has moved since its cells were made; may be given several times. It is known
    /// by its content. True labels are read for confusion, calibration and cases alone.
    #[arg(long, value_name = "FILE.h5")]
    pub data: Vec<PathBuf>,

    /// Serve the page at http://127.0.0.1:PORT instead, to this computer alone, until Ctrl-C: it
    /// renews itself as cells finish. Without PORT a free one is taken.
    #[arg(
        long,
        value_name = "PORT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "0",
        conflicts_with = "out"
    )]
    pub watch: Option<u16>,
}

const EXAMPLES: &str = "\
Examples:
  cumdf-bench report
      the page runs/table1/report.html of all that lies in runs/table1
  cumdf-bench report runs/paper --out paper.html
  cumdf-bench report runs/paper --watch
      while `table1 --out runs/paper` runs in another terminal; --watch=8080 for that port

What is on the page: every table and figure of the folder with the best floor beside each figure, a
heat map with the floor as zero, the curves of figure 3, learning curves with the chosen epoch,
confusion and calibration per condition, what CUMDF's answers are owed to, single cases, costs, and
what all of it was made from. Cells that no table has yet make a table of their own.

The page is one file without a network: it can be mailed, printed, and read on a phone. Without
JavaScript its tables are there, its charts are not.";

/// Writes the page, or serves it; always true.
///
/// # Errors
/// When the folder has no result or a damaged one, or the page cannot be written or served.
pub fn run(args: &Args) -> Result<bool> {
    if let Some(port) = args.watch {
        watch::serve(port, &args.dir, &args.data)?;
        return Ok(true);
    }
    let report = Gatherer::default().gather(&args.dir, &args.data, false)?;
    let page = render(&report)?;
    let out = args.out.clone().unwrap_or_else(|| args.dir.join("report.html"));
    write_atomic(&out, page.as_bytes())?;
    let kib = page.len().div_ceil(1024);
    crate::report::print(&format!("written: {} ({kib} KiB)\n", out.display()))?;
    Ok(true)
}

/// The page as HTML.
///
/// Whatever stands in the data is escaped by the template: in text, in attributes, and in the JSON
/// that the script reads.
///
/// # Errors
/// Only when the template is broken.
fn render(report: &Report) -> Result<String> {
    let mut env = Environment::new();
    env.add_filter("decimals", |value: f64, digits: usize| format!("{value:.digits$}"));
    env.add_filter("thousands", thousands);
    env.add_template("report.html", TEMPLATE).context("the report's template")?;
    let page = env.get_template("report.html").and_then(|template| {
        template.render(context! {
            report,
            style => Value::from_safe_string(STYLE.to_owned()),
            script => Value::from_safe_string(SCRIPT.to_owned()),
        })
    });
    page.context("the report's template")
}

/// `1234567` as `1 234 567`, with spaces at which no line breaks.
fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(thousands),
            ["0", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]
        );
    }

    /// A name that closes the script, opens a tag, and leaves an attribute.
    #[test]
    fn hostile_names_stay_text() {
        const NAME: &str = "</script><b onload=\"x\"> & 'y'";
        let folder = tempfile::tempdir().unwrap();
        let figure = serde_json::json!({
            "dataset": NAME, "model": NAME, "condition": NAME, "metric": NAME, "mean": 1.0,
            "note": NAME, "floor": 1.0, "floor_of": NAME,
        });
        let table = serde_json::json!({ "figures": [figure], (NAME): NAME });
        std::fs::write(folder.path().join("table1.json"), table.to_string()).unwrap();
        let report = Gatherer::default().gather(folder.path(), &[], false).unwrap();
        let page = render(&report).unwrap();
        assert!(!page.contains("<b onload"), "a name became a tag");
        assert_eq!(page.matches("</script>").count(), 2, "a name closed a script");
        assert!(page.contains("&lt;&#x2f;script&gt;&lt;b onload"), "the name is not shown");
        let json = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
        let read: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(read["datasets"][0], NAME);
    }
}
