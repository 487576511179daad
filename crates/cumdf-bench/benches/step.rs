//! What a training step, a batch and a prediction cost, on one CPU thread per core that libtorch
//! chooses. Ids read `what/recipe/size`; throughput is in utterances.
//!
//! `cargo bench -p cumdf-bench` prints, for the paper's size, also the floating-point operations
//! of a step and the share of this machine's matrix-product peak that it reaches.

#![expect(clippy::print_stdout, reason = "a bench reports to its reader")]
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::{array::from_fn, hint::black_box, time::Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use cumdf_autograd::work::Counter;
use cumdf_data::{Corpus, Dataset, EpochOrder, Labels, ModalitySet, Samples, Split, Task};
use cumdf_model::Problem;
use cumdf_train::{
    config::Config,
    evaluate,
    learner::{Learner as _, groups},
    learners::cumdf::{CumdfConfig, STUDENT, Student, TEACHER, Teacher, TeacherTargets},
    method::Context,
    optim::Optimizer,
    pipeline,
    policy::Clip,
};
use tch::{Device, Kind, Tensor};

/// What is done to a long gradient.
const CLIP: Clip = Clip::Norm(1.0);

/// One size to measure at.
struct Case {
    name: &'static str,
    config: CumdfConfig,
    corpus: Corpus,
    problem: Problem,
}

impl Case {
    /// The embedded default.
    fn synthetic() -> Self {
        let mut config = Config::resolve(None, None, None, &[]).expect("the default configuration");
        let corpus = pipeline::open_corpus(&mut config, Device::Cpu).expect("the synthetic corpus");
        Self::new("recommended/synthetic", &config, corpus)
    }

    /// The paper's: d = 300, T = 50, B = 35, features 300 / 74 / 1024, every sample of full length.
    fn paper() -> Self {
        const N: i64 = 70;
        const T: i64 = 50;
        let sets = ["train.batch_size=35".to_owned()];
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/mosi.toml");
        let config = Config::resolve(None, Some(path.as_ref()), None, &sets).expect("mosi.toml");
        tch::manual_seed(1);
        let samples = |split: Split| Samples {
            features: [300, 74, 1024].map(|d| Tensor::randn([N, T, d], (Kind::Float, Device::Cpu))),
            labels: Labels::Scores((0..N).map(|i| (i % 7 - 3) as f32).collect()),
            lengths: vec![T; N as usize],
            ids: (0..N).map(|i| format!("{split} {i}")).collect(),
            present: vec![ModalitySet::ALL; N as usize],
            truth: None,
        };
        let task = Task::Sentiment { lo: -3, hi: 3 };
        let dataset = Dataset::new("paper's size", task, Split::ALL.map(samples)).expect("data");
        let corpus = Corpus::prepare(&dataset, 0.0, false, Device::Cpu).expect("a corpus");
        Self::new("paper/d300-t50-b35", &config, corpus)
    }

    fn new(name: &'static str, config: &Config, corpus: Corpus) -> Self {
        let problem = pipeline::problem(&corpus);
        Self { name, config: config.settings().expect("it is CUMDF's"), corpus, problem }
    }

    fn context(&self, stage: &'static str) -> Context<'_> {
        Context {
            problem: &self.problem,
            train: &self.corpus.train,
            device: Device::Cpu,
            seed: 1,
            stage,
            earlier: &[],
        }
    }

    fn student(&self) -> Student {
        let teacher = Teacher::new(&self.config, &self.context(TEACHER)).expect("a teacher");
        let targets = TeacherTargets::of(
            teacher.nets(),
            teacher.folds(),
            self.config.student.teacher_guide,
            &self.corpus.train,
        );
        Student::new(&self.config, &self.context(STUDENT), Some(targets)).expect("a student")
    }

    fn optimizer(&self, student: &Student) -> Optimizer {
        let train = &self.config.train;
        Optimizer::new(groups(student, train).expect("the groups are CUMDF's"), train.betas)
    }

    fn order(&self, epoch: u64) -> EpochOrder {
        let (batch_size, bucket) = (self.config.train.batch_size, self.config.train.bucket);
        EpochOrder { seed: 1, epoch, batch_size, bucket }
    }
}

fn benches(criterion: &mut Criterion) {
    // Cargo starts benches in their crate; the synthetic corpus belongs to the workspace.
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    std::env::set_current_dir(root).expect("the workspace");
    for case in [Case::synthetic(), Case::paper()] {
        let batch_size = case.config.train.batch_size;
        let masks = &case.config.masks;
        let mut group = criterion.benchmark_group("step");
        group.sample_size(10).throughput(Throughput::Elements(batch_size as u64));
        let mut student = case.student();
        let mut optimizer = case.optimizer(&student);
        group.bench_function(BenchmarkId::from_parameter(case.name), |bencher| {
            let mut epoch = 0;
            bencher.iter_custom(|n_steps| {
                let mut left = n_steps;
                let mut spent = std::time::Duration::ZERO;
                while left > 0 {
                    epoch += 1;
                    for batch in case.corpus.train.epoch(Some(masks), case.order(epoch)) {
                        let started = Instant::now();
                        let terms = student.loss(&batch);
                        optimizer.zero_grad();
                        terms.total().backward();
                        optimizer.clip(CLIP);
                        optimizer.step(1e-3);
                        spent += started.elapsed();
                        left -= 1;
                        if left == 0 {
                            break;
                        }
                    }
                }
                spent
            });
        });
        group.finish();

        let mut group = criterion.benchmark_group("epoch of batches");
        group.sample_size(10).throughput(Throughput::Elements(case.corpus.train.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(case.name), |bencher| {
            bencher.iter(|| {
                for batch in case.corpus.train.epoch(Some(masks), case.order(1)) {
                    black_box((batch.shown(), batch.targets().distribution().size()));
                }
            });
        });
        group.finish();

        let mut group = criterion.benchmark_group("predict");
        group.sample_size(10).throughput(Throughput::Elements(case.corpus.test.len() as u64));
        let view = evaluate::view(ModalitySet::ALL, 0.2);
        group.bench_function(BenchmarkId::from_parameter(case.name), |bencher| {
            let (net, prior) = (student.predictor(), &case.problem.prior);
            bencher.iter(|| evaluate::predict(net, prior, &case.corpus.test, &view));
        });
        group.finish();
    }
}

/// The share of the machine's peak that a step at the paper's size reaches.
fn share_of_peak(_: &mut Criterion) {
    let case = Case::paper();
    let [a, b]: [Tensor; 2] = from_fn(|_| Tensor::randn([1024, 1024], (Kind::Float, Device::Cpu)));
    let time = |mut f: Box<dyn FnMut() + '_>| {
        f();
        let mut best = f64::INFINITY;
        for _ in 0..7 {
            let started = Instant::now();
            f();
            best = best.min(started.elapsed().as_secs_f64());
        }
        best
    };
    let peak = 2.0 * 1024f64.powi(3) / time(Box::new(|| drop(black_box(a.matmul(&b)))));
    let mut student = case.student();
    let mut optimizer = case.optimizer(&student);
    let masks = &case.config.masks;
    let batch = case.corpus.train.epoch(Some(masks), case.order(1)).next().expect("a batch");
    let mut step = || {
        optimizer.zero_grad();
        student.loss(&batch).total().backward();
        optimizer.clip(CLIP);
        optimizer.step(1e-3);
    };
    let counter = Counter::begin();
    step();
    let flops = counter.operations() as f64;
    drop(counter);
    let seconds = time(Box::new(step));
    println!(
        "step at the paper's size: {:.1} GFLOP in {:.3} s = {:.0} GFLOP/s, {:.2} of the peak of {:.0} GFLOP/s (1024^3 matrix product); {} threads",
        flops / 1e9,
        seconds,
        flops / seconds / 1e9,
        flops / seconds / peak,
        peak / 1e9,
        tch::get_num_threads()
    );
}

criterion_group!(all, benches, share_of_peak);
criterion_main!(all);
