//! Dicts and sets: pairs in the order of the pickle, and a map to find those with a plain key.

use std::collections::HashMap;
use std::sync::Arc;

use crate::data::Data;
use crate::error::{Error, Result};
use crate::value::{Arena, Id, Node};

/// The pairs of a dict; in a set, key and value are the same.
#[derive(Debug, Default)]
pub(crate) struct Dict {
    pub(crate) pairs: Vec<(Id, Id)>,
    index: HashMap<Key, u32>,
}

/// A key that is looked up; any other (a tuple, a float) is kept as often as it is written.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Key {
    Text(Arc<[u8]>),
    Bytes(Arc<[u8]>),
    Int(i128),
}

impl Dict {
    /// The value of a text, or of a Python 2 string of these bytes.
    pub(crate) fn get(&self, key: &str) -> Option<Id> {
        let key: Arc<[u8]> = key.as_bytes().into();
        let text = self.index.get(&Key::Text(key.clone()));
        let at = text.or_else(|| self.index.get(&Key::Bytes(key)));
        at.map(|&at| self.pairs[at as usize].1)
    }
}

impl Arena {
    /// Sets a key of the dict, or adds to the set, that `id` is.
    ///
    /// A key that is there keeps its place and gets the new value, as in Python.
    pub(crate) fn insert(&mut self, id: Id, key: Id, value: Id) -> Result<()> {
        let plain = match self.node(key) {
            Node::Str(Data::Inline(text)) => Some(Key::Text(text.clone())),
            Node::Bytes(Data::Inline(bytes)) => Some(Key::Bytes(bytes.clone())),
            Node::Int(int) => Some(Key::Int(*int)),
            Node::Bool(bool) => Some(Key::Int(i128::from(*bool))),
            Node::None | Node::Float(_) | Node::Str(_) | Node::Bytes(_) | Node::Tuple(_) => None,
            Node::Set(_) | Node::DType(_) | Node::Global(_) => None,
            other @ (Node::List(_) | Node::Dict(_) | Node::Array(_)) => {
                return Err(Error::malformed(format!("{} cannot be a key", other.kind())));
            }
        };
        let (Node::Dict(dict) | Node::Set(dict)) = self.node_mut(id) else {
            let found = self.node(id).kind();
            return Err(Error::malformed(format!("a key is set in {found}, which has none")));
        };
        if let Some(plain) = plain {
            let at = *dict.index.entry(plain).or_insert(dict.pairs.len() as u32);
            if let Some(pair) = dict.pairs.get_mut(at as usize) {
                pair.1 = value;
                return Ok(());
            }
        }
        dict.pairs.push((key, value));
        Ok(())
    }

    /// Sets keys and values, which take turns in `items`, of a dict.
    pub(crate) fn set_items(&mut self, dict: Id, items: &[Id]) -> Result<()> {
        let (pairs, odd) = items.as_chunks::<2>();
        if !odd.is_empty() || !matches!(self.node(dict), Node::Dict(_)) {
            let (n, kind) = (items.len(), self.node(dict).kind());
            return Err(Error::malformed(format!("{n} keys and values are set in {kind}")));
        }
        pairs.iter().try_for_each(|&[key, value]| self.insert(dict, key, value))
    }

    /// Adds items to a set.
    pub(crate) fn add_items(&mut self, set: Id, items: &[Id]) -> Result<()> {
        if !matches!(self.node(set), Node::Set(_)) {
            let kind = self.node(set).kind();
            return Err(Error::malformed(format!("items are added to {kind}")));
        }
        items.iter().try_for_each(|&item| self.insert(set, item, item))
    }

    /// Appends items to a list.
    pub(crate) fn append(&mut self, list: Id, items: &[Id]) -> Result<()> {
        match self.node_mut(list) {
            Node::List(list) => {
                list.extend(items);
                Ok(())
            }
            other => Err(Error::malformed(format!("an item is appended to {}", other.kind()))),
        }
    }
}
