//! Regenerates the paper's tables from data: measured figures, the printed ones and the floor.
//!
//! - [`grid`]: cells of (data set, variant, seed), trained once and tested under any view, in
//!   processes of their own, continued where they stopped;
//! - [`artefact`]: the tables: which rows under which views, and how they are laid out;
//! - [`difference`]: whether a difference between two rows is more than chance;
//! - [`sweep`]: the same cells on many GPUs or machines, from a plan in a file;
//! - [`report`]: the only table type, and its writers;
//! - [`page`]: all of a folder's results as one page for a browser;
//! - [`results`]: the page of results in the documentation, from what is kept;
//! - [`paper`]: what the paper prints.
//!
//! ```
//! use cumdf_bench::paper;
//! use cumdf_train::metrics::Metric;
//!
//! let mosi = paper::source("CMU-MOSI", [1284, 229, 686], [300, 74, 35])
//!     .expect("the paper has a table of MOSI");
//! assert_eq!(mosi.table, 1);
//! assert_eq!(mosi.differences, ["vision has 35 features per step, the paper's 1024"]);
//! assert_eq!(paper::figure(&mosi, "cumdf", "lav", &Metric::Mae), Some(0.718));
//! ```

pub mod artefact;
pub mod difference;
pub mod grid;
pub mod page;
pub mod paper;
pub mod report;
pub mod results;
pub mod sweep;
