//! The data sets of a table: what is in their files, and which configurations are for them.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use cumdf_data::{Dataset, Labels, Modality, ModalitySet, Split, Task};
use cumdf_train::{
    answers::Answers,
    config::{Config, DataConfig},
    method::Entry,
    metrics::{Metric, Metrics, constant_floor},
    pipeline,
};

use super::settings;

/// One data set.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name, as tables show it.
    pub dataset: String,
    /// Its name, as the file says it.
    pub name: String,
    /// The name as a folder.
    pub slug: String,
    /// The file, as an absolute path.
    pub file: PathBuf,
    /// SHA-256 of the file.
    pub sha256: String,
    /// What its labels mean.
    pub task: Task,
    /// Samples of each split.
    pub sizes: [usize; 3],
    /// Features per step; 0 for a modality that no split has.
    pub dims: [i64; 3],
    /// What a constant answer reaches.
    pub constant: Metrics,
    /// Modalities of the training split.
    pub in_train: ModalitySet,
    /// The split that is predicted.
    pub split: Split,
    /// Modalities of that split.
    pub in_test: ModalitySet,
    /// How a floor that has no recipe of its own reads the data.
    pub read: DataConfig,
    /// The configurations that were given for it, at most one per method.
    configs: Vec<(&'static str, PathBuf)>,
    ids: Vec<String>,
    labels: Labels,
    /// Of each metric of the task, in order.
    constant_answers: Vec<Answers>,
}

/// What was asked for: a configuration, a data file, or both.
#[derive(Debug, Clone, Copy, Default)]
struct Asked<'a> {
    config: Option<&'a Path>,
    data: Option<&'a Path>,
}

/// Opens all data sets that `--data` and `--config` name, the synthetic one without either.
///
/// - `split`: the one that is predicted, and the only one whose labels are kept
///
/// Files of the same content are one data set. Configurations of several methods for one data set
/// stand side by side; a second one of the same method makes a second data set of the same name.
///
/// # Errors
/// When a file cannot be read, or `configs` and `data` cannot be paired.
pub fn open_all(
    configs: &[PathBuf],
    data: &[PathBuf],
    sets: &[String],
    split: Split,
) -> Result<Vec<Source>> {
    let mut sources: Vec<Source> = Vec::new();
    for asked in pairs(configs, data)? {
        let base = settings::base(asked.config, asked.data, sets)?;
        let config = asked.config.map(|path| (base.entry.name, path.to_owned()));
        let file = pipeline::data_file(&base.data)?;
        let read = Dataset::open(&file)?;
        let method = config.as_ref().map(|(method, _)| *method);
        let same = |source: &&mut Source| {
            source.sha256 == read.sha256 && method.is_none_or(|m| source.config(m).is_none())
        };
        match sources.iter_mut().find(same) {
            Some(source) => source.configs.extend(config),
            None => {
                let n_same = sources.iter().filter(|other| other.name == read.name).count();
                let mut source = Source::of(read, file, base.data, split);
                if n_same > 0 {
                    source.dataset = format!("{} #{}", source.name, n_same + 1);
                }
                source.configs.extend(config);
                sources.push(source);
            }
        }
    }
    Ok(sources)
}

fn pairs<'a>(configs: &'a [PathBuf], data: &'a [PathBuf]) -> Result<Vec<Asked<'a>>> {
    let asked = |config: Option<&'a PathBuf>, data: Option<&'a PathBuf>| Asked {
        config: config.map(PathBuf::as_path),
        data: data.map(PathBuf::as_path),
    };
    Ok(match (configs, data) {
        ([], []) => vec![Asked::default()],
        ([], _) => data.iter().map(|file| asked(None, Some(file))).collect(),
        (_, []) => configs.iter().map(|config| asked(Some(config), None)).collect(),
        ([config], _) => data.iter().map(|file| asked(Some(config), Some(file))).collect(),
        (_, [file]) => configs.iter().map(|config| asked(Some(config), Some(file))).collect(),
        (configs, data) => {
            ensure!(
                configs.len() == data.len(),
                "{} --config and {} --data cannot be paired: give one of either for all of the \
                 other, or as many of both",
                configs.len(),
                data.len()
            );
            configs.iter().zip(data).map(|(c, d)| asked(Some(c), Some(d))).collect()
        }
    })
}

impl Source {
    fn of(data: Dataset, file: PathBuf, read: DataConfig, split: Split) -> Self {
        let splits = [&data.train, &data.valid, &data.test];
        let anywhere =
            splits.map(|s| s.available()).into_iter().fold(ModalitySet::EMPTY, ModalitySet::union);
        let (labels, predicted) = (&data.train.labels, data.split(split));
        Self {
            dataset: data.name.clone(),
            slug: slug(&data.name),
            file,
            sha256: data.sha256.clone(),
            sizes: splits.map(|split| split.len()),
            dims: Modality::ALL.map(|m| match anywhere.contains(m) {
                true => data.dims[m.index()],
                false => 0,
            }),
            constant: constant_floor(&data.task, labels, &predicted.labels),
            in_train: data.train.available(),
            split,
            in_test: predicted.available(),
            read,
            configs: Vec::new(),
            constant_answers: Metric::of(&data.task)
                .iter()
                .map(|m| m.constant(&data.task, labels, predicted.len()))
                .collect(),
            ids: predicted.ids.clone(),
            labels: predicted.labels.clone(),
            name: data.name,
            task: data.task,
        }
    }

    /// The configuration that was given for a method.
    pub fn config(&self, method: &str) -> Option<&Path> {
        self.configs.iter().find(|(name, _)| *name == method).map(|(_, path)| path.as_path())
    }

    /// The resolved configuration of a method on this data set.
    ///
    /// # Errors
    /// As [`Config::resolve`].
    pub fn resolve(&self, entry: &Entry, sets: &[String]) -> Result<Config> {
        let mut config =
            Config::resolve(Some(entry.name), self.config(entry.name), Some(&self.file), sets)?;
        config.data.file.clone_from(&self.file);
        if self.config(entry.name).is_none() {
            config.data.clip = self.read.clip; // all rows read the data alike
        }
        config.check_labels(&self.task)?;
        Ok(config)
    }

    /// Names of the samples to predict, in file order.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Labels of the samples to predict, for metrics.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The constant answer to every sample that suits `metric`.
    ///
    /// # Panics
    /// When it is no metric of the task.
    pub fn constant_answers(&self, metric: &Metric) -> &Answers {
        let place = Metric::of(&self.task).iter().position(|own| own == metric);
        &self.constant_answers[place.expect("a metric of the task")]
    }

    /// The modalities that a model sees there when nothing is hidden from it.
    pub fn available(&self) -> ModalitySet {
        self.in_test.intersection(self.in_train)
    }

    /// Why the test under `condition` would not show what its name says; `None` when it does.
    pub fn not_available(&self, condition: ModalitySet) -> Option<String> {
        let lacking = names(|m| !self.in_test.contains(m));
        (!self.in_test.contains_all(condition))
            .then(|| format!("the {} split has no {lacking}", self.split))
    }

    /// An earlier condition whose figures are the same, because the two differ only in modalities
    /// that are never trained and therefore hidden at test.
    pub fn same_as(&self, condition: ModalitySet) -> Option<ModalitySet> {
        let seen = |condition: ModalitySet| condition.intersection(self.in_train);
        let available = |condition: &ModalitySet| self.in_test.contains_all(*condition);
        ModalitySet::CONDITIONS
            .into_iter()
            .take_while(|earlier| *earlier != condition && available(&condition))
            .filter(available)
            .find(|earlier| seen(*earlier) == seen(condition))
    }

    /// The conditions that the test split can answer.
    pub fn conditions(&self) -> Vec<ModalitySet> {
        let answerable = |c: &ModalitySet| self.not_available(*c).is_none();
        ModalitySet::CONDITIONS.into_iter().filter(answerable).collect()
    }

    /// The conditions that the test split can answer, without those whose figures are the same as
    /// an earlier one's.
    pub fn distinct(&self) -> Vec<ModalitySet> {
        self.conditions().into_iter().filter(|c| self.same_as(*c).is_none()).collect()
    }

    /// What to know about modalities that only the test split has; `None` where there are none.
    pub fn untrained(&self) -> Option<String> {
        let untrained = |m| self.in_test.contains(m) && !self.in_train.contains(m);
        Modality::ALL.into_iter().any(untrained).then(|| {
            let names = names(untrained);
            let blind: Vec<_> = ModalitySet::CONDITIONS
                .into_iter()
                .filter(|c| c.iter().all(untrained))
                .map(|c| c.to_string())
                .collect();
            format!(
                "the training split has no {names}, so {names} is hidden at test too: under {} \
                 alone the model sees nothing, so its figures are its prior",
                blind.join(" or ")
            )
        })
    }

    /// Sizes and labels, for readers.
    pub fn summary(&self) -> String {
        let [train, valid, test] = self.sizes;
        let task = match &self.task {
            Task::Sentiment { lo, hi } => format!("scores from {lo} to {hi}"),
            Task::Emotion { classes } => classes.join(", "),
        };
        format!("{train} / {valid} / {test} samples, {task}")
    }
}

/// The modalities that `are`, in words.
fn names(are: impl Fn(Modality) -> bool) -> String {
    let names = Modality::ALL.into_iter().filter(|m| are(*m)).map(Modality::name);
    names.collect::<Vec<_>>().join(" and ")
}

/// A name as a folder: lower case, what is no letter or digit becomes a hyphen.
pub(crate) fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().flat_map(char::to_lowercase) {
        match c.is_alphanumeric() {
            true => slug.push(c),
            false if !slug.is_empty() && !slug.ends_with('-') => slug.push('-'),
            false => {}
        }
    }
    match slug.trim_end_matches('-') {
        "" => "unnamed".to_owned(),
        slug => slug.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Source {
        /// Scores without a sample, by the name of the synthetic data, of which no file is read.
        pub(crate) fn of_nothing(in_train: &[Modality], in_test: &[Modality]) -> Self {
            let file = PathBuf::from("synthetic");
            Self {
                dataset: String::new(),
                name: String::new(),
                slug: String::new(),
                file: file.clone(),
                sha256: String::new(),
                task: Task::Sentiment { lo: -3, hi: 3 },
                sizes: [0; 3],
                dims: [0; 3],
                constant: Metrics::default(),
                in_train: ModalitySet::of(in_train.iter().copied()),
                split: Split::Test,
                in_test: ModalitySet::of(in_test.iter().copied()),
                read: DataConfig { file, clip: 0.0, soft_labels: false },
                configs: vec![],
                ids: vec![],
                labels: Labels::Scores(vec![]),
                constant_answers: vec![],
            }
        }
    }

    #[test]
    fn names_become_folders() {
        assert_eq!(slug("CMU-MOSI (bc-LSTM features)"), "cmu-mosi-bc-lstm-features");
        assert_eq!(slug("../x"), "x");
        assert_eq!(slug("?!"), "unnamed");
    }

    #[test]
    fn configurations_and_files_are_paired() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let n = |configs: &[&str], data: &[&str]| {
            pairs(&paths(configs), &paths(data)).map(|asked| asked.len())
        };
        assert_eq!(n(&[], &[]).unwrap(), 1);
        assert_eq!(n(&["a"], &["x", "y"]).unwrap(), 2);
        assert_eq!(n(&["a", "b"], &["x"]).unwrap(), 2);
        assert_eq!(n(&["a", "b"], &["x", "y"]).unwrap(), 2);
        let err = n(&["a", "b"], &["x", "y", "z"]).unwrap_err().to_string();
        assert!(err.starts_with("2 --config and 3 --data cannot be paired"), "{err}");
    }

    /// As ICT-MMMO: language in the test split alone.
    #[test]
    fn what_is_never_trained_makes_equal_columns() {
        let [language, audio, vision] = Modality::ALL;
        let source = Source::of_nothing;
        let pairs = |source: &Source| {
            let same = |c: ModalitySet| Some(format!("{}={}", c.key(), source.same_as(c)?.key()));
            ModalitySet::CONDITIONS.into_iter().filter_map(same).collect::<Vec<_>>()
        };
        let distinct = |source: &Source| {
            let keys: Vec<_> = source.distinct().into_iter().map(ModalitySet::key).collect();
            keys.join(" ")
        };
        let mmmo = source(&[audio, vision], &[language, audio, vision]);
        assert_eq!(pairs(&mmmo), ["la=a", "lv=v", "lav=av"]);
        assert_eq!(distinct(&mmmo), "l a v av");
        assert_eq!(
            mmmo.untrained().unwrap(),
            "the training split has no language, so language is hidden at test too: under {l} alone \
             the model sees nothing, so its figures are its prior"
        );
        let blind = source(&[audio], &[language, audio, vision]);
        assert_eq!(pairs(&blind), ["v=l", "la=a", "lv=l", "av=a", "lav=a"]);
        assert!(blind.untrained().unwrap().contains("under {l} or {v} or {l,v} alone"));
        // Without vision in the test split, its conditions are not available and equal nothing.
        let no_vision = source(&[language, audio], &[language, audio]);
        assert!(pairs(&no_vision).is_empty());
        assert_eq!(distinct(&no_vision), "l a la");
    }
}
