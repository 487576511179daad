//! Checks that the configurations of several networks share: each adds a line per bad value.

/// Largest size of a layer; more is a typing error, and would ask for gigabytes.
const LARGEST_SIZE: i64 = 8192;

/// Wants `value` to be the size of a layer.
pub(crate) fn size(problems: &mut Vec<String>, key: &str, value: i64) {
    at_most(problems, key, value, LARGEST_SIZE);
}

/// Wants `value` to lie between 1 and `largest`.
pub(crate) fn at_most(problems: &mut Vec<String>, key: &str, value: i64, largest: i64) {
    if !(1..=largest).contains(&value) {
        problems.push(format!("model.{key} = {value}: must lie between 1 and {largest}"));
    }
}

/// Wants `value` to be a drop probability.
pub(crate) fn dropout(problems: &mut Vec<String>, key: &str, value: f64) {
    if !(0.0..1.0).contains(&value) {
        problems.push(format!("model.{key} = {value}: must lie in [0, 1)"));
    }
}
