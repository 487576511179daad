//! The native layout: one HDF5 file per data set, described in `docs/data.md`.

use std::{fs, io::Read, path::Path};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

use crate::files::{self, Unfinished};
use crate::hdf::{self, Node, Numbers};
use crate::task::MOST_CLASSES;
use crate::{Dataset, Labels, Modality, ModalitySet, Samples, Split, Task, Truth};

/// The scores of a sentiment file that states no `range`: CMU-MOSI's and CMU-MOSEI's.
const DEFAULT_RANGE: [f64; 2] = [-3.0, 3.0];

/// Reads and checks the file at `path`.
pub(crate) fn read(path: &Path) -> Result<Dataset> {
    read_checked(path).with_context(|| path.display().to_string())
}

fn read_checked(path: &Path) -> Result<Dataset> {
    let metadata = fs::metadata(path).context("cannot be opened")?;
    ensure!(metadata.is_file(), "not a file; give the path of one HDF5 file");
    let sha256 = sha256_of(path)?;
    let file = hdf::open(path)
        .context("not a readable HDF5 file: truncated, or of another format, which `cumdf-data import` may turn into this one")?;
    let root = Node::root(&file, metadata.len())?;

    let name = match one_text(&root, "name")? {
        Some(name) => name,
        None => bail!(
            "no root attribute `name`; the native layout wants the data set's name, and \
             `cumdf-data import` turns other layouts into it"
        ),
    };
    let task = read_task(&root)?;
    let signal = root.number_attribute("signal")?;
    let split = |split: Split| -> Result<Samples> {
        let node = root.child(split.name())?;
        read_split(&node, &task, signal.as_deref())
    };
    let splits = [split(Split::Train)?, split(Split::Valid)?, split(Split::Test)?];
    let generator = one_text(&root, "generator")?;
    let source = one_text(&root, "source")?;
    Ok(Dataset { sha256, generator, source, ..Dataset::new(name, task, splits)? })
}

/// What the labels of the file at `path` mean; reads nothing else of it.
///
/// # Errors
/// When the file cannot be read or does not say.
pub fn task_of(path: &Path) -> Result<Task> {
    let read = || -> Result<Task> {
        let metadata = fs::metadata(path).context("cannot be opened")?;
        let file = hdf::open(path).context("not a readable HDF5 file")?;
        read_task(&Node::root(&file, metadata.len())?)
    };
    read().with_context(|| path.display().to_string())
}

/// The program that made the file at `path`, if it says so, whatever else may be wrong with it.
pub(crate) fn generator(path: &Path) -> Result<Option<String>> {
    let metadata = fs::metadata(path).context("it cannot be opened")?;
    ensure!(metadata.is_file(), "it is not a file");
    let file = hdf::open(path).context("it is no readable HDF5 file")?;
    one_text(&Node::root(&file, metadata.len())?, "generator")
}

fn one_text(root: &Node, name: &str) -> Result<Option<String>> {
    match root.text_attribute(name)?.as_deref() {
        None => Ok(None),
        Some([text]) => Ok(Some(text.clone())),
        Some(texts) => bail!("attribute `{name}` holds {} strings, expected one", texts.len()),
    }
}

fn read_task(root: &Node) -> Result<Task> {
    match one_text(root, "task")?.as_deref() {
        Some("sentiment") => {
            let range = root.number_attribute("range")?.unwrap_or(DEFAULT_RANGE.to_vec());
            let [lo, hi] = range[..] else {
                bail!("attribute `range` holds {} numbers, expected [lo, hi]", range.len());
            };
            ensure!(
                lo.fract() == 0.0 && hi.fract() == 0.0 && lo < hi && hi - lo < MOST_CLASSES as f64,
                "attribute `range` is [{lo}, {hi}], expected two integers lo < hi; scores are \
                 binned to lo..=hi"
            );
            Ok(Task::Sentiment { lo: lo as i64, hi: hi as i64 })
        }
        Some("emotion") => match root.text_attribute("classes")? {
            Some(classes) => Ok(Task::Emotion { classes }),
            None => bail!("no root attribute `classes`; an emotion file names its label's columns"),
        },
        Some(task) => bail!("attribute `task` is `{task}`, expected `sentiment` or `emotion`"),
        None => bail!("no root attribute `task`; write `sentiment` or `emotion`"),
    }
}

fn read_split(node: &Node, task: &Task, signal: Option<&[f64]>) -> Result<Samples> {
    let [language, audio, vision] = Modality::ALL.map(|m| -> Result<Tensor> {
        let read: Numbers<f32> = node.numbers(m.name(), &[3])?;
        let shape: Vec<i64> = read.shape.iter().map(|side| *side as i64).collect();
        Ok(Tensor::from_slice(&read.values).reshape(shape))
    });
    let features = [language?, audio?, vision?];
    let ids = node.strings("id")?;
    let n = ids.len();
    let lengths = read_lengths(node)?;
    let present = if node.has("present") {
        let rows = read_flags(node, "present", Some(3))?;
        rows.iter().map(|row| set_of(row)).collect()
    } else {
        vec![ModalitySet::ALL; n]
    };
    let labels = match task {
        Task::Sentiment { .. } => {
            let scores: Numbers<f64> = node.numbers("label", &[1])?;
            Labels::Scores(scores.values.iter().map(|s| *s as f32).collect())
        }
        Task::Emotion { classes } => {
            Labels::Classes(read_flags(node, "label", Some(classes.len()))?)
        }
    };
    let truth = match signal {
        Some(signal) if node.has("truth") => Some(read_truth(&node.child("truth")?, signal)?),
        _ => None,
    };
    Ok(Samples { features, labels, lengths, ids, present, truth })
}

fn read_lengths(node: &Node) -> Result<Vec<i64>> {
    let path = node.path_of("length");
    let read: Numbers<f64> = node.numbers("length", &[1])?;
    let whole = |(row, length): (usize, &f64)| -> Result<i64> {
        ensure!(length.fract() == 0.0, "{path}: sample {row} is {length}, expected an integer");
        Ok(*length as i64)
    };
    read.values.iter().enumerate().map(whole).collect()
}

/// Rows of zeros and ones.
fn read_flags(node: &Node, name: &str, columns: Option<usize>) -> Result<Vec<Vec<bool>>> {
    let path = node.path_of(name);
    let read: Numbers<f64> = node.numbers(name, &[2])?;
    let width = read.shape[1];
    ensure!(
        width > 0 && columns.is_none_or(|columns| columns == width),
        "{path} has {width} columns, expected {}",
        columns.unwrap_or(1)
    );
    let flag = |at: usize| -> Result<bool> {
        match read.values[at] {
            0.0 => Ok(false),
            1.0 => Ok(true),
            value => bail!(
                "{path}: sample {}, column {} is {value}, expected 0 or 1",
                at / width,
                at % width
            ),
        }
    };
    (0..read.shape[0]).map(|row| (0..width).map(|c| flag(row * width + c)).collect()).collect()
}

fn set_of(row: &[bool]) -> ModalitySet {
    ModalitySet::of(Modality::ALL.into_iter().filter(|m| row[m.index()]))
}

fn read_truth(node: &Node, signal: &[f64]) -> Result<Truth> {
    let Ok(signal) = <[f64; 3]>::try_from(signal) else {
        bail!("attribute `signal` holds {} numbers, expected 3", signal.len());
    };
    let strength: Numbers<f32> = node.numbers("strength", &[2])?;
    let (rows, rest) = strength.values.as_chunks::<3>();
    ensure!(
        strength.shape[1] == 3 && rest.is_empty(),
        "{} has shape {:?}, expected [N, 3]",
        node.path_of("strength"),
        strength.shape
    );
    let key_frames: Numbers<f32> = node.numbers("key_frames", &[3])?;
    let shape: Vec<i64> = key_frames.shape.iter().map(|side| *side as i64).collect();
    let contradicts = read_flags(node, "contradicts", Some(3))?;
    Ok(Truth {
        strength: rows.to_vec(),
        key_frames: Tensor::from_slice(&key_frames.values).reshape(shape).ne(0.0),
        contradicts: contradicts.iter().map(|row| [row[0], row[1], row[2]]).collect(),
        signal: signal.map(|s| s as f32),
    })
}

/// Writes `data` beside `path` and renames it into place.
pub(crate) fn write(data: &Dataset, path: &Path) -> Result<()> {
    data.validate()
        .and_then(|()| write_checked(data, path))
        .with_context(|| format!("{}: cannot be written", path.display()))
}

fn write_checked(data: &Dataset, path: &Path) -> Result<()> {
    let unfinished = begin(path)?;
    let file = hdf::create(unfinished.path())?;
    put_task(&file, &data.name, &data.task)?;
    if let Some(generator) = &data.generator {
        hdf::put_text_attribute(&file, "generator", generator)?;
    }
    if let Some(source) = &data.source {
        hdf::put_text_attribute(&file, "source", source)?;
    }
    if let Some(truth) = &data.train.truth {
        hdf::put_number_attribute(&file, "signal", &truth.signal)?;
    }
    for split in Split::ALL {
        let group = file.create_group(split.name())?;
        write_split(&group, data.split(split)).with_context(|| format!("/{split}"))?;
    }
    file.close()?;
    Ok(unfinished.finish(path)?)
}

/// Begins the file that will stand at `path`. Its folder is made if need be, and rid of what killed
/// processes left in it.
pub(crate) fn begin(path: &Path) -> Result<Unfinished> {
    let folder = files::folder_of(path);
    fs::create_dir_all(folder)?;
    files::sweep(folder);
    Ok(Unfinished::beside(path)?)
}

/// The root attributes that every data set has.
pub(crate) fn put_task(file: &hdf5::File, name: &str, task: &Task) -> Result<()> {
    hdf::put_text_attribute(file, "name", name)?;
    match task {
        Task::Sentiment { lo, hi } => {
            hdf::put_text_attribute(file, "task", "sentiment")?;
            hdf::put_number_attribute(file, "range", &[*lo as f32, *hi as f32])
        }
        Task::Emotion { classes } => {
            hdf::put_text_attribute(file, "task", "emotion")?;
            hdf::put_text_list_attribute(file, "classes", classes)
        }
    }
}

/// What a split holds beside its features. `present` is `[N, 3]`.
pub(crate) fn put_columns(
    group: &hdf5::Group,
    labels: &Labels,
    lengths: &[i32],
    ids: &[String],
    present: &[u8],
) -> Result<()> {
    let n = ids.len();
    match labels {
        Labels::Scores(scores) => hdf::put(group, "label", &[n], scores)?,
        Labels::Classes(rows) => {
            let width = rows.first().map_or(0, Vec::len);
            let flags: Vec<f32> = rows.iter().flatten().map(|flag| f32::from(*flag)).collect();
            hdf::put(group, "label", &[n, width], &flags)?;
        }
    }
    hdf::put(group, "length", &[n], lengths)?;
    hdf::put_texts(group, "id", ids)?;
    hdf::put(group, "present", &[n, 3], present)
}

fn write_split(group: &hdf5::Group, samples: &Samples) -> Result<()> {
    let n = samples.len();
    for modality in Modality::ALL {
        let x = &samples.features[modality.index()];
        let shape: Vec<usize> = x.size().iter().map(|side| *side as usize).collect();
        hdf::put(group, modality.name(), &shape, &Vec::<f32>::try_from(x.flatten(0, -1))?)?;
    }
    let lengths: Vec<i32> = samples.lengths.iter().map(|length| *length as i32).collect();
    let present: Vec<u8> = samples
        .present
        .iter()
        .flat_map(|set| Modality::ALL.map(|m| u8::from(set.contains(m))))
        .collect();
    put_columns(group, &samples.labels, &lengths, &samples.ids, &present)?;
    if let Some(truth) = &samples.truth {
        let group = group.create_group("truth")?;
        hdf::put(&group, "strength", &[n, 3], truth.strength.as_flattened())?;
        let shape: Vec<usize> = truth.key_frames.size().iter().map(|side| *side as usize).collect();
        let flags = truth.key_frames.to_kind(Kind::Uint8).flatten(0, -1);
        hdf::put(&group, "key_frames", &shape, &Vec::<u8>::try_from(flags)?)?;
        let contradicts: Vec<u8> =
            truth.contradicts.as_flattened().iter().map(|flag| u8::from(*flag)).collect();
        hdf::put(&group, "contradicts", &[n, 3], &contradicts)?;
    }
    Ok(())
}

/// SHA-256 of a file in hexadecimal digits.
pub(crate) fn sha256_of(path: &Path) -> Result<String> {
    sha256_with(path, |_| ())
}

/// The same for a large file; `read` is told of every piece how many bytes it has.
pub(crate) fn sha256_with(path: &Path, read: impl Fn(u64)) -> Result<String> {
    let mut file = fs::File::open(path).context("cannot be opened")?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).context("cannot be read")? {
            0 => return Ok(hex(&hasher.finalize())),
            len => {
                hasher.update(&buffer[..len]);
                read(len as u64);
            }
        }
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
