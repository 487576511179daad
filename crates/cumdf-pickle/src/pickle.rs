//! A decoded pickle.

use std::fmt;
use std::io::{Read, Seek};

use crate::error::Result;
use crate::item::Item;
use crate::limits::Limits;
use crate::value::{Id, Node};
use crate::vm::Machine;
use crate::walk;

/// A decoded pickle: all its values, but the large payloads, which stay in the file.
pub struct Pickle {
    nodes: Vec<Node>,
    root: Id,
    protocol: u8,
}

/// Decodes the pickle that starts at the first byte of `reader`.
///
/// Payloads of [`Limits::inline_below`] bytes or more are passed over: an [`Array`](crate::Array)
/// reads them later, from this file or another handle of it. What follows the pickle is not
/// looked at.
///
/// Fails, with the byte where it was noticed, on anything that is not data: see the crate's top
/// comment. Nothing in the file is ever called.
pub fn load<R: Read + Seek>(reader: R, limits: &Limits) -> Result<Pickle> {
    let decoded = Machine::new(reader, limits)?.run()?;
    walk::check(&decoded.nodes, decoded.root, limits).map_err(|err| err.or_at(decoded.end))?;
    Ok(Pickle { nodes: decoded.nodes, root: decoded.root, protocol: decoded.protocol })
}

impl Pickle {
    /// The value that was pickled.
    pub fn root(&self) -> Item<'_> {
        Item::new(self, self.root)
    }

    /// The protocol of its header, 2 to 5; 0 stands for 0 and 1, which have none.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    pub(crate) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }
}

impl fmt::Debug for Pickle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pickle of protocol {}: {}", self.protocol, self.root().kind())
    }
}
