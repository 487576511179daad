//! What is made from the grid: each table says which rows it wants under which views, and lays
//! them out.

pub mod table1;
