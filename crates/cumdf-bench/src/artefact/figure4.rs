//! Figure 4: cases. What was seen of a sample, what CUMDF and another model made of it.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use cumdf_data::{Corpus, Dataset, Inputs, Labels, Modality, ModalitySet, Task, View};
use cumdf_model::Explained;
use cumdf_train::{answers::Answers, evaluate, registry};
use tch::{Device, Tensor};

use super::Wanted;
use crate::{
    grid::{
        self, Measured, Run, cell,
        source::Source,
        variants::{self, Variant, Work},
    },
    report::{
        self,
        cases::{Case, Cases, Said},
        plain::{self, Plain},
        table::Kind,
    },
};

/// The row that the figure is about.
const OWN: &str = "cumdf";
/// The paper's pair.
const USUAL: [&str; 2] = [OWN, "if-mmin"];
/// Half of what there is to see.
const DROP_RATIO: f64 = 0.5;

/// Arguments of `figure4`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// What is run, and how. Of `--models` two that are trained are shown: by default CUMDF and
    /// IF-MMIN, as in the paper. A single training of each is: that of the first seed.
    #[command(flatten)]
    pub grid: grid::Args,

    /// The modalities that may be seen, such as la.
    #[arg(long, value_name = "SET", default_value = "lav")]
    pub condition: ModalitySet,

    /// Probability in [0, 1) that a frame is hidden.
    #[arg(long, value_name = "P", default_value_t = DROP_RATIO)]
    pub drop_ratio: f64,

    /// How many cases of each kind.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub cases: usize,

    /// These samples of the test split instead, separated by commas.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub ids: Vec<String>,

    /// Where the figure goes. By default the folder of table1, whose trainings it shares.
    #[arg(long, value_name = "DIR", default_value = "runs/table1")]
    pub out: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  cumdf-bench figure4
  cumdf-bench figure4 --data mosi.h5 --models cumdf,self-mm --condition la --drop-ratio 0.3 --cases 2
  cumdf-bench figure4 --data mosi.h5 --ids 'c7UH_rxdZv4_1,c7UH_rxdZv4_10'

The rule by which samples are chosen, of the test split, a sample once:
  largest gain      CUMDF is nearer to the truth than the other model by most
  largest loss      it is further from it by most
  largest conflict  what CUMDF says of each modality alone differs by most
Distance from the truth is the absolute error of a score; of emotions the probability that is missing
on the true ones. Two answers differ by their scores, or by half the sum of absolute differences of
their probabilities. Test labels choose and describe cases; no model sees them.

What it writes to --out: figure4-<data set>.svg and .png; figure4.json with all that is drawn;
figure4.csv, .md, .tex, a line per case and model.";

impl Args {
    /// What they are where nothing is named.
    pub(super) fn usual(grid: grid::Args, out: PathBuf) -> Self {
        Self {
            grid,
            condition: ModalitySet::ALL,
            drop_ratio: DROP_RATIO,
            cases: 1,
            ids: vec![],
            out,
        }
    }
}

/// Makes the figure; whether no cell failed.
///
/// # Errors
/// When the arguments cannot be followed, a sample is not there, or a file cannot be written.
pub fn run(args: &Args) -> Result<bool> {
    let wanted = wanted(args)?;
    let Some(measured) = wanted.measure(&args.out, |_, _, _| {})? else { return Ok(false) };
    let (mut all, mut files) = (Vec::new(), Vec::new());
    let provenance = measured.provenance();
    for (s, source) in measured.sources.iter().enumerate() {
        let runs = wanted.rows.iter().filter_map(|v| Some((v, measured.runs_of(s, v.key).next()?)));
        let runs: Vec<_> = runs.filter(|(_, run)| run.outcome.is_ok()).collect();
        let [own, other] = runs[..] else { continue }; // what failed was told already
        let cases = cases(source, [own, other], args)?;
        let name = format!("figure4-{}", source.slug);
        files.extend(report::save_picture(&Cases(&cases), &provenance, &args.out, &name)?);
        all.extend(cases);
    }
    let table = table(&measured, args, &all);
    files.extend(plain::save(&table, &all, &args.out)?);
    report::print(&plain::text(&table, report::width()))?;
    report::print(&report::written(&files))?;
    Ok(measured.n_failed() == 0)
}

pub(super) fn wanted(args: &Args) -> Result<Wanted> {
    let (condition, drop_ratio) = (args.condition, args.drop_ratio);
    ensure!(
        (0.0..1.0).contains(&drop_ratio),
        "--drop-ratio {drop_ratio}: must lie in [0, 1); --condition says what is gone"
    );
    Ok(Wanted {
        grid: grid::Args { seeds: Some(1), ..args.grid.clone() },
        rows: pair(&args.grid.models)?.to_vec(),
        views: Box::new(move |source| {
            let all = std::iter::once(shown(source, condition, drop_ratio));
            all.chain(alone(source)).collect()
        }),
    })
}

/// CUMDF and the first other trained row of `models`, where both are named, else the usual pair;
/// nothing where nothing is named.
pub(super) fn pair_among(models: &[String]) -> Vec<String> {
    let is_trained = |key: &&String| {
        let row = variants::COMPARISON.iter().find(|v| v.key == **key);
        row.is_some_and(|v| v.kind == Kind::Trained && v.key != OWN)
    };
    let is_own = models.iter().any(|key| key == OWN);
    match models.iter().find(is_trained).filter(|_| is_own) {
        Some(other) => vec![OWN.to_owned(), other.clone()],
        None if models.is_empty() => vec![],
        None => USUAL.map(str::to_owned).to_vec(),
    }
}

/// The two rows that are shown.
fn pair(models: &[String]) -> Result<[Variant; 2]> {
    let usual = USUAL.map(str::to_owned);
    let keys = if models.is_empty() { &usual[..] } else { models };
    let rows = variants::select(&variants::COMPARISON, keys, false)?;
    // In the order in which they were named.
    let named = |key: &String| rows.iter().find(|v| v.key == key).copied();
    let trained: Vec<_> = keys
        .iter()
        .filter_map(named)
        .filter(|variant| matches!(variant.work(), Work::Train(_)))
        .collect();
    <[Variant; 2]>::try_from(trained).map_err(|found| {
        anyhow::anyhow!(
            "--models: figure4 shows two models that are trained, such as cumdf,if-mmin; {} are \
             named",
            found.len()
        )
    })
}

/// The view of the figure, as far as the test split can answer it.
fn shown(source: &Source, condition: ModalitySet, drop_ratio: f64) -> View {
    evaluate::view(condition.intersection(source.in_test), drop_ratio)
}

/// Each modality alone, whole.
fn alone(source: &Source) -> Vec<View> {
    let there = Modality::ALL.into_iter().filter(|m| source.available().contains(*m));
    there.map(|m| evaluate::view(ModalitySet::of([m]), 0.0)).collect()
}

/// Chooses the cases of a data set and has both models explain them.
fn cases(source: &Source, runs: [(&Variant, &Run); 2], args: &Args) -> Result<Vec<Case>> {
    let view = shown(source, args.condition, args.drop_ratio);
    let answers = |run: &'_ Run, view: &View| run.tested(view).map(|tested| tested.answers.clone());
    let [own, other] = runs.map(|(_, run)| answers(run, &view).expect("it was asked for"));
    let alone: Vec<_> = alone(source).iter().filter_map(|view| answers(runs[0].1, view)).collect();
    let chosen = match args.ids.is_empty() {
        true => choose(source, &own, &other, &alone, args.cases),
        false => named(source, &args.ids)?,
    };
    let dataset = Dataset::open(&source.file)?;
    let corpus = Corpus::prepare(&dataset, source.read.clip, false, Device::Cpu)?;
    let mut found: Vec<_> = chosen.iter().map(|_| None).collect();
    let loaded = runs.map(|(variant, run)| {
        let trained = cell::trained(&run.dir).context("its training is gone")?;
        let loaded = registry::load(&run.dir.join(trained.checkpoint), Device::Cpu)?;
        anyhow::Ok((variant, loaded))
    });
    let loaded = loaded.into_iter().collect::<Result<Vec<_>>>()?;
    for (rows, inputs) in corpus.test.batches(&view, 1) {
        let Some(at) = chosen.iter().position(|(row, _)| *row == rows[0]) else { continue };
        let said = loaded.iter().map(|(variant, loaded)| {
            let explained = loaded.predictor.explain(&inputs);
            said(variant.name, &source.task, explained, loaded, &inputs)
        });
        let (row, why) = &chosen[at];
        found[at] = Some(Case {
            dataset: source.dataset.clone(),
            id: source.ids()[*row].clone(),
            why: why.clone(),
            truth: truth(source, *row),
            places: places(source, *row),
            seen: seen(&inputs, corpus.test.present()[*row]),
            said: said.collect::<Result<_>>()?,
        });
    }
    Ok(found.into_iter().flatten().collect())
}

/// Positions of samples, and why each is shown; a sample once.
fn choose(
    source: &Source,
    own: &Answers,
    other: &Answers,
    alone: &[Answers],
    n: usize,
) -> Vec<(usize, String)> {
    let (task, labels) = (&source.task, source.labels());
    let gain = |i: usize| distance(task, labels, other, i) - distance(task, labels, own, i);
    let conflict = |i: usize| {
        let pairs =
            alone.iter().enumerate().flat_map(|(k, a)| alone[..k].iter().map(move |b| (a, b)));
        pairs.map(|(a, b)| apart(task, a, b, i)).fold(0.0, f64::max)
    };
    let rules: [(&str, &dyn Fn(usize) -> f64); 3] = [
        ("largest gain", &gain),
        ("largest loss", &|i| -gain(i)),
        ("largest conflict between single modalities", &conflict),
    ];
    let mut chosen: Vec<(usize, String)> = Vec::new();
    for (name, rule) in rules {
        let mut all: Vec<_> = (0..labels.len()).map(|i| (i, rule(i))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1)); // stable: the first of equals
        let free = all.into_iter().filter(|(i, _)| chosen.iter().all(|(other, _)| other != i));
        let cases: Vec<_> = free.take(n).map(|(i, by)| (i, format!("{name}, {by:.2}"))).collect();
        chosen.extend(cases);
    }
    chosen
}

fn named(source: &Source, ids: &[String]) -> Result<Vec<(usize, String)>> {
    let find = |id: &String| {
        let found = source.ids().iter().position(|own| own == id);
        let first = source.ids().first().map_or("", String::as_str);
        found.map(|row| (row, "asked for".to_owned())).with_context(|| {
            format!("--ids {id}: no sample of the test split; its first is {first}")
        })
    };
    ids.iter().map(find).collect()
}

/// How far an answer is from the truth.
fn distance(task: &Task, labels: &Labels, answers: &Answers, i: usize) -> f64 {
    match labels {
        Labels::Scores(scores) => (score(task, answers, i) - f64::from(scores[i])).abs(),
        Labels::Classes(rows) => {
            let p = normalised(answers, i);
            1.0 - rows[i].iter().zip(p).filter(|(is, _)| **is).map(|(_, p)| p).sum::<f64>()
        }
    }
}

/// How far two answers to a sample are apart.
fn apart(task: &Task, a: &Answers, b: &Answers, i: usize) -> f64 {
    match task {
        Task::Sentiment { .. } => (score(task, a, i) - score(task, b, i)).abs(),
        Task::Emotion { .. } => {
            let pairs = normalised(a, i).into_iter().zip(normalised(b, i));
            pairs.map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0
        }
    }
}

fn score(task: &Task, answers: &Answers, i: usize) -> f64 {
    match answers {
        Answers::Scores(scores) => f64::from(scores[i]),
        Answers::Classes(rows) | Answers::Flags(rows) => {
            cumdf_train::answers::expected_score(task, &rows[i])
        }
    }
}

/// Probabilities that sum to 1; decisions per emotion are scaled to that.
fn normalised(answers: &Answers, i: usize) -> Vec<f64> {
    let (Answers::Classes(rows) | Answers::Flags(rows)) = answers else { return vec![] };
    let sum: f64 = rows[i].iter().map(|p| f64::from(*p)).sum();
    rows[i].iter().map(|p| f64::from(*p) / sum.max(f64::MIN_POSITIVE)).collect()
}

fn truth(source: &Source, row: usize) -> String {
    match source.labels() {
        Labels::Scores(scores) => format!("{:+.1}", scores[row]),
        Labels::Classes(rows) => {
            let names = source.task.class_names();
            let is = names.into_iter().zip(&rows[row]).filter(|(_, is)| **is);
            is.map(|(name, _)| name).collect::<Vec<_>>().join(" and ")
        }
    }
}

/// Where the truth lies among the classes.
fn places(source: &Source, row: usize) -> Vec<f64> {
    match (source.labels(), &source.task) {
        (Labels::Scores(scores), Task::Sentiment { lo, .. }) => {
            vec![f64::from(scores[row]) - (*lo as f64)]
        }
        (Labels::Classes(rows), _) => {
            let places = rows[row].iter().enumerate().filter(|(_, is)| **is);
            places.map(|(c, _)| c as f64).collect()
        }
        (Labels::Scores(_), Task::Emotion { .. }) => vec![],
    }
}

/// Which steps of a single sample were seen, of the modalities that it has.
fn seen(inputs: &Inputs, present: ModalitySet) -> [Option<Vec<bool>>; 3] {
    let flags = |t: Tensor| -> Vec<bool> { Vec::try_from(t).expect("flags of one sample") };
    let valid = flags(inputs.valid.get(0));
    Modality::ALL.map(|m| {
        let steps = flags(inputs.seen.get(0).get(m.index() as i64));
        let used = steps.into_iter().zip(&valid).filter(|(_, valid)| **valid);
        present.contains(m).then(|| used.map(|(seen, _)| seen).collect())
    })
}

/// What a model said of a single sample.
fn said(
    model: &str,
    task: &Task,
    explained: Explained,
    loaded: &registry::Loaded,
    inputs: &Inputs,
) -> Result<Said> {
    let seen = inputs.available().any_dim(1, false); // [1]
    let answer = explained.answer.or_prior(&seen, &loaded.header.data.prior);
    let answers = Answers::in_order(&[0], &[answer])?;
    let classes = task.class_names();
    let place = match task {
        Task::Sentiment { lo, .. } => Some(score(task, &answers, 0) - (*lo as f64)),
        Task::Emotion { .. } => None,
    };
    let words = match task {
        Task::Sentiment { .. } => format!("{:+.2}", score(task, &answers, 0)),
        Task::Emotion { .. } => classes[answers.classes()[0]].clone(),
    };
    let distribution = match answers {
        Answers::Scores(_) => None,
        Answers::Classes(rows) | Answers::Flags(rows) => rows.into_iter().next(),
    };
    let shares = explained.attributions.map(|shares| -> Result<[f32; 3]> {
        let shares: Vec<f32> = Vec::try_from(shares.get(0))?;
        shares.try_into().map_err(|_| anyhow::anyhow!("a share per modality"))
    });
    Ok(Said {
        model: model.to_owned(),
        answer: words,
        place,
        classes,
        distribution,
        shares: shares.transpose()?,
    })
}

fn table(measured: &Measured, args: &Args, cases: &[Case]) -> Plain {
    let head = ["sample", "data set", "why", "truth", "seen", "model", "answer", "shares l/a/v"];
    let share = |seen: &Option<Vec<bool>>| match seen {
        Some(seen) => format!("{}/{}", seen.iter().filter(|s| **s).count(), seen.len()),
        None => "-".to_owned(),
    };
    let lines = cases.iter().flat_map(|case| {
        case.said.iter().map(move |said| {
            vec![
                case.id.clone(),
                case.dataset.clone(),
                case.why.clone(),
                case.truth.clone(),
                case.seen.each_ref().map(share).join(" "),
                said.model.clone(),
                said.answer.clone(),
                said.shares.map_or_else(String::new, |s| s.map(|s| format!("{s:.2}")).join(" ")),
            ]
        })
    });
    let mut notes = vec![
        "seen: frames of language, audio and vision that were seen, of how many".to_owned(),
        "chosen with the test labels in hand, to look at: these cases say nothing of how often"
            .to_owned(),
    ];
    for s in 0..measured.sources.len() {
        notes.extend(super::notes::first_look(&measured.shortened[s]));
    }
    Plain {
        name: "figure4".to_owned(),
        title: format!(
            "Figure 4: cases of the test split under {} with a drop ratio of {}",
            args.condition, args.drop_ratio
        ),
        head: head.map(str::to_owned).to_vec(),
        lines: lines.collect(),
        notes,
        provenance: measured.provenance(),
    }
}
