//! The stack of a decode, its marks and its memo.

use std::collections::HashMap;

use crate::error::{Error, ErrorKind, Result};
use crate::value::Id;

/// Values that opcodes leave for the next ones. Nothing below the last mark can be taken.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    ids: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
}

impl Stack {
    pub(crate) fn push(&mut self, id: Id) {
        self.ids.push(id);
    }

    pub(crate) fn mark(&mut self) {
        self.marks.push(self.ids.len());
    }

    /// The values above the last mark.
    pub(crate) fn above(&self) -> &[Id] {
        &self.ids[self.marks.last().copied().unwrap_or(0)..]
    }

    pub(crate) fn top(&self) -> Result<Id> {
        self.above().last().copied().ok_or_else(empty)
    }

    pub(crate) fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.ids.pop();
        Ok(top)
    }

    /// The last `n` values.
    pub(crate) fn pop_n(&mut self, n: usize) -> Result<Vec<Id>> {
        if self.above().len() < n {
            return Err(empty());
        }
        Ok(self.ids.split_off(self.ids.len() - n))
    }

    /// Everything above the last mark, and the mark.
    pub(crate) fn pop_mark(&mut self) -> Result<Vec<Id>> {
        let from = self.marks.pop().ok_or_else(|| Error::malformed("no mark on the stack"))?;
        Ok(self.ids.split_off(from))
    }

    /// Drops a value, or the mark where there is none above it.
    pub(crate) fn drop_one(&mut self) -> Result<()> {
        if self.above().is_empty() && self.marks.pop().is_some() {
            return Ok(());
        }
        self.pop().map(|_| ())
    }
}

fn empty() -> Error {
    Error::malformed("a value is taken from an empty stack")
}

/// Values that the pickle has numbered in order to use them again.
#[derive(Debug)]
pub(crate) struct Memo {
    ids: HashMap<u32, Id>,
    max: usize,
}

impl Memo {
    pub(crate) fn new(max: usize) -> Self {
        Self { ids: HashMap::new(), max }
    }

    /// The number that protocol 4 gives to the next value.
    pub(crate) fn next(&self) -> u32 {
        self.ids.len() as u32 // below 2^32, since keys are u32, but for a full memo
    }

    pub(crate) fn put(&mut self, key: u32, id: Id) -> Result<()> {
        self.ids.insert(key, id);
        if self.ids.len() <= self.max {
            return Ok(());
        }
        let (what, limit) = ("numbered values", self.max as u64);
        Err(ErrorKind::Limit { name: "max_memo", what, limit }.into())
    }

    pub(crate) fn get(&self, key: u32) -> Result<Id> {
        let missing = || Error::malformed(format!("value {key} is used, but never made"));
        self.ids.get(&key).copied().ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_below_a_mark_is_taken() {
        let mut stack = Stack::default();
        stack.push(1);
        stack.mark();
        assert!(stack.top().is_err() && stack.pop().is_err() && stack.pop_n(1).is_err());
        stack.push(2);
        stack.push(3);
        assert_eq!(stack.pop_n(2).unwrap(), [2, 3]);
        stack.drop_one().unwrap(); // the mark
        stack.drop_one().unwrap(); // the 1
        assert!(stack.drop_one().is_err() && stack.pop_mark().is_err());
    }
}
