//! One value of a pickle, as callers see it.

use std::borrow::Cow;
use std::fmt;
use std::io::{Read, Seek};

use crate::array::Array;
use crate::data::not_utf8;
use crate::error::{Error, Result};
use crate::pickle::Pickle;
use crate::text;
use crate::value::{Id, Node};

/// One value of a [`Pickle`]. Copying it is free.
///
/// No value contains itself and none lies deeper than [`Limits::max_depth`](crate::Limits), so a
/// walk over the items may recurse, and it ends.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    pickle: &'a Pickle,
    id: Id,
}

impl<'a> Item<'a> {
    pub(crate) fn new(pickle: &'a Pickle, id: Id) -> Self {
        Self { pickle, id }
    }

    fn node(self) -> &'a Node {
        self.pickle.node(self.id)
    }

    /// What this is, for messages: `dict of 3`, `float64 array [1284, 50, 300]`.
    pub fn kind(&self) -> String {
        self.node().kind()
    }

    /// Whether this is `None`.
    pub fn is_none(&self) -> bool {
        matches!(self.node(), Node::None)
    }

    /// The value of a dict's key, which may be a str, or a str of Python 2.
    pub fn get(&self, key: &str) -> Option<Item<'a>> {
        match self.node() {
            Node::Dict(dict) => dict.get(key).map(|id| Item::new(self.pickle, id)),
            _ => None,
        }
    }

    /// Keys and values of a dict, in the order of the pickle.
    pub fn entries(&self) -> Option<impl ExactSizeIterator<Item = (Item<'a>, Item<'a>)> + use<'a>> {
        let pickle = self.pickle;
        let item = move |id| Item::new(pickle, id);
        match self.node() {
            Node::Dict(dict) => {
                Some(dict.pairs.iter().map(move |&(key, value)| (item(key), item(value))))
            }
            _ => None,
        }
    }

    /// The values of a list, a tuple or a set.
    pub fn items(&self) -> Option<impl ExactSizeIterator<Item = Item<'a>> + use<'a>> {
        let (pickle, node) = (self.pickle, self.node());
        match node {
            Node::List(_) | Node::Tuple(_) | Node::Set(_) => {
                let item =
                    move |i| Item::new(pickle, node.child(i).expect("i is below n_children"));
                Some((0..node.n_children()).map(item))
            }
            _ => None,
        }
    }

    /// The text of a str or bytes below [`Limits::inline_below`](crate::Limits) bytes; a longer
    /// one takes [`Self::read_text`].
    ///
    /// Bytes, which are also the strings of Python 2, are read as UTF-8 where they are that, as
    /// Latin-1 otherwise.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        match self.node() {
            Node::Str(data) | Node::Bytes(data) => data.inline().map(text::lenient),
            _ => None,
        }
    }

    /// The text of a str or bytes of any length; `None` if this is neither.
    ///
    /// - `reader`: the file that was decoded
    pub fn read_text<R: Read + Seek>(&self, reader: &mut R) -> Result<Option<String>> {
        let (Node::Str(data) | Node::Bytes(data)) = self.node() else { return Ok(None) };
        if let Some(bytes) = data.inline() {
            return Ok(Some(text::lenient(bytes).into_owned()));
        }
        let bytes = data.read_all(reader)?;
        match (self.node(), String::from_utf8(bytes)) {
            (_, Ok(text)) => Ok(Some(text)),
            (Node::Bytes(_), Err(err)) => Ok(Some(text::lenient(err.as_bytes()).into_owned())),
            _ => Err(not_utf8()),
        }
    }

    /// The bytes of bytes or a bytearray below [`Limits::inline_below`](crate::Limits).
    pub fn bytes(&self) -> Option<&'a [u8]> {
        match self.node() {
            Node::Bytes(data) => data.inline(),
            _ => None,
        }
    }

    /// The bytes of bytes or a bytearray of any length; `None` if this is neither.
    ///
    /// - `reader`: the file that was decoded
    pub fn read_bytes<R: Read + Seek>(&self, reader: &mut R) -> Result<Option<Vec<u8>>> {
        match self.node() {
            Node::Bytes(data) => data.read_all(reader).map(Some),
            _ => Ok(None),
        }
    }

    /// A bool, or a numpy one.
    pub fn bool(&self) -> Option<bool> {
        match self.node() {
            Node::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// An integer, or a numpy one, that an `i64` holds.
    pub fn integer(&self) -> Option<i64> {
        match self.node() {
            Node::Int(value) => i64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// A float, or a numpy one; an integer as the nearest float.
    pub fn float(&self) -> Option<f64> {
        match self.node() {
            Node::Float(value) => Some(*value),
            Node::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// A numpy array.
    pub fn array(&self) -> Option<Array<'a>> {
        match self.node() {
            Node::Array(stored) => Some(Array::new(stored, self.pickle)),
            _ => None,
        }
    }

    /// The value of a dict's key, or an error that names the keys that are there.
    pub fn require(&self, key: &str) -> Result<Item<'a>> {
        let missing = || {
            let keys = self.entries().into_iter().flatten().take(12);
            let keys: Vec<_> = keys.filter_map(|(key, _)| key.text()).collect();
            let kind = self.kind();
            Error::read(format!("no key {key:?} in a {kind}; it starts with {keys:?}"))
        };
        self.get(key).ok_or_else(missing)
    }
}

impl fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind())
    }
}
