//! The program as people meet it, on toy data sets; and the writers of tables.

mod artefacts;
mod common;
mod report;
mod sweep;
mod table1;
mod writers;
