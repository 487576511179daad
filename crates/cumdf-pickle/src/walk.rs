//! The check after a decode: no value contains itself, and a walk over all of them soon ends.

use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::value::{Id, Node};

/// What is known of a node.
#[derive(Clone, Copy)]
enum Mark {
    New,
    /// On the path from the root to here.
    Open,
    /// Done: levels below and including it, and nodes that a walk from it meets.
    Done {
        height: u32,
        size: u64,
    },
}

/// A node on the path, and how far its values have been gone through.
struct Step {
    id: Id,
    next: usize,
    height: u32,
    size: u64,
}

/// Goes once over everything below `root`, without recursion.
pub(crate) fn check(nodes: &[Node], root: Id, limits: &Limits) -> Result<()> {
    let mut marks = vec![Mark::New; nodes.len()];
    let mut path = vec![Step { id: root, next: 0, height: 0, size: 1 }];
    marks[root as usize] = Mark::Open;
    while let Some(step) = path.last_mut() {
        let node = &nodes[step.id as usize];
        if let Some(child) = node.child(step.next) {
            match marks[child as usize] {
                Mark::New => {
                    marks[child as usize] = Mark::Open;
                    path.push(Step { id: child, next: 0, height: 0, size: 1 });
                }
                Mark::Open => {
                    let kind = nodes[child as usize].kind();
                    return Err(Error::malformed(format!(
                        "a value contains itself ({kind}), so there would be no end to reading it"
                    )));
                }
                Mark::Done { height, size } => {
                    step.next += 1;
                    step.height = step.height.max(height);
                    step.size = step.size.saturating_add(size);
                }
            }
            continue;
        }
        let (height, size) = (step.height + 1, step.size);
        if height > limits.max_depth {
            let limit = u64::from(limits.max_depth);
            let what = "values inside one another";
            return Err(ErrorKind::Limit { name: "max_depth", what, limit }.into());
        }
        if size > limits.max_walk {
            let (what, limit) = ("values with shared ones written out", limits.max_walk);
            return Err(ErrorKind::Limit { name: "max_walk", what, limit }.into());
        }
        marks[step.id as usize] = Mark::Done { height, size };
        path.pop();
    }
    Ok(())
}
