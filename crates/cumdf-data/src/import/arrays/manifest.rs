//! A TOML manifest, which names the arrays of a data set. `docs/import.md` shows one.

use std::fs;
use std::path::{Path, PathBuf};
use std::{collections::HashSet, fmt};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::import::assemble::RawTask;
use crate::{Modality, Split};

/// A manifest whose values make sense and whose files are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The manifest itself; the paths in it start from its folder.
    pub(crate) path: PathBuf,
    /// The data set's name.
    pub(crate) name: String,
    pub(crate) task: RawTask,
    /// Train, valid and test.
    pub(crate) splits: [Entry; 3],
}

/// The arrays of one split.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    language: Option<Place>,
    audio: Option<Place>,
    vision: Option<Place>,
    /// `[N]` scores or class numbers, or `[N, C]` flags.
    pub(crate) label: Place,
    /// Used steps `[N]`.
    pub(crate) length: Option<Length>,
    /// Names `[N]`.
    pub(crate) id: Option<Place>,
}

impl Entry {
    /// `[N, T, d]`, or `[N, d]` where the modality is of the whole utterance.
    pub(crate) fn features(&self) -> [Option<&Place>; 3] {
        [&self.language, &self.audio, &self.vision].map(Option::as_ref)
    }

    /// Every array, under its key.
    pub(crate) fn places(&self) -> Vec<(String, &Place)> {
        let features = Modality::ALL.into_iter().zip(self.features());
        let features = features.filter_map(|(m, place)| Some((m.name().to_owned(), place?)));
        let mut places: Vec<_> = features.collect();
        places.push(("label".to_owned(), &self.label));
        match &self.length {
            None => {}
            Some(Length::Common(place)) => places.push(("length".to_owned(), place)),
            Some(Length::Each(each)) => {
                let each = Modality::ALL.into_iter().zip(each);
                places.extend(each.filter_map(|(m, p)| Some((format!("length.{m}"), p.as_ref()?))));
            }
        }
        places.extend(self.id.as_ref().map(|place| ("id".to_owned(), place)));
        places
    }
}

/// An array, and the file it is in: `"text.npy"` or `{ file = "all.npz", array = "text" }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: PathBuf,
    /// Its name in the file; not needed where the file has only one.
    pub(crate) array: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        self.array.iter().try_for_each(|array| write!(f, ", {array}"))
    }
}

/// Where the used steps are told: once for all modalities, or for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Length {
    Common(Place),
    Each([Option<Place>; 3]),
}

/// The file, word for word.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    name: String,
    task: Kind,
    range: Option<[i64; 2]>,
    classes: Option<Vec<String>>,
    train: Entry,
    valid: Entry,
    test: Entry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Sentiment,
    Emotion,
}

impl Manifest {
    /// Reads the manifest at `path` and reports everything that is wrong with it. The arrays are
    /// not opened, only looked for.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let read = || -> Result<Self> {
            let text = fs::read_to_string(path).context("cannot be read")?;
            let text: Text = toml::from_str(&text)?;
            let problems = text.problems(&folder_of(path));
            match &problems[..] {
                [] => {}
                [problem] => bail!("{problem}"),
                _ => bail!("{} bad values\n  {}", problems.len(), problems.join("\n  ")),
            }
            let task = match text.task {
                Kind::Sentiment => RawTask::Sentiment { range: text.range },
                Kind::Emotion => RawTask::Emotion { classes: text.classes.unwrap_or_default() },
            };
            let splits = [text.train, text.valid, text.test];
            Ok(Self { path: path.to_owned(), name: text.name, task, splits })
        };
        read().with_context(|| path.display().to_string())
    }

    /// The folder from which its paths start.
    pub(crate) fn folder(&self) -> PathBuf {
        folder_of(&self.path)
    }

    /// Every file it names, once, in the order of the first mention.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut seen = HashSet::new();
        let places = self.splits.iter().flat_map(Entry::places);
        places
            .map(|(_, place)| self.folder().join(&place.file))
            .filter(|file| seen.insert(file.clone()))
            .collect()
    }
}

impl Text {
    fn problems(&self, folder: &Path) -> Vec<String> {
        let mut problems = Vec::new();
        let mut bad = |is_bad: bool, problem: &str| {
            if is_bad {
                problems.push(problem.to_owned());
            }
        };
        let sentiment = self.task == Kind::Sentiment;
        let classes = self.classes.as_deref().unwrap_or_default();
        let distinct: HashSet<_> = classes.iter().collect();
        bad(self.name.is_empty(), "name: is empty; write the data set's name");
        bad(!sentiment && self.range.is_some(), "range: is for task = \"sentiment\"; drop it");
        bad(sentiment && self.classes.is_some(), "classes: are for task = \"emotion\"; drop them");
        bad(
            !sentiment && classes.len() < 2,
            &format!(
                "classes: names {}, an emotion task needs 2 or more: classes = [\"happy\", \"sad\"]",
                classes.len()
            ),
        );
        bad(
            distinct.len() < classes.len() || classes.iter().any(String::is_empty),
            &format!("classes: {classes:?} has an empty or a repeated name"),
        );
        if let Some([lo, hi]) = self.range {
            bad(lo >= hi, &format!("range: is [{lo}, {hi}]; the first must be the lower"));
        }
        for (split, entry) in Split::ALL.into_iter().zip([&self.train, &self.valid, &self.test]) {
            bad(
                entry.features().iter().all(Option::is_none),
                &format!("{split}: names no features; give language, audio or vision"),
            );
            for (key, place) in entry.places() {
                let file = folder.join(&place.file);
                let what = if file.is_dir() { "a folder" } else { "no file" };
                let problem = format!(
                    "{split}.{key}: {} is {what}; paths start from the manifest's folder, {}",
                    place.file.display(),
                    folder.display()
                );
                bad(!file.is_file(), &problem);
            }
        }
        problems
    }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A place written as a table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlaceTable {
    file: PathBuf,
    array: Option<String>,
}

/// A length written as a table: of a place, or of places.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LengthTable {
    file: Option<PathBuf>,
    array: Option<String>,
    language: Option<Place>,
    audio: Option<Place>,
    vision: Option<Place>,
}

// By hand, because the errors of `#[serde(untagged)]` name neither the misspelt key nor its line.
impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PlaceVisitor;

        impl<'de> Visitor<'de> for PlaceVisitor {
            type Value = Place;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or { file = \"..\", array = \"..\" }")
            }

            fn visit_str<E: Error>(self, file: &str) -> Result<Place, E> {
                Ok(Place { file: file.into(), array: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Place, A::Error> {
                let PlaceTable { file, array } =
                    Deserialize::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Place { file, array })
            }
        }

        deserializer.deserialize_any(PlaceVisitor)
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LengthVisitor;

        impl<'de> Visitor<'de> for LengthVisitor {
            type Value = Length;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a path, { file = \"..\", array = \"..\" }, or one of these for each modality",
                )
            }

            fn visit_str<E: Error>(self, file: &str) -> Result<Length, E> {
                Ok(Length::Common(Place { file: file.into(), array: None }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Length, A::Error> {
                let table = LengthTable::deserialize(MapAccessDeserializer::new(map))?;
                let each = [table.language, table.audio, table.vision];
                match (table.file, table.array, each.iter().flatten().count()) {
                    (Some(file), array, 0) => Ok(Length::Common(Place { file, array })),
                    (None, None, 1..) => Ok(Length::Each(each)),
                    _ => Err(A::Error::custom(
                        "expected either file and array, or some of language, audio and vision",
                    )),
                }
            }
        }

        deserializer.deserialize_any(LengthVisitor)
    }
}
