//! What each method costs, beside its torch.nn reference: the two take turns on one thread, so that
//! a busy machine slows both.
//!
//! `cargo bench -p cumdf-bench --bench models` prints the table of `docs/costs.md`; names of methods
//! after `--` choose some. It needs `scripts/setup --python`, and times Rust alone without.
//! A step is a batch forward and backward, the optimizer after as many as the recipe accumulates.
//! Inputs are random, of full length, at CMU-MOSI's size.

#![expect(clippy::print_stdout, reason = "a bench reports to its reader")]

use std::{
    env,
    error::Error,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use cumdf_data::{Corpus, Dataset, EpochOrder, Labels, ModalitySet, Samples, Split, Task};
use cumdf_model::checkpoint;
use cumdf_train::{
    allocator,
    config::Config,
    learner::groups,
    method::{Context, Trained},
    optim::Optimizer,
    pipeline::{self, Place},
    registry::METHODS,
};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

/// Features per step, steps, and training samples (for seconds per epoch) of CMU-MOSI as in the paper.
const DIMS: [i64; 3] = [300, 74, 1024];
const STEPS: i64 = 50;
const TRAIN: f64 = 1284.0;
/// Turns that each side gets; the first is not counted.
const TURNS: usize = 8;
/// Seconds that a turn should take, about.
const TURN: f64 = 1.0;
/// How a process is told to measure a single method.
const ONE: &str = "--one";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    allocator::keep_freed(); // as the programs do
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [one, method] = &args[..]
        && one == ONE
    {
        println!("{}", measure(method)?);
        return Ok(());
    }
    let known = || METHODS.iter().map(|entry| entry.name);
    if let Some(unknown) = args.iter().find(|arg| known().all(|name| name != *arg)) {
        return Err(format!("{unknown}: no such method; {:?}", known().collect::<Vec<_>>()).into());
    }
    println!(
        "| method | parameters | batch | GFLOP per step | ms per step | torch.nn, ms | ratio | peak | \
         its peak | s per epoch |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for name in known().filter(|name| args.is_empty() || args.iter().any(|arg| arg == name)) {
        // A process each: a peak of memory is a process's.
        let output = Command::new(env::current_exe()?)
            .args([ONE, name])
            .stderr(Stdio::inherit())
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        let found = text.lines().last().ok_or_else(|| format!("{name}: it said nothing"))?;
        println!("{}", row(name, &serde_json::from_str(found)?));
    }
    Ok(())
}

fn row(name: &str, found: &Value) -> String {
    let number = |key: &str| found[key].as_f64();
    let cell = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "n/a".to_owned(), |value| format!("{value:.digits$}"))
    };
    let (ours, theirs) = (number("ms"), number("torch_ms"));
    let ratio = ours.zip(theirs).map(|(ours, theirs)| theirs / ours);
    let megabytes = |key: &str| {
        number(key).map_or_else(|| "n/a".to_owned(), |bytes| format!("{:.0} MB", bytes / 1e6))
    };
    let batch = number("batch").unwrap_or(f64::NAN);
    format!(
        "| {name} | {} | {batch} | {} | {} | {} | {} | {} | {} | {} |",
        found["parameters"],
        cell(number("flop").map(|flop| flop / 1e9), 1),
        cell(ours, 1),
        cell(theirs, 1),
        cell(ratio, 2),
        megabytes("peak"),
        megabytes("torch_peak"),
        cell(ours.map(|ms| (TRAIN / batch).ceil() * ms / 1e3), 1),
    )
}

/// Lets the last stage of a method and its reference take turns.
fn measure(name: &str) -> Outcome<Value> {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir()?;
    let config = Config::resolve(Some(name), None, None, &[])?;
    let corpus = corpus()?;
    let problem = pipeline::problem(&corpus);
    let stages = config.method.stages();
    let (stage, before) = stages.split_last().ok_or("a method without a stage")?;
    let mut earlier = Vec::new();
    for stage in before {
        let key = format!("{}.epochs=1", stage.name);
        let constant = format!("{}.train.schedule='constant'", stage.name);
        let sets = match name {
            "cumdf" => vec![key],
            _ => vec![key, constant],
        };
        let quick = Config::resolve(Some(name), None, None, &sets)?;
        let place = Place { until: Some(stage.name.to_owned()), ..Place::resuming(folder.path()) };
        let path = pipeline::train(&quick, &corpus, Device::Cpu, &place)?.best;
        earlier.push(Trained { stage: stage.name, sha256: pipeline::sha256_of(&path)?, path });
    }
    let cx = Context {
        problem: &problem,
        train: &corpus.train,
        device: Device::Cpu,
        seed: 1,
        stage: stage.name,
        earlier: &earlier,
    };
    let mut learner = config.method.learner(stage.name, &cx)?;
    learner.begin_epoch(2, &corpus.train);
    let train = &stage.train;
    let mut optimizer = Optimizer::new(groups(learner.as_ref(), train)?, train.betas);
    let order = EpochOrder { seed: 1, epoch: 1, batch_size: train.batch_size, bucket: 1 };
    let batch = corpus.train.epoch(stage.sees.masks(), order).next().ok_or("no batch")?;
    let mut done = 0;
    let mut ours = |n: usize| {
        let started = Instant::now();
        for _ in 0..n {
            learner.loss(&batch).total().backward();
            done += 1;
            if done % train.accumulate == 0 {
                optimizer.clip(train.clip);
                optimizer.step(train.learning_rate);
                optimizer.zero_grad();
            }
        }
        started.elapsed().as_secs_f64() / n as f64
    };
    let warm = ours(train.accumulate);
    let n = ((TURN / warm).ceil() as usize).next_multiple_of(train.accumulate);
    let mut reference = Reference::start(name, train.batch_size, train.accumulate)?;
    let (mut times, mut torch_times) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        times.push(ours(n));
        if let Some(reference) = &mut reference {
            torch_times.push(reference.steps(n)?);
        }
    }
    let stores = [Some(learner.store()), learner.scratch()];
    let variables = stores.into_iter().flatten().flat_map(checkpoint::variables);
    let parameters: usize =
        variables.filter(|(_, v)| v.requires_grad()).map(|(_, v)| v.numel()).sum();
    Ok(json!({
        "parameters": parameters,
        "batch": train.batch_size,
        "flop": reference.as_ref().map(|reference| reference.flop),
        "ms": median(&mut times[1..]) * 1e3,
        "torch_ms": (!torch_times.is_empty()).then(|| median(&mut torch_times[1..]) * 1e3),
        "peak": peak(),
        "torch_peak": reference.as_ref().map(|reference| reference.peak),
    }))
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Largest resident size of this process so far, in bytes.
fn peak() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024.0 * kib)
}

/// The torch.nn program, waiting for its turn.
struct Reference {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    flop: f64,
    peak: f64,
}

impl Reference {
    /// `None` where there is no Python with torch, or no reference that is made for speed.
    fn start(name: &str, batch: i64, accumulate: usize) -> Outcome<Option<Self>> {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let python = root.join(".venv/bin/python");
        let told = ["cumdf", "mlp"].contains(&name); // written to be read, and a floor
        if told || !python.exists() {
            return Ok(None);
        }
        let [l, a, v] = DIMS;
        let mut child = Command::new(python)
            .arg(root.join("scripts/step_times.py"))
            .args([name, "--batch", &batch.to_string(), "--steps", &STEPS.to_string()])
            .args(["--dims", &format!("{l},{a},{v}"), "--accumulate", &accumulate.to_string()])
            .env("OMP_NUM_THREADS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let asks = child.stdin.take().ok_or("no way to ask")?;
        let mut answers = BufReader::new(child.stdout.take().ok_or("no way to hear")?);
        let mut line = String::new();
        if answers.read_line(&mut line)? == 0 {
            eprintln!("{name}: no reference to time; scripts/setup --python installs torch");
            return Ok(None);
        }
        let flop = serde_json::from_str::<Value>(&line)?["flop"].as_f64().unwrap_or(f64::NAN);
        Ok(Some(Self { child, asks, answers, flop, peak: f64::NAN }))
    }

    /// Seconds per step of `n` steps.
    fn steps(&mut self, n: usize) -> Outcome<f64> {
        writeln!(self.asks, "{n}")?;
        self.asks.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let told: Value = serde_json::from_str(&line)?;
        self.peak = told["peak"].as_f64().unwrap_or(f64::NAN);
        Ok(told["seconds"].as_f64().ok_or("no seconds")? / n as f64)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two batches of the largest recipe's size, with a few samples to validate on.
fn corpus() -> Outcome<Corpus> {
    tch::manual_seed(1);
    let samples = |split: Split| {
        let n = if split == Split::Train { 256 } else { 8 };
        Samples {
            features: DIMS.map(|d| Tensor::randn([n, STEPS, d], (Kind::Float, Device::Cpu))),
            labels: Labels::Scores((0..n).map(|i| (i % 7 - 3) as f32).collect()),
            lengths: vec![STEPS; n as usize],
            ids: (0..n).map(|i| format!("{split} {i}")).collect(),
            present: vec![ModalitySet::ALL; n as usize],
            truth: None,
        }
    };
    let task = Task::Sentiment { lo: -3, hi: 3 };
    let dataset = Dataset::new("CMU-MOSI's size", task, Split::ALL.map(samples))?;
    Ok(Corpus::prepare(&dataset, 0.0, true, Device::Cpu)?)
}
