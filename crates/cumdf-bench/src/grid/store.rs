//! Every sample's prediction, kept: one CSV file per view in a cell's folder `views`, which is the test
//! split's; those of validation samples, on which experiments are decided, are in `views-valid`.
//!
//! Metrics are computed from what is read back here, never from what is still in memory, so a
//! figure and the predictions beside it cannot differ. The columns say what kind of answer it is:
//! `score`; `p_<class>` for a distribution over classes (bins or emotions); `flag_<class>` for a
//! decision per emotion. Numbers are printed so that they read back exactly.
//!
//! A model that attributes its answers to modalities has a second file per view,
//! `<view>.attributions.csv`, with the columns `id`, `language`, `audio`, `vision`. No figure of a
//! table rests on it, so a cell without one is whole.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use cumdf_data::{Modality, ModalitySet, Split, Task, View};
use cumdf_train::{
    answers::Answers,
    evaluate::{self, EVAL_SEED},
    run_dir::write_atomic,
};

/// The folder of the predictions of a split in a cell's folder.
pub fn folder(cell: &Path, split: Split) -> PathBuf {
    cell.join(match split {
        Split::Test => "views".to_owned(),
        other => format!("views-{other}"),
    })
}

/// A view's name in files and between processes: `la`, `la-p0.3`, `la-p0.3-s7`; `la-p0.3-ha` where
/// audio alone has holes.
pub fn key(view: &View) -> String {
    let mut key = view.condition.key();
    if view.drop_ratio > 0.0 {
        key += &format!("-p{}", view.drop_ratio);
    }
    if view.holes != ModalitySet::ALL {
        key += &format!("-h{}", view.holes.key());
    }
    if view.seed != EVAL_SEED {
        key += &format!("-s{}", view.seed);
    }
    key
}

/// Reads a [`key`].
///
/// # Errors
/// When it is none.
pub fn parse_key(key: &str) -> Result<View> {
    let mut parts = key.split('-');
    let condition: ModalitySet = parts.next().unwrap_or_default().parse()?;
    let mut view = evaluate::view(condition, 0.0);
    for part in parts {
        let none = || format!("`{key}` is no view: {part:?}");
        match part.split_at_checked(1) {
            Some(("p", ratio)) => view.drop_ratio = ratio.parse().with_context(none)?,
            Some(("h", holes)) => view.holes = holes.parse().with_context(none)?,
            Some(("s", seed)) => view.seed = seed.parse().with_context(none)?,
            _ => bail!("{}", none()),
        }
    }
    ensure!((0.0..=1.0).contains(&view.drop_ratio), "`{key}`: a drop ratio lies in [0, 1]");
    Ok(view)
}

/// Where predictions under `view` lie.
///
/// - `views`: their [`folder`]
pub fn path(views: &Path, view: &View) -> PathBuf {
    views.join(format!("{}.csv", key(view)))
}

/// Writes predictions under `view`, whole or not at all.
///
/// - `views`: their [`folder`]
/// - `ids`: names of the samples, in the order of `answers`
///
/// # Errors
/// When a prediction is not a number, or the file cannot be written.
pub fn write(
    views: &Path,
    view: &View,
    task: &Task,
    ids: &[String],
    answers: &Answers,
) -> Result<()> {
    ensure!(answers.is_finite(), "under {} a prediction is not a number", view.condition);
    ensure!(answers.len() == ids.len(), "{} answers to {} samples", answers.len(), ids.len());
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(Form::of(answers).head(task))?;
    for (i, id) in ids.iter().enumerate() {
        csv.write_field(id)?;
        match answers {
            Answers::Scores(scores) => csv.write_field(scores[i].to_string())?,
            Answers::Classes(rows) | Answers::Flags(rows) => {
                for p in &rows[i] {
                    csv.write_field(p.to_string())?;
                }
            }
        }
        csv.write_record(None::<&[u8]>)?;
    }
    put(&path(views, view), &csv.into_inner()?)
}

/// Writes a file, and makes its folder where there is none.
fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    write_atomic(path, bytes)
}

/// Reads predictions under `view`.
///
/// - `views`: their [`folder`]
/// # Errors
/// When there are none, or the file is damaged or of other samples.
pub fn read(views: &Path, view: &View, task: &Task, ids: &[String]) -> Result<Answers> {
    let path = path(views, view);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text, task, ids).with_context(|| format!("{} is damaged", path.display()))
}

/// Names of the samples in predictions under `view`.
///
/// - `views`: their [`folder`]
/// # Errors
/// When there are none, or the file is no CSV.
pub fn ids(views: &Path, view: &View) -> Result<Vec<String>> {
    let path = path(views, view);
    let read = || -> Result<Vec<String>> {
        let mut csv = csv::Reader::from_path(&path)?;
        let id = |record: csv::Result<csv::StringRecord>| Ok(record?[0].to_owned());
        csv.records().map(id).collect()
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

/// Where attributions under `view` lie, if the model has any.
///
/// - `views`: the [`folder`] of the predictions
pub fn attributions_path(views: &Path, view: &View) -> PathBuf {
    views.join(format!("{}.attributions.csv", key(view)))
}

/// Writes how much of each answer is owed to language, audio and vision.
///
/// - `shares`: `[N]`, in the order of `ids`
///
/// # Errors
/// When a share is not a number, or the file cannot be written.
pub fn write_attributions(
    views: &Path,
    view: &View,
    ids: &[String],
    shares: &[[f32; 3]],
) -> Result<()> {
    ensure!(shares.len() == ids.len(), "{} shares for {} samples", shares.len(), ids.len());
    let finite = shares.iter().flatten().all(|share| share.is_finite());
    ensure!(finite, "under {} an attribution is not a number", view.condition);
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(["id"].into_iter().chain(Modality::ALL.map(Modality::name)))?;
    for (id, shares) in ids.iter().zip(shares) {
        csv.write_field(id)?;
        csv.write_record(shares.map(|share| share.to_string()))?;
    }
    put(&attributions_path(views, view), &csv.into_inner()?)
}

/// Reads attributions under `view`, `[N]` of language, audio, vision; `None` where
/// there are none, as from a model that attributes nothing.
///
/// # Errors
/// When the file is damaged or of other samples.
pub fn read_attributions(
    views: &Path,
    view: &View,
    ids: &[String],
) -> Result<Option<Vec<[f32; 3]>>> {
    let path = attributions_path(views, view);
    if !path.exists() {
        return Ok(None);
    }
    let damaged = || format!("{} is damaged", path.display());
    let text = fs::read_to_string(&path).with_context(damaged)?;
    let rows = parse_rows(csv::Reader::from_reader(text.as_bytes()), ids).with_context(damaged)?;
    let shares = |row: Vec<f32>| {
        <[f32; 3]>::try_from(row).map_err(|row| anyhow!("it has {} shares, not 3", row.len()))
    };
    Ok(Some(rows.into_iter().map(shares).collect::<Result<_>>().with_context(damaged)?))
}

/// What kind of answer a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Scores,
    Classes,
    Flags,
}

impl Form {
    fn of(answers: &Answers) -> Self {
        match answers {
            Answers::Scores(_) => Self::Scores,
            Answers::Classes(_) => Self::Classes,
            Answers::Flags(_) => Self::Flags,
        }
    }

    /// The forms that answer a task.
    fn fit(task: &Task) -> [Self; 2] {
        match task {
            Task::Sentiment { .. } => [Self::Scores, Self::Classes],
            Task::Emotion { .. } => [Self::Flags, Self::Classes],
        }
    }

    fn head(self, task: &Task) -> Vec<String> {
        let per_class = |prefix: &str| {
            task.class_names().iter().map(|class| format!("{prefix}{class}")).collect()
        };
        let columns: Vec<String> = match self {
            Self::Scores => vec!["score".into()],
            Self::Classes => per_class("p_"),
            Self::Flags => per_class("flag_"),
        };
        std::iter::once("id".to_owned()).chain(columns).collect()
    }
}

fn parse(text: &str, task: &Task, ids: &[String]) -> Result<Answers> {
    ensure!(text.ends_with('\n'), "its last line is torn");
    let mut csv = csv::Reader::from_reader(text.as_bytes());
    let head: Vec<String> = csv.headers()?.iter().map(str::to_owned).collect();
    let form = Form::fit(task).into_iter().find(|form| form.head(task) == head);
    let form = form.with_context(|| format!("its columns are {}", head.join(", ")))?;
    let rows = parse_rows(csv, ids)?;
    Ok(match form {
        Form::Scores => Answers::Scores(rows.into_iter().map(|row| row[0]).collect()),
        Form::Classes => Answers::Classes(rows),
        Form::Flags => Answers::Flags(rows),
    })
}

/// The numbers behind the names of the samples, which must be `ids` in their order.
fn parse_rows(mut csv: csv::Reader<&[u8]>, ids: &[String]) -> Result<Vec<Vec<f32>>> {
    let mut rows: Vec<Vec<f32>> = Vec::with_capacity(ids.len());
    for record in csv.records() {
        let record = record?;
        let (i, id) = (rows.len(), record.get(0).unwrap_or_default());
        let expected = ids.get(i).with_context(|| format!("it has more than {i} samples"))?;
        ensure!(id == expected, "its sample {} is {id}, not {expected}", i + 1);
        let row = record.iter().skip(1).map(|text| match text.parse::<f32>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => bail!("{id}: {text:?} is not a number"),
        });
        rows.push(row.collect::<Result<_>>()?);
    }
    ensure!(rows.len() == ids.len(), "it has {} of {} samples", rows.len(), ids.len());
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(condition: &str, drop_ratio: f64, seed: u64) -> View {
        View { seed, ..evaluate::view(condition.parse().unwrap(), drop_ratio) }
    }

    #[test]
    fn views_have_names_that_read_back() {
        for (view, name) in [
            (view("la", 0.0, EVAL_SEED), "la"),
            (view("lav", 0.3, EVAL_SEED), "lav-p0.3"),
            (view("v", 0.7, 12), "v-p0.7-s12"),
            (View { holes: "a".parse().unwrap(), ..view("la", 1.0, 2) }, "la-p1-ha-s2"),
        ] {
            assert_eq!(key(&view), name);
            assert_eq!(parse_key(name).unwrap(), view);
        }
        for noise in ["", "x", "la-", "la-p", "la-p1.1", "la-q3", "la-hx", "la-p0.3-s"] {
            assert!(parse_key(noise).is_err(), "{noise}");
        }
    }

    #[test]
    fn predictions_of_every_form_read_back_to_the_last_bit() {
        let dir = tempfile::tempdir().unwrap();
        let ids = ["a,b", "\"quoted\"", "c"].map(String::from);
        let odd = [0.1f32, f32::MIN_POSITIVE / 8.0, -0.0, 1.0 / 3.0, f32::MAX, 16_777_217.0];
        let rows = || vec![odd[..2].to_vec(), odd[2..4].to_vec(), odd[4..].to_vec()];
        let scores = Task::Sentiment { lo: 0, hi: 1 };
        let emotions = Task::Emotion { classes: ["sad, very", "glad"].map(String::from).to_vec() };
        for (task, answers) in [
            (&scores, Answers::Scores(odd[..3].to_vec())),
            (&scores, Answers::Classes(rows())),
            (&emotions, Answers::Classes(rows())),
            (&emotions, Answers::Flags(rows())),
        ] {
            let view = view("l", 0.0, EVAL_SEED);
            write(dir.path(), &view, task, &ids, &answers).unwrap();
            let read = read(dir.path(), &view, task, &ids).unwrap();
            assert_eq!(format!("{read:?}"), format!("{answers:?}"), "-0 is not 0 here");
        }
    }

    #[test]
    fn attributions_read_back_and_a_cell_without_them_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let ids = ["a,b", "c"].map(String::from);
        let view = view("la", 0.3, EVAL_SEED);
        assert_eq!(read_attributions(dir.path(), &view, &ids).unwrap(), None);
        let shares = [[0.1f32, 0.9, 0.0], [1.0 / 3.0; 3]];
        write_attributions(dir.path(), &view, &ids, &shares).unwrap();
        let text = fs::read_to_string(dir.path().join("la-p0.3.attributions.csv")).unwrap();
        assert!(text.starts_with("id,language,audio,vision\n\"a,b\",0.1,0.9,0\n"), "{text}");
        assert_eq!(read_attributions(dir.path(), &view, &ids).unwrap(), Some(shares.to_vec()));
        let err = read_attributions(dir.path(), &view, &ids[..1]).unwrap_err();
        assert!(format!("{err:#}").contains("more than 1 samples"), "{err:#}");
    }

    #[test]
    fn what_is_damaged_or_of_other_samples_is_told() {
        let task = Task::Sentiment { lo: -1, hi: 1 };
        let ids = ["a", "b"].map(String::from);
        assert!(parse("id,score\na,0.5\nb,1\n", &task, &ids).is_ok());
        for (text, why) in [
            ("id,score\na,0.5\nb,1", "last line is torn"),
            ("id,score\na,0.5\n", "1 of 2 samples"),
            ("id,score\na,0.5\nb,1\nc,1\n", "more than 2 samples"),
            ("id,score\na,0.5\nc,1\n", "sample 2 is c, not b"),
            ("id,score\na,0.5\nb,NaN\n", "b: \"NaN\" is not a number"),
            ("id,score\na,0.5\nb\n", "found record with 1 field"),
            ("id,p_sad\na,0.5\nb,1\n", "its columns are id, p_sad"),
            ("\n", "its columns are"),
        ] {
            let err = format!("{:#}", parse(text, &task, &ids).unwrap_err());
            assert!(err.contains(why), "{text:?}: {err}");
        }
        let dir = tempfile::tempdir().unwrap();
        let nan = Answers::Scores(vec![0.0, f32::NAN]);
        let view = view("l", 0.0, EVAL_SEED);
        let err = write(dir.path(), &view, &task, &ids, &nan).unwrap_err().to_string();
        assert!(err.contains("not a number"), "{err}");
        assert!(!path(dir.path(), &view).exists());
    }
}
