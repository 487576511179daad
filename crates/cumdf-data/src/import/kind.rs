//! What kind of file a path leads to, told by its first bytes.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Kinds of source that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A folder, of `.csd` files one hopes.
    Folder,
    /// HDF5: the native layout, a `.csd` file, or loose arrays.
    Hdf5,
    /// A Python pickle.
    Pickle,
    /// A manifest of arrays.
    Manifest,
    /// One numpy array.
    Npy,
    /// Several numpy arrays.
    Npz,
}

impl Kind {
    /// Looks into the file.
    ///
    /// # Errors
    /// When it cannot be read, or is of no kind that is of use here; the message says what it looks
    /// like and what to do.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        Self::sniff(path).with_context(|| path.display().to_string())
    }

    /// As [`Kind::of`], without the path in the message.
    pub(crate) fn sniff(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).context("cannot be opened")?;
        if metadata.is_dir() {
            return Ok(Self::Folder);
        }
        let mut head = Vec::new();
        let file = fs::File::open(path).context("cannot be opened")?;
        file.take(1024).read_to_end(&mut head).context("cannot be read")?;
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let text = String::from_utf8_lossy(&head).trim_start().to_ascii_lowercase();
        match &head[..] {
            [] => bail!("is empty; download it again"),
            [0x89, b'H', b'D', b'F', b'\r', b'\n', 0x1a, b'\n', ..] => Ok(Self::Hdf5),
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Ok(Self::Npy),
            [b'P', b'K', 3, 4, ..] if extension == "npz" => Ok(Self::Npz),
            [b'P', b'K', 3, 4, ..] => bail!(
                "is a zip archive; give the file in it, or name it .npz if it holds numpy arrays; a \
                 file of torch.save is not read: save its arrays with numpy"
            ),
            [0x1f, 0x8b, ..] => {
                bail!("is compressed by gzip; unpack it first: gunzip < FILE > UNPACKED")
            }
            [b'7', b'z', 0xbc, 0xaf, ..] => bail!("is a 7-zip archive; unpack it first"),
            [b'R', b'a', b'r', b'!', ..] => bail!("is a rar archive; unpack it first"),
            _ if text.starts_with("<!doctype") || text.starts_with("<html") => {
                bail!("is a web page, not data; the download saved the page that leads to the file")
            }
            _ if text.starts_with("version https://git-lfs") => {
                bail!("is a pointer of Git LFS, not the file itself; run git lfs pull")
            }
            _ if extension == "toml" => Ok(Self::Manifest),
            [0x80, 2..=5, ..] => Ok(Self::Pickle),
            // Protocols 0 and 1 have no mark: the first opcode is a mark, a container or a global.
            [b'(' | b'}' | b']' | b')' | b'c', ..] => Ok(Self::Pickle),
            _ if ["h5", "hdf5", "csd"].contains(&extension) => bail!(
                "is named .{extension} but is no HDF5 file; it may be damaged, download it again"
            ),
            _ => bail!(
                "is of no kind that is read here: a folder of .csd files, a pickle, a TOML \
                 manifest, .npy, .npz or HDF5; docs/import.md shows how to name arrays in a manifest"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_content_and_what_is_no_data_is_named() {
        let folder = tempfile::TempDir::new().unwrap();
        let kind = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            Kind::of(&path).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(Kind::of(folder.path()).unwrap(), Kind::Folder);
        assert_eq!(kind("a.pkl", b"\x80\x04\x95"), Ok(Kind::Pickle));
        assert_eq!(kind("a.h5", b"\x80\x04\x95"), Ok(Kind::Pickle));
        assert_eq!(kind("old.pkl", b"(dp0\n"), Ok(Kind::Pickle));
        assert_eq!(kind("a.csd", b"\x89HDF\r\n\x1a\n...."), Ok(Kind::Hdf5));
        assert_eq!(kind("a.npy", b"\x93NUMPY\x01"), Ok(Kind::Npy));
        assert_eq!(kind("a.npz", b"PK\x03\x04"), Ok(Kind::Npz));
        assert_eq!(kind("a.toml", b"name = 'x'"), Ok(Kind::Manifest));
        let refused = [
            ("empty.pkl", &b""[..], "is empty"),
            ("a.zip", b"PK\x03\x04", "zip archive"),
            ("a.gz", b"\x1f\x8b\x08", "gunzip"),
            ("page.pkl", b"\n<!DOCTYPE html><html>", "is a web page"),
            ("lfs.pkl", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
            ("noise.csd", b"\x07\x07\x07", "is named .csd but is no HDF5"),
            ("noise", b"\x07\x07\x07", "of no kind"),
        ];
        for (name, bytes, expected) in refused {
            let error = kind(name, bytes).unwrap_err();
            assert!(error.contains(expected) && error.contains(name), "{error}");
        }
        let error = format!("{:#}", Kind::of(&folder.path().join("absent")).unwrap_err());
        assert!(error.contains("absent: cannot be opened"), "{error}");
    }
}
