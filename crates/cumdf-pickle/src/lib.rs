//! Reads Python pickles of numpy arrays as data: nothing in them is ever called.
//!
//! A pickle is a program. Python runs it, and whoever wrote the file decides what it does; this
//! crate only follows the opcodes that put data together, in protocols 0 to 5, from Python 2 and
//! 3 and numpy 1 and 2:
//!
//! - `None`, bool, int (up to 16 bytes), float, str, bytes, bytearray, list, tuple, dict, set,
//!   frozenset, `OrderedDict`, and `defaultdict` of a builtin type;
//! - numpy arrays, scalars and dtypes: bool, int, uint, float (2, 4, 8 bytes), `S`, `U` and
//!   object, of either byte order, in C, Fortran or any other order of the axes.
//!
//! Every other name is refused, by name, before anything is made of it: functions, classes,
//! `copyreg`, persistent ids, out-of-band buffers; so are structured, complex and date dtypes. A
//! value that contains itself is refused too. Errors say at which byte.
//!
//! [`load`] goes over the opcodes and seeks past large payloads, so that a pickle of many
//! gigabytes is decoded in the time and memory of its small parts. An [`Array`] then reads the
//! rows it is asked for. [`Limits`] bound what a hostile file can use.
//!
//! ```
//! use std::io::Cursor;
//!
//! // pickle.dumps({"labels": np.array([[1.5], [-2.0]], "<f4"), "ids": ["a", "b"]}, protocol=2)
//! let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/readme_2.pkl"))?;
//! let mut reader = Cursor::new(file); // or a File
//!
//! let pickle = cumdf_pickle::load(&mut reader, &Default::default())?;
//! let root = pickle.root();
//! let labels = root.require("labels")?.array().ok_or("labels are no array")?;
//! assert_eq!(labels.to_string(), "float32 array [2, 1]");
//! assert_eq!(labels.read_f32(&mut reader, 0..2)?, [1.5, -2.0]);
//!
//! let ids = root.require("ids")?.items().ok_or("ids are no list")?;
//! assert_eq!(ids.filter_map(|id| id.text()).collect::<Vec<_>>(), ["a", "b"]);
//!
//! let hostile = b"cposix\nsystem\n(S'rm -rf ~'\ntR.";
//! let err = cumdf_pickle::load(Cursor::new(hostile), &Default::default()).unwrap_err();
//! assert!(err.to_string().starts_with("byte 0: refuses posix.system: this pickle wants to call it"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Where to look: `vm` follows the opcodes, `globals` has the names that are known, `numpy` what
//! they make, `value` the arena that all values lie in, `walk` the check for cycles, `data` the
//! payloads, `array` and `element` the reading of them.

mod array;
mod data;
mod dict;
mod dtype;
mod element;
mod error;
mod globals;
mod item;
mod limits;
mod numpy;
mod opcode;
mod pickle;
mod reader;
mod stack;
mod text;
mod value;
mod vm;
mod walk;

pub use array::Array;
pub use dtype::{DType, Kind};
pub use error::{Error, ErrorKind, Result};
pub use item::Item;
pub use limits::Limits;
pub use pickle::{Pickle, load};
