//! What is made from the grid: each table says which rows it wants under which views, and lays
//! them out.

pub mod figure3;
mod notes;
pub mod table1;
