//! Which video belongs to which split: CMU-MultimodalSDK's folds files, or JSON.
//!
//! The SDK keeps its folds as Python, `standard_train_fold=['hh04W3xXa5s', ...]`. Such a file is
//! read here, never run: assignments of lists, tuples or sets of string literals are understood,
//! and what else a file does to a fold is refused.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::Split;

/// The videos of train, valid and test, in their order in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folds {
    /// One list per split, in the order of [`Split::ALL`].
    pub videos: [Vec<String>; 3],
    /// Videos that stood twice in the same fold, and now stand once.
    pub repeated: Vec<String>,
}

impl Folds {
    /// Reads the folds from one file or from several that complete each other.
    ///
    /// # Errors
    /// When a file cannot be understood, a fold is missing, empty or given twice, or a video is in
    /// two of them.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        ensure!(
            !paths.is_empty(),
            "no folds given and none in the folder: name with --folds the SDK's own folds file \
             (cmu_mosi_std_folds.py, in its repository) or a JSON file of the videos in train, \
             valid and test"
        );
        let mut lists: [Option<Vec<String>>; 3] = Default::default();
        for path in paths {
            let read = read(path).with_context(|| path.display().to_string())?;
            for (split, videos) in read {
                let list = &mut lists[split.index()];
                ensure!(list.is_none(), "{}: {split} is given a second time", path.display());
                *list = Some(videos);
            }
        }
        let shown = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        Self::new(lists).with_context(|| shown.join(", "))
    }

    fn new(lists: [Option<Vec<String>>; 3]) -> Result<Self> {
        let mut videos: [Vec<String>; 3] = Default::default();
        let mut repeated = Vec::new();
        let mut owner: HashMap<String, Split> = HashMap::new();
        for (split, list) in Split::ALL.into_iter().zip(lists) {
            let list = list.with_context(|| {
                format!("no {split} fold; expected `{split}` or `standard_{split}_fold`")
            })?;
            ensure!(!list.is_empty(), "the {split} fold is empty");
            for video in list {
                ensure!(!video.is_empty(), "the {split} fold names a video without a name");
                match owner.insert(video.clone(), split) {
                    None => videos[split.index()].push(video),
                    Some(first) if first == split => repeated.push(video),
                    Some(first) => bail!("video {video} is in both {first} and {split}"),
                }
            }
        }
        Ok(Self { videos, repeated })
    }
}

/// The split of a fold's name, in Python or JSON.
fn split_of(name: &str) -> Option<Split> {
    let name = name.strip_prefix("standard_").unwrap_or(name);
    match name.strip_suffix("_fold").unwrap_or(name) {
        "train" => Some(Split::Train),
        "valid" | "dev" | "val" => Some(Split::Valid),
        "test" => Some(Split::Test),
        _ => None,
    }
}

fn read(path: &Path) -> Result<Vec<(Split, Vec<String>)>> {
    /// Folds of the largest sets have some 50 KB.
    const MOST_BYTES: u64 = 1 << 26;
    let bytes = fs::metadata(path).context("cannot be opened")?.len();
    ensure!(bytes <= MOST_BYTES, "has {bytes} bytes: too large to be a list of folds");
    let text = fs::read_to_string(path).context("is no text")?;
    let text = text.trim_start_matches('\u{feff}');
    if text.trim_start().starts_with('{') { json(text) } else { python(text) }
}

fn json(text: &str) -> Result<Vec<(Split, Vec<String>)>> {
    let Value::Object(members) = serde_json::from_str(text).context("is no JSON")? else {
        bail!("is no JSON object of train, valid and test");
    };
    let mut folds = Vec::new();
    for (name, list) in members {
        let Some(split) = split_of(&name) else { continue };
        let videos = list.as_array().and_then(|list| {
            list.iter().map(|video| video.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        folds.push((split, videos.with_context(|| format!("`{name}` is no list of strings"))?));
    }
    Ok(folds)
}

/// One token of Python, as far as folds need it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Name(String),
    /// `None` for what no fold may hold: bytes, f-strings.
    Text(Option<String>),
    Sign(char),
}

fn python(text: &str) -> Result<Vec<(Split, Vec<String>)>> {
    let mut folds = Vec::new();
    let mut lexer = Lexer { rest: text, line: 1 };
    while let Some((line, indented, tokens)) = lexer.statement()? {
        let Some(Token::Name(name)) = tokens.first() else { continue };
        let Some(split) = split_of(name) else { continue };
        let value = match &tokens[1..] {
            [Token::Sign('='), value @ ..]
                if !indented && value.first() != Some(&Token::Sign('=')) =>
            {
                value
            }
            _ => bail!(
                "line {line} does something to {name} that is not understood here; only \
                 assignments of lists of strings are, so write the folds as JSON"
            ),
        };
        let videos = list(value).with_context(|| {
            format!("line {line}: {name} is no list of plain strings; write the folds as JSON")
        })?;
        ensure!(
            folds.iter().all(|(earlier, _)| *earlier != split),
            "line {line} assigns the {split} fold a second time"
        );
        folds.push((split, videos));
    }
    Ok(folds)
}

/// The strings of a list, tuple or set literal.
fn list(mut tokens: &[Token]) -> Option<Vec<String>> {
    while let [rest @ .., Token::Sign(';')] = tokens {
        tokens = rest;
    }
    let inner = match tokens {
        [Token::Sign('['), inner @ .., Token::Sign(']')]
        | [Token::Sign('('), inner @ .., Token::Sign(')')]
        | [Token::Sign('{'), inner @ .., Token::Sign('}')] => inner,
        bare if bare.contains(&Token::Sign(',')) => bare, // a tuple needs no brackets
        _ => return None,
    };
    let mut items: Vec<&[Token]> = inner.split(|token| *token == Token::Sign(',')).collect();
    if items.last().is_some_and(|last| last.is_empty()) {
        items.pop(); // after a trailing comma, or of an empty list
    }
    // A string in brackets alone is a string in Python: `('a')`.
    if tokens.first() == Some(&Token::Sign('('))
        && !inner.is_empty()
        && !inner.contains(&Token::Sign(','))
    {
        return None;
    }
    let text = |item: &[Token]| -> Option<String> {
        let parts = item.iter().map(|token| match token {
            Token::Text(Some(text)) => Some(text.as_str()),
            _ => None,
        });
        let parts = parts.collect::<Option<Vec<_>>>()?; // 'a' 'b' is 'ab'
        (!parts.is_empty()).then(|| parts.concat())
    };
    items.into_iter().map(text).collect()
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

impl Lexer<'_> {
    /// The next logical line: where it starts, whether it is indented, its tokens.
    fn statement(&mut self) -> Result<Option<(usize, bool, Vec<Token>)>> {
        let mut tokens = Vec::new();
        let (mut start, mut indented, mut depth) = (self.line, false, 0usize);
        loop {
            let Some(c) = self.rest.chars().next() else {
                ensure!(depth == 0, "a bracket opened in line {start} is never closed");
                return Ok((!tokens.is_empty()).then_some((start, indented, tokens)));
            };
            match c {
                '\n' => {
                    self.take(1);
                    if depth == 0 && !tokens.is_empty() {
                        return Ok(Some((start, indented, tokens)));
                    }
                    if tokens.is_empty() {
                        indented = false;
                    }
                    continue;
                }
                '#' => {
                    let end = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.take(end);
                    continue;
                }
                '\\' if self.rest[1..].trim_start_matches('\r').starts_with('\n') => {
                    self.take(self.rest.find('\n').map_or(1, |end| end + 1));
                    continue;
                }
                c if c.is_whitespace() => {
                    indented |= tokens.is_empty() && c != '\r';
                    self.take(c.len_utf8());
                    continue;
                }
                _ => {}
            }
            if tokens.is_empty() {
                start = self.line;
            }
            match c {
                ';' if depth == 0 => {
                    self.take(1);
                    if !tokens.is_empty() {
                        return Ok(Some((start, indented, tokens)));
                    }
                }
                '\'' | '"' => tokens.push(self.string("")?),
                c if c.is_alphabetic() || c == '_' => {
                    let word = |c: char| !(c.is_alphanumeric() || c == '_');
                    let end = self.rest.find(word).unwrap_or(self.rest.len());
                    let name = self.rest[..end].to_owned();
                    self.take(end);
                    if name.len() <= 2
                        && name.chars().all(|c| "rRbBuUfF".contains(c))
                        && self.rest.starts_with(['\'', '"'])
                    {
                        tokens.push(self.string(&name.to_ascii_lowercase())?);
                    } else {
                        tokens.push(Token::Name(name));
                    }
                }
                c => {
                    match c {
                        '(' | '[' | '{' => depth += 1,
                        ')' | ']' | '}' => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                    tokens.push(Token::Sign(c));
                    self.take(c.len_utf8());
                }
            }
        }
    }

    /// A string literal, which starts here with its quotes.
    fn string(&mut self, prefix: &str) -> Result<Token> {
        let start = self.line;
        let quote = &self.rest[..1];
        let triple = quote.repeat(3);
        let quote = if self.rest.starts_with(&triple) { triple } else { quote.to_owned() };
        self.take(quote.len());
        let unclosed = || format!("a string opened in line {start} is never closed");
        let mut text = String::new();
        loop {
            if self.rest.starts_with(&quote) {
                self.take(quote.len());
                let plain = !prefix.contains(['b', 'f']);
                return Ok(Token::Text(plain.then_some(text)));
            }
            let c = self.rest.chars().next().with_context(unclosed)?;
            ensure!(c != '\n' || quote.len() == 3, unclosed());
            self.take(c.len_utf8());
            if c != '\\' {
                text.push(c);
                continue;
            }
            let escaped = self.rest.chars().next().with_context(unclosed)?;
            self.take(escaped.len_utf8());
            if prefix.contains('r') {
                text.extend(['\\', escaped]);
                continue;
            }
            match escaped {
                '\n' => {}
                '\\' | '\'' | '"' => text.push(escaped),
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'x' | 'u' | 'U' => {
                    let digits = match escaped {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    let code = self.rest.get(..digits);
                    let code = code.and_then(|code| u32::from_str_radix(code, 16).ok());
                    let known = code.and_then(char::from_u32);
                    text.push(known.with_context(|| format!("line {start}: a broken escape"))?);
                    self.take(digits);
                }
                other => bail!("line {start}: the escape \\{other} is not understood here"),
            }
        }
    }

    fn take(&mut self, bytes: usize) {
        self.line += self.rest[..bytes].matches('\n').count();
        self.rest = &self.rest[bytes..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str, text: &str) -> Result<Folds> {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        Folds::open(&[path])
    }

    fn error(text: &str) -> String {
        format!("{:#}", open("folds.py", text).unwrap_err())
    }

    const OTHERS: &str = "\nstandard_valid_fold=['v']\nstandard_test_fold=['t']\n";

    #[test]
    fn python_folds_are_read_as_python_reads_them() {
        let text = r#"#!/usr/bin/env python
# standard_train_fold = ['no']
'''A docstring: standard_train_fold = ["no"]
'''
import sys; from os import (path,
    sep)
standard_train_fold = ['a-1', "b'2", # 'x',
    'c\'3', r'd\4', u"e" 'f', '\x41\u00e9',
    'a-1',
]
other = {"x": [1, 2]}
standard_valid_fold \
    = ("v",)
if True:
    print(len(standard_train_fold))
standard_test_fold={'t1', 't2'}; x = 1
"#;
        let folds = open("folds.py", &text.replace('\n', "\r\n")).unwrap();
        assert_eq!(folds.videos[0], ["a-1", "b'2", "c'3", "d\\4", "ef", "Aé"]);
        assert_eq!(folds.videos[1..], [vec!["v"], vec!["t1", "t2"]]);
        assert_eq!(folds.repeated, ["a-1"]);
        assert_eq!(open("folds.py", text).unwrap(), folds);
    }

    #[test]
    fn json_folds_have_either_kind_of_name() {
        let short = open("x.json", r#"{"train": ["a"], "dev": ["b"], "test": ["c"], "x": 1}"#);
        let long = r#"{"standard_train_fold": ["a"], "standard_valid_fold": ["b"],
            "standard_test_fold": ["c"]}"#;
        assert_eq!(short.unwrap(), open("x.json", long).unwrap());
    }

    #[test]
    fn folds_that_cannot_be_right_are_refused() {
        let cases = [
            ("standard_train_fold=['a', 'v']", "video v is in both train and valid"),
            ("standard_train_fold=[]", "the train fold is empty"),
            ("standard_train_fold=()", "the train fold is empty"),
            ("", "no train fold; expected `train` or `standard_train_fold`"),
            ("standard_train_fold=['a']\nstandard_train_fold+=['b']", "line 2 does something"),
            ("standard_train_fold=['a']\nstandard_train_fold.append('b')", "line 2 does something"),
            ("if x:\n  standard_train_fold=['a']", "line 2 does something to standard_train_fold"),
            ("standard_train_fold=['a']\nstandard_train_fold=['b']", "a second time"),
            ("standard_train_fold=['a'] + ['b']", "line 1: standard_train_fold is no list"),
            ("standard_train_fold=[a]", "is no list of plain strings"),
            ("standard_train_fold=[b'a']", "is no list of plain strings"),
            ("standard_train_fold=[f'a']", "is no list of plain strings"),
            ("standard_train_fold=[['a']]", "is no list of plain strings"),
            ("standard_train_fold=['a',,'b']", "is no list of plain strings"),
            ("standard_train_fold=('a')", "is no list of plain strings"),
            ("standard_train_fold=open('x').read()", "is no list of plain strings"),
            ("standard_train_fold=['a", "a string opened in line 1 is never closed"),
            ("x = '''", "a string opened in line 1 is never closed"),
            ("standard_train_fold=['\\q']", "the escape \\q is not understood"),
            ("standard_train_fold=['\\xg1']", "a broken escape"),
        ];
        for (text, expected) in cases {
            let found = error(&format!("{text}{OTHERS}"));
            assert!(found.contains(expected), "{text}: {found}");
        }
        assert!(error("standard_train_fold=['a',").contains("line 1 is never closed"));
        let twice = r#"{"valid": ["a"], "dev": ["b"], "train": ["c"], "test": ["d"]}"#;
        let found = format!("{:#}", open("x.json", twice).unwrap_err());
        assert!(found.contains("valid is given a second time"), "{found}");
        let found = format!("{:#}", open("x.json", r#"{"train": [1]}"#).unwrap_err());
        assert!(found.contains("`train` is no list of strings"), "{found}");
        assert!(Folds::open(&[]).is_err() && Folds::open(&["/nowhere".into()]).is_err());
    }

    #[test]
    fn no_text_breaks_the_reader() {
        use rand_chacha::rand_core::{Rng, SeedableRng};
        let pieces = [
            "standard_train_fold",
            "=",
            "[",
            "]",
            "(",
            "'",
            "\"",
            "'''",
            "\\",
            "\n",
            "#",
            ",",
            " ",
            "é",
            "\\x",
            "\\u00",
            "u",
            "rb",
            ";",
            "\r",
            "a",
            "\0",
        ];
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        for _ in 0..20_000 {
            let n = rng.next_u32() % 12;
            let text: String =
                (0..n).map(|_| pieces[rng.next_u32() as usize % pieces.len()]).collect();
            let _ = python(&text); // an error or not, but no panic
        }
    }
}
