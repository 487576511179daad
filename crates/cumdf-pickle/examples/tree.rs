//! Prints what a pickle holds, without running or reading it: `tree FILE`.

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};

use cumdf_pickle::{Item, Limits, load};

/// Values of a list or dict that are shown.
const MAX: usize = 12;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: tree FILE")?;
    let pickle = load(File::open(&path)?, &Limits::default())
        .map_err(|err| format!("{}: {err}", path.display()))?;
    print(&mut io::stdout().lock(), "", pickle.root(), 0)?;
    Ok(())
}

fn print(out: &mut impl Write, name: &str, item: Item<'_>, depth: usize) -> io::Result<()> {
    writeln!(out, "{:indent$}{name}{}", "", item.kind(), indent = 2 * depth)?;
    for (key, value) in item.entries().into_iter().flatten().take(MAX) {
        let name = key.text().map_or_else(|| key.kind(), |text| format!("{text:?}"));
        print(out, &format!("{name}: "), value, depth + 1)?;
    }
    for item in item.items().into_iter().flatten().take(MAX) {
        print(out, "", item, depth + 1)?;
    }
    Ok(())
}
