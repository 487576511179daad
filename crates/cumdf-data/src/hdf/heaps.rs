//! Looks at the heaps of a file's groups before the HDF5 library does.
//!
//! In files of the older format (h5py's default) a group keeps its members' names in a heap, and the
//! heap's free places in a list. The library (2.0 and earlier) follows this list without looking for
//! circles, taking memory at every step: a wrong byte, and it takes all that the machine has. So the
//! groups that an import opens are found here, by code of our own that ends, and a file with such a
//! list is refused. What is not understood is passed over: the library has errors of its own.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Result, bail};

use super::chunks::{Source, number};
use super::limits::LARGEST_NAME_HEAP;

/// Groups inside groups: root, sequence, `data`, a video.
const DEPTH: usize = 3;
/// An address that leads nowhere; also the end of a list of free places is 1.
const NOWHERE: u64 = u64::MAX;
const LAST_FREE: u64 = 1;

/// Refuses a file in which a list of free places leads in a circle.
pub(crate) fn check(path: &Path) -> Result<()> {
    let Ok(source) = Source::at(path, 0) else { return Ok(()) };
    // The format allows other bytes before its own, up to any power of two from 512 on.
    let places = std::iter::successors(Some(512u64), |place| place.checked_mul(2));
    for base in std::iter::once(0).chain(places).take_while(|place| *place < source.len()) {
        let Some(head) = bytes(&source, base, 96) else { break };
        if !head.starts_with(b"\x89HDF\r\n\x1a\n") {
            continue;
        }
        let Ok(source) = Source::at(path, base) else { break };
        if head[8] <= 1 && source.is_wide() {
            // Version 1 has four bytes more before the addresses.
            let root = 64 + 4 * usize::from(head[8]);
            let mut walk = Walk { source: &source, base, seen: HashSet::new() };
            return walk.group(number(&head[root..root + 8]), 0);
        }
        break; // newer files keep names elsewhere
    }
    Ok(())
}

struct Walk<'a> {
    source: &'a Source,
    base: u64,
    /// Objects and nodes that were looked at: damaged files may lead in circles here too.
    seen: HashSet<u64>,
}

impl Walk<'_> {
    /// Looks at an object, if it is a group with a heap, and at the groups in it.
    fn group(&mut self, object: u64, depth: usize) -> Result<()> {
        if !self.seen.insert(object) {
            return Ok(());
        }
        let Some([tree, heap]) = self.symbol_table(object) else { return Ok(()) };
        self.heap(heap)?;
        if depth < DEPTH { self.tree(tree, depth) } else { Ok(()) }
    }

    /// The addresses of a group's index and heap, from its header's messages.
    fn symbol_table(&self, object: u64) -> Option<[u64; 2]> {
        let head = self.bytes(object, 16)?;
        if head[0] != 1 {
            return None;
        }
        let mut blocks = vec![(object.checked_add(16)?, number(&head[8..12]))];
        let mut next = 0;
        while let Some((at, len)) = blocks.get(next).copied() {
            next += 1;
            let block = self.bytes(at, len.min(1 << 16))?;
            let mut rest = &block[..];
            while let Some((message, tail)) = rest.split_at_checked(8) {
                let (kind, len) = (number(&message[..2]), number(&message[2..4]) as usize);
                let body = tail.get(..len)?;
                match kind {
                    0x11 if len >= 16 => return Some([number(&body[..8]), number(&body[8..16])]),
                    // The header goes on elsewhere.
                    0x10 if len >= 16 && blocks.len() < 64 => {
                        blocks.push((number(&body[..8]), number(&body[8..16])));
                    }
                    _ => {}
                }
                rest = &tail[len..];
            }
        }
        None
    }

    /// Follows a heap's list of free places.
    fn heap(&self, heap: u64) -> Result<()> {
        let Some(head) = self.bytes(heap, 32) else { return Ok(()) };
        let size = number(&head[8..16]);
        if !head.starts_with(b"HEAP") || size > LARGEST_NAME_HEAP {
            return Ok(());
        }
        let Some(data) = self.bytes(number(&head[24..32]), size) else { return Ok(()) };
        let mut free = number(&head[16..24]);
        let mut met = HashSet::new();
        while free != LAST_FREE && free != NOWHERE {
            if !met.insert(free) {
                bail!("a list of free places leads in a circle: the file is damaged");
            }
            let place = usize::try_from(free).ok().and_then(|free| data.get(free..)?.get(..8));
            let Some(place) = place else { return Ok(()) };
            free = number(place);
        }
        Ok(())
    }

    /// Looks at the members that an index leads to.
    fn tree(&mut self, node: u64, depth: usize) -> Result<()> {
        let mut nodes = vec![node];
        while let Some(node) = nodes.pop() {
            if !self.seen.insert(node) {
                continue;
            }
            let Some(head) = self.bytes(node, 8) else { continue };
            if head.starts_with(b"TREE") && head[4] == 0 {
                let n = number(&head[6..8]);
                let Some(body) = self.after(node, 24, n * 16 + 8) else { continue };
                // Keys and children take turns, a key first.
                nodes.extend(body[8..].chunks_exact(16).map(|pair| number(&pair[..8])));
            } else if head.starts_with(b"SNOD") {
                let n = number(&head[6..8]);
                let Some(body) = self.after(node, 8, n * 40) else { continue };
                for entry in body.chunks_exact(40) {
                    self.group(number(&entry[8..16]), depth + 1)?;
                }
            }
        }
        Ok(())
    }

    fn after(&self, address: u64, skip: u64, len: u64) -> Option<Vec<u8>> {
        self.bytes(address.checked_add(skip)?, len)
    }

    fn bytes(&self, address: u64, len: u64) -> Option<Vec<u8>> {
        bytes(self.source, self.base.checked_add(address)?, len)
    }
}

fn bytes(source: &Source, address: u64, len: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    source.read(address, len, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> Vec<u8> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/csd");
        std::fs::read(folder.join("CMU_MOSI_Opinion_Labels.csd")).unwrap()
    }

    #[test]
    fn every_circle_in_a_groups_heap_is_found() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("x.csd");
        let whole = fixture();
        std::fs::write(&path, &whole).unwrap();
        check(&path).unwrap();
        let mut heaps = 0;
        for at in 0..whole.len() {
            if !whole[at..].starts_with(b"HEAP\0\0\0\0") {
                continue;
            }
            heaps += 1;
            let mut bytes = whole.clone();
            let free = number(&bytes[at + 16..at + 24]);
            assert_ne!(free, LAST_FREE, "a heap without a free place");
            let place = (number(&bytes[at + 24..at + 32]) + free) as usize;
            bytes[place..place + 8].copy_from_slice(&free.to_le_bytes()); // its own successor
            std::fs::write(&path, &bytes).unwrap();
            let error = check(&path).unwrap_err().to_string();
            assert!(error.contains("leads in a circle"), "{error}");
        }
        // Root, sequence, data, metadata, and seven videos.
        assert_eq!(heaps, 11);
    }

    #[test]
    fn a_user_block_is_stepped_over() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("x.csd");
        let mut bytes = fixture();
        let at = bytes.windows(8).position(|window| window == b"HEAP\0\0\0\0").unwrap();
        let free = number(&bytes[at + 16..at + 24]);
        let place = (number(&bytes[at + 24..at + 32]) + free) as usize;
        bytes[place..place + 8].copy_from_slice(&free.to_le_bytes());
        std::fs::write(&path, [vec![7; 1024], bytes].concat()).unwrap();
        assert!(check(&path).is_err());
        std::fs::write(&path, [7; 3000]).unwrap();
        check(&path).unwrap();
        check(Path::new("/nowhere")).unwrap();
    }
}
