//! Decoded values: an arena of nodes that name one another by number.
//!
//! Numbers instead of boxes make a shared value free, a list that holds itself harmless, and
//! dropping a deep nesting a loop.

use std::borrow::Cow;

use crate::array::{Payload, Stored};
use crate::data::Data;
use crate::dict::Dict;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::globals::Global;
use crate::limits::Limits;
use crate::text;

/// The number of a node.
pub(crate) type Id = u32;

/// One value.
#[derive(Debug)]
pub(crate) enum Node {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Data),
    Bytes(Data),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Box<Dict>),
    Set(Box<Dict>),
    Array(Box<Stored>),
    DType(DType),
    Global(Global),
}

impl Node {
    /// How many values this one holds; a dict's keys count too.
    pub(crate) fn n_children(&self) -> usize {
        match self {
            Self::List(items) | Self::Tuple(items) => items.len(),
            Self::Dict(dict) => 2 * dict.pairs.len(),
            Self::Set(set) => set.pairs.len(),
            Self::Array(array) => match &array.payload {
                Payload::Bytes(_) => 0,
                Payload::Objects(items) => items.len(),
            },
            _ => 0,
        }
    }

    /// Value `i` of [`Self::n_children`]; in a dict, keys and values take turns.
    pub(crate) fn child(&self, i: usize) -> Option<Id> {
        match self {
            Self::List(items) | Self::Tuple(items) => items.get(i).copied(),
            Self::Dict(dict) => dict
                .pairs
                .get(i / 2)
                .map(|&(key, value)| if i.is_multiple_of(2) { key } else { value }),
            Self::Set(set) => set.pairs.get(i).map(|&(key, _)| key),
            Self::Array(array) => match &array.payload {
                Payload::Bytes(_) => None,
                Payload::Objects(items) => items.get(i).copied(),
            },
            _ => None,
        }
    }

    /// What this is, in a word or two.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::None => "none".into(),
            Self::Bool(_) => "bool".into(),
            Self::Int(_) => "int".into(),
            Self::Float(_) => "float".into(),
            Self::Str(data) => format!("str of {} bytes", data.stored_len()),
            Self::Bytes(data) => format!("bytes of {}", data.stored_len()),
            Self::List(items) => format!("list of {}", items.len()),
            Self::Tuple(items) => format!("tuple of {}", items.len()),
            Self::Dict(dict) => format!("dict of {}", dict.pairs.len()),
            Self::Set(set) => format!("set of {}", set.pairs.len()),
            Self::Array(array) => format!("{} array {:?}", array.dtype, array.shape),
            Self::DType(dtype) => format!("dtype {dtype}"),
            Self::Global(global) => format!("the name {}", global.name()),
        }
    }
}

/// All values of a decode, and what may still be spent on more.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(crate) nodes: Vec<Node>,
    n_spent: usize,
    n_bytes: usize,
    max_nodes: usize,
    max_bytes: usize,
}

/// Nodes that every arena starts with.
pub(crate) const NONE: Id = 0;
pub(crate) const FALSE: Id = 1;
pub(crate) const TRUE: Id = 2;

impl Arena {
    pub(crate) fn new(limits: &Limits) -> Self {
        let nodes = vec![Node::None, Node::Bool(false), Node::Bool(true)];
        let (max_nodes, max_bytes) = (limits.max_nodes.min(1 << 31), limits.max_inline_bytes);
        Self { nodes, n_spent: 0, n_bytes: 0, max_nodes, max_bytes }
    }

    /// Accounts for `n` uses of a value: a place on the stack, in a list, in a copy.
    pub(crate) fn spend(&mut self, n: usize) -> Result<()> {
        self.n_spent = self.n_spent.saturating_add(n);
        if self.n_spent <= self.max_nodes {
            return Ok(());
        }
        let limit = self.max_nodes as u64;
        Err(ErrorKind::Limit { name: "max_nodes", what: "values", limit }.into())
    }

    /// Accounts for `n` bytes held in memory.
    pub(crate) fn spend_bytes(&mut self, n: usize) -> Result<()> {
        self.n_bytes = self.n_bytes.saturating_add(n);
        if self.n_bytes <= self.max_bytes { Ok(()) } else { Err(self.too_many_bytes()) }
    }

    pub(crate) fn bytes_left(&self) -> usize {
        self.max_bytes.saturating_sub(self.n_bytes)
    }

    pub(crate) fn too_many_bytes(&self) -> Error {
        let limit = self.max_bytes as u64;
        let what = "bytes of text and payloads to hold in memory";
        ErrorKind::Limit { name: "max_inline_bytes", what, limit }.into()
    }

    /// Adds a node; the caller has spent it.
    pub(crate) fn add(&mut self, node: Node) -> Id {
        self.nodes.push(node);
        (self.nodes.len() - 1) as Id // every node is spent, so below 2^31
    }

    pub(crate) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    pub(crate) fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    /// The text of a str, or of a Python 2 string.
    pub(crate) fn text(&self, id: Id) -> Option<Cow<'_, str>> {
        match self.node(id) {
            Node::Str(data) | Node::Bytes(data) => data.inline().map(text::lenient),
            _ => None,
        }
    }

    /// An integer, where Python would take a bool too.
    pub(crate) fn int(&self, id: Id) -> Option<i128> {
        match self.node(id) {
            Node::Int(int) => Some(*int),
            Node::Bool(bool) => Some(i128::from(*bool)),
            _ => None,
        }
    }
}
