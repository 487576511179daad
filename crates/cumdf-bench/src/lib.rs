//! Regenerates the paper's tables from data: measured figures, the printed ones and the floor.
//!
//! - [`table1`]: the subcommand, from data files to `table1.{json,csv,md,tex}`;
//! - [`cell`] and [`schedule`]: one training and its test in a process of its own, several at once,
//!   continued where they stopped;
//! - [`report`]: the only table type, and the only code that knows a layout;
//! - [`paper`] and [`models`]: what the paper prints, and the rows of its tables.
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

pub mod cell;
pub mod models;
pub mod paper;
pub mod report;
pub mod schedule;
pub mod table1;
pub mod work;
