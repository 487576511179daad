//! Pickled packs: a dict of splits, each a dict of arrays, in the names of three projects.
//!
//! | | language | audio | vision | label |
//! | --- | --- | --- | --- | --- |
//! | MMSA, `aligned_50.pkl` (Mao et al., ACL 2022) | `text` | `audio` | `vision` | `regression_labels` |
//! | MulT, `mosi_data.pkl` (Tsai et al., ACL 2019) | `text` | `audio` | `vision` | `labels` |
//! | LMF, `mosi.pkl` (Liu et al., ACL 2018) | `glove` | `covarep` | `facet` | `label` |
//!
//! MulT's IEMOCAP has labels `[N, 4, 2]`: for neutral, happy, sad and angry, whether not or yes.
//! LMF's has the splits once for each emotion. MMSA's BERT features fill all steps; their used ones
//! are told by the mask in `text_bert`.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use cumdf_pickle::{Array, Item, Kind, Limits, Pickle};
use indicatif::ProgressBar;

use crate::import::assemble::{self, PackOptions, RawTask};
use crate::import::table::{Part, RawLabels, Table};
use crate::import::{Fate, Ledger, Options, Source, Summary, Survey, known};
use crate::{Modality, Split};

/// The emotions of MulT's IEMOCAP, in the order of its labels.
const MULT_EMOTIONS: [&str; 4] = ["neutral", "happy", "sad", "angry"];
/// BERT's input, `[N, 3, T]`: tokens, mask, segments.
const MASK: &str = "text_bert";
/// Where MMSA tells the used steps of each modality.
const LENGTHS: [&str; 3] = [MASK, "audio_lengths", "vision_lengths"];

/// What a project calls the arrays of a split.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    name: &'static str,
    features: [&'static str; 3],
    label: &'static str,
}

const LAYOUTS: [Layout; 3] = [
    Layout {
        name: "MMSA pickle",
        features: ["text", "audio", "vision"],
        label: "regression_labels",
    },
    Layout { name: "MulT pickle", features: ["text", "audio", "vision"], label: "labels" },
    Layout { name: "LMF pickle", features: ["glove", "covarep", "facet"], label: "label" },
];

/// An open pack.
#[derive(Debug)]
pub(crate) struct Pack {
    path: PathBuf,
    pickle: Pickle,
    layout: &'static Layout,
    /// Where the splits are: at the top, or once for each of these emotions.
    emotions: Vec<String>,
}

impl Pack {
    /// Decodes the pickle at `path`, without executing what it holds, and finds its layout.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::decode(path).with_context(|| path.display().to_string())
    }

    fn decode(path: &Path) -> Result<Self> {
        let file = File::open(path).context("cannot be opened")?;
        // Protocol 0 writes arrays as text, which is held; so a large file may take more.
        let written = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let usual = Limits::default();
        let most = usual.max_inline_bytes.max(written.saturating_mul(3));
        let pickle = cumdf_pickle::load(file, &Limits { max_inline_bytes: most, ..usual })?;
        let root = pickle.root();
        let mut emotions = Vec::new();
        if split_of(root, Split::Train).is_none() {
            for (key, value) in root.entries().into_iter().flatten() {
                if let (Some(key), Some(_)) = (key.text(), split_of(value, Split::Train)) {
                    emotions.push(key.into_owned());
                }
            }
        }
        let top = emotions.first().and_then(|emotion| root.get(emotion)).unwrap_or(root);
        let Some(train) = split_of(top, Split::Train) else {
            bail!(
                "holds a {} with {}, expected a dict with train, valid and test, each a dict \
                 of arrays, as MMSA, MulT and LMF write it; for any other layout save the arrays \
                 with numpy and name them in a manifest, see docs/import.md",
                root.kind(),
                keys(root)
            );
        };
        let fits = |layout: &&Layout| {
            train.get(layout.label).is_some() && train.get(layout.features[0]).is_some()
        };
        let Some(layout) = LAYOUTS.iter().find(fits) else {
            bail!(
                "train holds {}, the names of no layout known: MMSA's text, audio, vision, \
                 regression_labels; MulT's text, audio, vision, labels; LMF's glove, covarep, \
                 facet, label",
                keys(train)
            );
        };
        Ok(Self { path: path.to_owned(), layout, emotions, pickle })
    }

    /// Writes the pack as the native file `out`.
    pub(crate) fn import(
        &self,
        options: &Options,
        out: &Path,
        bar: &ProgressBar,
    ) -> Result<Summary> {
        let mut source = Source::of_file("", self.layout.name, &self.path, bar)?;
        let known = source.known();
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let named = known.map(|file| &file.data_set).or(known::set(&stem).map(|set| &set.name));
        source.name = named.map_or(stem.to_string(), String::clone);
        let mut ledger = Ledger::default();
        match known {
            Some(known) => ledger.one(Fate::Noted, "files whose SHA-256 is known", &known.name),
            None => ledger.one(
                Fate::Noted,
                "files whose SHA-256 is none of the few published ones",
                self.path.display(),
            ),
        }
        self.note_unused(&mut ledger);
        let write = || -> Result<Summary> {
            let task = self.task()?;
            ensure!(
                options.pack.label_column.is_none() || matches!(task, RawTask::Sentiment { .. }),
                "--label-column picks a score, and the labels are emotions"
            );
            let parts = self.parts(&options.pack, &mut ledger)?;
            assemble::write(&source, &task, parts, options, out, ledger, bar)
        };
        write().with_context(|| self.path.display().to_string())
    }

    /// Tells what the pack holds.
    pub(crate) fn survey(&self, bar: &ProgressBar) -> Result<Survey> {
        self.read_through(bar).with_context(|| self.path.display().to_string())
    }

    fn read_through(&self, bar: &ProgressBar) -> Result<Survey> {
        let mut survey = Survey::start(&self.path, self.layout.name, bar)?;
        if let Some((first, others)) = self.emotions.split_first() {
            let others = others.join(", ");
            survey.remarks.push(format!("The splits stand once for each emotion; those of `{first}` are shown, {others} have theirs."));
        }
        let mut tables = Vec::new();
        let mut counts = [0; 3];
        let mut ids = [const { None }; 3];
        for split in Split::ALL {
            let dict = self.split(split)?;
            for (key, value) in dict.entries().into_iter().flatten() {
                let name = format!("{split}/{}", joined(key));
                match self.table(value, &name) {
                    Ok(table) => tables.push((name, table)),
                    Err(_) if joined(key) == self.layout.label => {
                        let (shape, values) = self.block(value, &name)?;
                        let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
                        survey.add_values(name, "list", shape, &values);
                    }
                    Err(_) => {
                        let what = "entries that are no arrays of numbers";
                        survey.ledger.one(Fate::Found, what, format!("{name}, a {}", value.kind()));
                    }
                }
            }
            let (shape, _) =
                self.block(self.entry(split, self.layout.label)?, self.layout.label)?;
            counts[split.index()] = shape[0];
            ids[split.index()] = dict.get("id").map(|ids| self.ids(ids)).transpose()?;
        }
        bar.set_length(tables.iter().map(|(_, table)| table.array.len() as u64).sum());
        for (name, mut table) in tables {
            survey.add(name, &mut table, bar)?;
        }
        survey.note_ids(ids.each_ref().map(Option::as_deref));
        let shapes = self.layout.features.map(|name| {
            let entry = self.entry(Split::Train, name).ok()?;
            Some(entry.array()?.shape)
        });
        survey.remark(counts, shapes);
        Ok(survey)
    }

    /// The kind of label.
    fn task(&self) -> Result<RawTask> {
        if !self.emotions.is_empty() {
            return Ok(RawTask::Emotion { classes: self.emotions.clone() });
        }
        let label = self.entry(Split::Train, self.layout.label)?;
        Ok(match label.array().map(|array| array.shape) {
            Some([_, 4, 2]) => {
                RawTask::Emotion { classes: MULT_EMOTIONS.map(str::to_owned).to_vec() }
            }
            _ => RawTask::Sentiment { range: None },
        })
    }

    /// The three splits.
    fn parts(&self, options: &PackOptions, ledger: &mut Ledger) -> Result<[Part<'_>; 3]> {
        let mut masks = Vec::new();
        for split in Split::ALL {
            masks.push(self.split(split)?.get(MASK).is_some());
        }
        ensure!(
            masks.iter().all(|mask| *mask == masks[0]),
            "`{MASK}` is in some splits only: used steps would be told in these and not in the rest"
        );
        let mut part =
            |split: Split| self.part(split, options, ledger).with_context(|| split.to_string());
        Ok([part(Split::Train)?, part(Split::Valid)?, part(Split::Test)?])
    }

    fn part(&self, split: Split, options: &PackOptions, ledger: &mut Ledger) -> Result<Part<'_>> {
        let features = self.layout.features.map(|name| -> Result<Box<dyn Table + '_>> {
            Ok(Box::new(self.table(self.entry(split, name)?, name)?))
        });
        let [language, audio, vision] = features;
        let features = [Some(language?), Some(audio?), Some(vision?)];
        self.check_same_samples(split)?;
        let labels = self.labels(split, options)?;
        let dict = self.split(split)?;
        let ids = dict.get("id").map(|ids| self.ids(ids).context("id")).transpose()?;
        let steps = |m: usize| features[m].as_ref().and_then(|t| t.shape().get(1).copied());
        let mut lengths = [const { None }; 3];
        for modality in Modality::ALL {
            let m = modality.index();
            let key = LENGTHS[m];
            let (Some(told), Some(most)) = (dict.get(key), steps(m)) else { continue };
            let own_clock = m == 0 || steps(m) != steps(0) || options.pool.contains(modality);
            let read = match modality {
                Modality::Language => self.mask_lengths(told, most),
                _ if own_clock => self.told_lengths(told, most).map(Some),
                _ => Ok(None),
            };
            lengths[m] = read.with_context(|| key.to_owned())?;
            match &lengths[m] {
                None => {
                    let what = "lengths that do not fit the features, not used";
                    ledger.one(Fate::Noted, what, format!("{split}/{key}"));
                }
                Some(lengths) => {
                    let (n, found) = (labels.len(), lengths.len());
                    ensure!(found == n, "{key} has {found} rows for {n} labels");
                }
            }
        }
        Ok(Part { features, labels, ids, lengths })
    }

    /// LMF's IEMOCAP holds the features once for each emotion; they must be the same ones.
    fn check_same_samples(&self, split: Split) -> Result<()> {
        let Some((first, others)) = self.emotions.split_first() else { return Ok(()) };
        for name in self.layout.features {
            let mut mine = self.table(self.entry(split, name)?, name)?;
            for other in others {
                let theirs = self.entry_of(other, split, name)?;
                let mut theirs = self.table(theirs, name)?;
                let mut same = mine.shape() == theirs.shape();
                for row in 0..mine.shape()[0] {
                    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits);
                    same =
                        same && bits(mine.rows(row..row + 1)?).eq(bits(theirs.rows(row..row + 1)?));
                    if !same {
                        break;
                    }
                }
                ensure!(
                    same,
                    "{name} of `{other}` differs from that of `{first}`: the emotions have \
                     samples of their own, which one data set cannot hold"
                );
            }
        }
        Ok(())
    }

    fn labels(&self, split: Split, options: &PackOptions) -> Result<RawLabels> {
        let name = self.layout.label;
        if self.emotions.is_empty() {
            let (shape, values) = self.block(self.entry(split, name)?, name)?;
            return labels_of(&shape, &values, options.label_column).context(name);
        }
        let mut rows: Vec<Vec<bool>> = Vec::new();
        for emotion in &self.emotions {
            let (shape, values) = self.block(self.entry_of(emotion, split, name)?, name)?;
            let flags = flags_of(&shape, &values).with_context(|| format!("{emotion}: {name}"))?;
            rows.resize(flags.len(), Vec::new());
            rows.iter_mut().zip(flags).for_each(|(row, flag)| row.push(flag));
        }
        ensure!(
            rows.iter().all(|row| row.len() == self.emotions.len()),
            "the emotions have different numbers of labels"
        );
        Ok(RawLabels::Classes(rows))
    }

    /// The used steps that BERT's attention mask tells, `[N, 3, T]` with the mask second; `None`
    /// when its steps are not those of the features.
    fn mask_lengths(&self, mask: Item<'_>, steps: usize) -> Result<Option<Vec<usize>>> {
        let mut table = self.table(mask, MASK)?;
        let [n, 3, t] = *table.shape() else {
            bail!("has shape {:?}, expected [N, 3, T]", table.shape());
        };
        if steps != t {
            return Ok(None);
        }
        let used = |row: usize| -> Result<usize> {
            let values = table.rows(row..row + 1)?;
            Ok(values[t..2 * t].iter().filter(|flag| **flag != 0.0).count())
        };
        (0..n).map(used).collect::<Result<_>>().map(Some)
    }

    /// Used steps, whole numbers up to `most`.
    fn told_lengths(&self, told: Item<'_>, most: usize) -> Result<Vec<usize>> {
        let length = |(row, length): (usize, f64)| -> Result<usize> {
            ensure!(
                length.fract() == 0.0 && (0.0..=most as f64).contains(&length),
                "sample {row} is {length}, expected a whole number of used steps, 0 to {most}"
            );
            Ok(length as usize)
        };
        self.numbers(told)?.into_iter().enumerate().map(length).collect()
    }

    /// Names of samples: texts, numbers, or a row of them each, such as video, start and end.
    fn ids(&self, ids: Item<'_>) -> Result<Vec<String>> {
        if let Some(array) = ids.array() {
            let texts: Vec<String> = match (array.objects(), array.dtype.kind) {
                (Some(objects), _) => objects.map(joined).collect(),
                (None, Kind::Text | Kind::Bytes | Kind::Int | Kind::Uint) => {
                    array.read_texts(&mut self.reopen()?)?
                }
                (None, _) => {
                    let numbers = array.read_f64(&mut self.reopen()?, 0..array.n_rows())?;
                    numbers.iter().map(f64::to_string).collect()
                }
            };
            let width = (texts.len() / array.n_rows().max(1)).max(1);
            return Ok(texts.chunks(width).map(|row| row.join("_")).collect());
        }
        let Some(items) = ids.items() else { bail!("is a {}, expected names", ids.kind()) };
        Ok(items.map(joined).collect())
    }

    /// Numbers of an array or a list, with their shape.
    fn block(&self, item: Item<'_>, name: &str) -> Result<(Vec<usize>, Vec<f64>)> {
        if item.array().is_some() {
            let mut table = self.table(item, name)?;
            let rows = 0..table.shape()[0];
            return Ok((table.shape().to_vec(), table.rows_f64(rows)?));
        }
        let values = self.numbers(item).with_context(|| name.to_owned())?;
        Ok((vec![values.len()], values))
    }

    fn numbers(&self, item: Item<'_>) -> Result<Vec<f64>> {
        if item.array().is_some() {
            return Ok(self.block(item, "")?.1);
        }
        let Some(items) = item.items() else { bail!("is a {}, expected numbers", item.kind()) };
        let number = |item: Item<'_>| {
            item.float().with_context(|| format!("holds a {}, expected numbers", item.kind()))
        };
        items.map(number).collect()
    }

    fn table<'a>(&self, item: Item<'a>, name: &str) -> Result<PickledArray<'a>> {
        let refuse = || anyhow!("{name} is a {}, expected an array of numbers", item.kind());
        let array = item.array().filter(|array| !array.shape.is_empty()).ok_or_else(refuse)?;
        let mut objects = array.objects().into_iter().flatten();
        match array.dtype.kind {
            Kind::Bytes | Kind::Text => Err(refuse()),
            Kind::Object if objects.any(|item| item.float().is_none()) => Err(refuse()),
            _ => Ok(PickledArray { array, file: self.reopen()? }),
        }
    }

    fn reopen(&self) -> Result<File> {
        File::open(&self.path).context("cannot be opened")
    }

    fn split(&self, split: Split) -> Result<Item<'_>> {
        match self.emotions.first() {
            Some(emotion) => self.split_under(emotion, split),
            None => split_of(self.pickle.root(), split).with_context(|| {
                let held = keys(self.pickle.root());
                format!(
                    "the pack holds {held}, and no {split}; three splits are needed: cut one off \
                     the others before it is pickled"
                )
            }),
        }
    }

    fn split_under(&self, emotion: &str, split: Split) -> Result<Item<'_>> {
        let top = self.pickle.root().get(emotion);
        top.and_then(|top| split_of(top, split))
            .with_context(|| format!("`{emotion}` has no {split}"))
    }

    fn entry(&self, split: Split, name: &str) -> Result<Item<'_>> {
        let dict = self.split(split)?;
        dict.get(name).with_context(|| format!("has no `{name}`; it holds {}", keys(dict)))
    }

    fn entry_of(&self, emotion: &str, split: Split, name: &str) -> Result<Item<'_>> {
        let dict = self.split_under(emotion, split)?;
        dict.get(name).with_context(|| {
            format!("`{emotion}` has no `{name}` in {split}; it holds {}", keys(dict))
        })
    }

    fn note_unused(&self, ledger: &mut Ledger) {
        let Ok(dict) = self.split(Split::Train) else { return };
        for (key, _) in dict.entries().into_iter().flatten() {
            let Some(key) = key.text() else { continue };
            let used = self.layout.features.contains(&&*key)
                || LENGTHS.contains(&&*key)
                || key == "id"
                || self.layout.label == key;
            if !used {
                ledger.one(Fate::Noted, "entries of a split that are not used", key);
            }
        }
    }
}

/// A numpy array of a pickle, read from the file as it is asked for.
#[derive(Debug)]
struct PickledArray<'a> {
    array: Array<'a>,
    file: File,
}

impl Table for PickledArray<'_> {
    fn dtype(&self) -> String {
        self.array.dtype.to_string()
    }

    fn shape(&self) -> &[usize] {
        self.array.shape
    }

    fn rows(&mut self, rows: Range<usize>) -> Result<Vec<f32>> {
        Ok(self.array.read_f32(&mut self.file, rows)?)
    }

    fn rows_f64(&mut self, rows: Range<usize>) -> Result<Vec<f64>> {
        Ok(self.array.read_f64(&mut self.file, rows)?)
    }
}

/// The dict of a split, by any of its names.
fn split_of(top: Item<'_>, split: Split) -> Option<Item<'_>> {
    let names: &[&str] = match split {
        Split::Train => &["train"],
        Split::Valid => &["valid", "dev", "val"],
        Split::Test => &["test"],
    };
    names.iter().find_map(|name| top.get(name)).filter(|item| item.entries().is_some())
}

/// The keys of a dict, for messages.
fn keys(dict: Item<'_>) -> String {
    let names: Vec<_> = dict
        .entries()
        .into_iter()
        .flatten()
        .take(20)
        .map(|(key, _)| key.text().map_or_else(|| key.kind(), |text| text.into_owned()))
        .collect();
    if names.is_empty() { "no keys".to_owned() } else { names.join(", ") }
}

/// A name: a text, a number, or several of them with `_` between.
fn joined(item: Item<'_>) -> String {
    if let Some(text) = item.text() {
        return text.into_owned();
    }
    if let Some(number) = item.integer() {
        return number.to_string();
    }
    if let Some(number) = item.float() {
        return number.to_string();
    }
    let parts: Vec<_> = item.items().into_iter().flatten().map(joined).collect();
    parts.join("_")
}

/// Labels of shape `[N]`, `[N, 1]` or `[N, 1, 1]` are scores, of `[N, C, 2]` emotions by no and yes.
fn labels_of(shape: &[usize], values: &[f64], column: Option<usize>) -> Result<RawLabels> {
    let width: usize = shape[1..].iter().product();
    if let [_, classes @ 4, 2] = shape {
        let yes = |pair: &[f64]| pair[1] > pair[0];
        let rows = values.chunks(2 * classes).map(|row| row.chunks(2).map(yes).collect());
        return Ok(RawLabels::Classes(rows.collect()));
    }
    match column {
        None if width == 1 => Ok(RawLabels::Scores(values.to_vec())),
        Some(column) if width > 1 && column < width => {
            Ok(RawLabels::Scores(values.chunks(width).map(|row| row[column]).collect()))
        }
        Some(column) => bail!("has shape {shape:?}: there is no --label-column {column} to choose"),
        None => bail!(
            "has shape {shape:?}, {width} numbers per sample, expected [N] scores, or [N, 4, 2] for \
             IEMOCAP's emotions; if one of the numbers is the score, --label-column 0 to {} picks it",
            width.saturating_sub(1)
        ),
    }
}

/// Whether a sample has an emotion: one number above 0, or two, no and yes.
fn flags_of(shape: &[usize], values: &[f64]) -> Result<Vec<bool>> {
    match shape[1..].iter().product::<usize>() {
        1 => Ok(values.iter().map(|value| *value > 0.0).collect()),
        2 => Ok(values.chunks(2).map(|pair| pair[1] > pair[0]).collect()),
        _ => bail!("has shape {shape:?}, expected [N], [N, 1] or [N, 2]"),
    }
}
