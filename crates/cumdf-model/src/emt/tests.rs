use tch::{Device, Kind, nn::VarStore};

use super::*;
use crate::testing::{
    alone, assert_close, assert_gradients_but, hide, inputs, n_parameters, names, settle, wave,
};

const DIMS: [i64; 3] = [6, 4, 5];

fn mosi() -> EmtConfig {
    EmtConfig {
        language_hidden: 128,
        audio_hidden: 32,
        vision_hidden: 64,
        language_out: 128,
        audio_out: 16,
        vision_out: 32,
        model_dim: 128,
        n_heads: 4,
        n_layers: 3,
        attention_dropout: 0.3,
        feed_dropout: 0.1,
        head_dropout: 0.3,
        head_hidden: 256,
        global_predictor: 128,
        language_predictor: 64,
        audio_predictor: 8,
        vision_predictor: 16,
    }
}

/// Every optional layer is there, and quick.
fn tiny() -> EmtConfig {
    EmtConfig {
        language_hidden: 10,
        audio_hidden: 7,
        vision_hidden: 9,
        language_out: 6,
        audio_out: 4,
        vision_out: 5,
        model_dim: 8,
        n_heads: 2,
        n_layers: 2,
        head_hidden: 12,
        global_predictor: 6,
        ..mosi()
    }
}

fn sentiment() -> Task {
    Task::Sentiment { lo: -3, hi: 3 }
}

fn emotions() -> Task {
    Task::Emotion { classes: ["neutral", "happy", "sad"].map(String::from).to_vec() }
}

fn shape(task: Task, dims: [i64; 3]) -> Shape {
    Shape { task, steps: 50, dims }
}

fn network(cfg: &EmtConfig, task: Task) -> (VarStore, Emt) {
    tch::manual_seed(5);
    let vs = VarStore::new(Device::Cpu);
    let net = Emt::new(&vs.root(), cfg, &shape(task, DIMS)).unwrap();
    (vs, net)
}

fn siamese(cfg: &EmtConfig) -> (VarStore, Siamese) {
    let vs = VarStore::new(Device::Cpu);
    let siamese = Siamese::new(&vs.root(), cfg, &shape(sentiment(), DIMS));
    (vs, siamese)
}

/// Two views of four samples, the second with gaps: frames, a modality, all but one modality.
fn views() -> [Inputs; 2] {
    let lengths = [5, 3, 1, 4];
    let [complete, incomplete] = [(); 2].map(|()| inputs(&lengths, 5, DIMS));
    for (m, step) in [(0, 1), (1, 4), (2, 0)] {
        let _ = incomplete.features[m].get(0).get(step).zero_();
        let _ = incomplete.seen.get(0).get(m as i64).get(step).fill_(0);
    }
    hide(&incomplete, 1, 2);
    hide(&incomplete, 3, 0);
    hide(&incomplete, 3, 1);
    [complete, incomplete]
}

fn values(answer: Answer) -> Tensor {
    match answer {
        Answer::Score(x) | Answer::Flags(x) | Answer::Classes(x) => x,
    }
}

fn parameters_under(vs: &VarStore, prefix: &str) -> i64 {
    let own = vs.variables().into_iter().filter(|(name, _)| name.starts_with(prefix));
    own.map(|(_, variable)| variable.numel() as i64).sum()
}

#[test]
fn it_has_the_published_size_and_the_fusion_s_does_not_grow_with_its_depth() {
    for n_layers in [1, 3, 8] {
        let vs = VarStore::new(Device::Cpu);
        let cfg = EmtConfig { n_layers, ..mosi() };
        let shape = shape(sentiment(), [300, 74, 1024]);
        let _net = Emt::new(&vs.root(), &cfg, &shape).unwrap();
        assert_eq!(parameters_under(&vs, "fusion."), 478_337, "{n_layers} layers");
        let unit = ["fusion.cross.", "fusion.own.", "fusion.feed."];
        assert_eq!(unit.map(|part| parameters_under(&vs, part)).iter().sum::<i64>(), 330_112);
        assert_eq!(n_parameters(&vs), 1_209_778);
        let scratch = VarStore::new(Device::Cpu);
        let _siamese = Siamese::new(&scratch.root(), &cfg, &shape);
        assert_eq!(n_parameters(&scratch), 462_982);
    }
}

#[test]
fn variables_are_named_as_the_docs_say() {
    let linear = |path: &str| ["weight", "bias"].map(|v| format!("{path}.{v}"));
    for (lean, cfg) in [(false, tiny()), (true, mosi())] {
        let (vs, _net) = network(&cfg, emotions());
        let mut want = Vec::new();
        for m in ["language", "audio", "vision"] {
            let lstm = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"];
            want.extend(lstm.map(|v| format!("encoder.{m}.lstm.{v}")));
            if !(lean && m == "language") {
                want.extend(linear(&format!("encoder.{m}.out")));
                want.push(format!("project.{m}.weight"));
            }
        }
        for attention in ["cross", "own"] {
            want.extend(linear(&format!("fusion.{attention}.norm")));
            want.extend(linear(&format!("fusion.{attention}.out")));
            want.extend(["query", "key_value"].map(|v| format!("fusion.{attention}.{v}.weight")));
        }
        let layers = [
            "fusion.cross.context_norm",
            "fusion.feed.norm",
            "fusion.feed.linear1",
            "fusion.feed.linear2",
            "fusion.pool.linear1",
            "fusion.pool.linear2",
            "head.linear1",
            "head.linear2",
            "head.linear3",
        ];
        want.extend(layers.into_iter().flat_map(linear));
        want.sort();
        assert_eq!(names(&vs), want);

        let (vs, _siamese) = siamese(&cfg);
        let mut want = Vec::new();
        for n in VECTORS {
            let at = format!("attract.{n}");
            want.extend(linear(&format!("{at}.project")));
            want.extend(linear(&format!("{at}.predict_norm")));
            want.extend(linear(&format!("{at}.predict2")));
            want.push(format!("{at}.predict1.weight"));
            for norm in ["project_norm", "predict_norm"] {
                want.extend(["running_mean", "running_var"].map(|v| format!("{at}.{norm}.{v}")));
            }
        }
        want.extend(Modality::ALL.iter().flat_map(|m| linear(&format!("reconstruct.{m}"))));
        want.sort();
        assert_eq!(names(&vs), want);
    }
}

#[test]
fn every_variable_gets_a_gradient() {
    for task in [sentiment(), emotions()] {
        for cfg in [tiny(), mosi()] {
            let (vs, net) = network(&cfg, task.clone());
            let (scratch, siamese) = siamese(&cfg);
            settle(&vs);
            settle(&scratch);
            let [complete, incomplete] = views();
            let pass = net.views(&complete, &incomplete, true);
            let loss = pass.output.square().sum(Kind::Float)
                + siamese.attract(&pass.vectors)
                + siamese.reconstruct(&pass.tokens, &complete, &incomplete);
            assert_gradients_but(&vs, &loss, &["fusion.pool.linear2.bias"]); // before a softmax
            // Before a batch normalisation a bias is moved by rounding alone.
            for (name, variable) in scratch.variables() {
                if variable.requires_grad() && !name.ends_with("project.bias") {
                    let norm = variable.grad().norm().double_value(&[]);
                    assert!(norm.is_finite() && norm > 0.0, "{name}: {norm}");
                }
            }
        }
    }
}

/// One batch of both views is what the views come to by themselves.
#[test]
fn views_do_not_see_each_other() {
    for task in [sentiment(), emotions()] {
        let (_vs, net) = network(&tiny(), task);
        let [complete, incomplete] = views();
        let both = net.views(&complete, &incomplete, false);
        for (view, inputs) in [&complete, &incomplete].into_iter().enumerate() {
            let one = net.forward(inputs, 4, false);
            let half = |x: &Tensor| x.chunk(2, 0)[view].shallow_clone();
            assert_close(&half(&both.output), &one.output, 1e-5);
            for (both, one) in both.vectors.iter().zip(&one.vectors) {
                assert_close(&half(both), one, 1e-5);
            }
            if view == 1 {
                assert_close(&both.tokens, &one.tokens, 1e-5);
            }
        }
    }
}

#[test]
fn an_incomplete_view_s_answer_does_not_depend_on_the_complete_one() {
    let (_vs, net) = network(&tiny(), sentiment());
    let [complete, incomplete] = views();
    let want = net.views(&complete, &incomplete, false);
    for x in &complete.features {
        let _ = x.shallow_clone().fill_(1e3);
    }
    let got = net.views(&complete, &incomplete, false);
    assert_close(&got.output.narrow(0, 4, 4), &want.output.narrow(0, 4, 4), 0.0);
    assert_close(&got.tokens, &want.tokens, 0.0);
}

#[test]
fn neither_batch_mates_nor_padding_change_an_answer() {
    for task in [sentiment(), emotions()] {
        let (_vs, net) = network(&tiny(), task);
        let lengths = [3, 7, 1];
        let [batch, padded] = [7, 12].map(|steps| inputs(&lengths, steps, DIMS));
        for inputs in [&batch, &padded] {
            hide(inputs, 0, 1);
        }
        let together = values(net.predict(&batch));
        assert_close(&values(net.predict(&padded)), &together, 1e-5);
        for row in 0..3 {
            let single = values(net.predict(&alone(&batch, row)));
            assert_close(&single, &together.narrow(0, row, 1), 1e-5);
        }
    }
}

/// Whatever stands in padded steps is no key, and no last step: the recurrent layers only ever hand
/// it on to steps that are padding too.
#[test]
fn padding_is_never_read() {
    let (_vs, net) = network(&tiny(), sentiment());
    let [clean, spoilt] = [(); 2].map(|()| inputs(&[3, 5], 5, DIMS));
    for x in &spoilt.features {
        let _ = x.get(0).narrow(0, 3, 2).fill_(1e30);
    }
    assert_close(&values(net.predict(&spoilt)), &values(net.predict(&clean)), 0.0);
}

#[test]
fn every_missing_pattern_has_a_finite_answer_of_its_own() {
    for task in [sentiment(), emotions()] {
        let (_vs, net) = network(&tiny(), task);
        let mut answers = Vec::new();
        for pattern in 0..8 {
            let batch = inputs(&[4], 4, DIMS);
            (0..3).filter(|m| pattern >> m & 1 == 0).for_each(|m| hide(&batch, 0, m));
            let answer = values(net.predict(&batch));
            assert!(bool::try_from(answer.isfinite().all()).unwrap(), "{pattern}: {answer}");
            assert!(answers.iter().all(|other| other != &answer), "{pattern}");
            answers.push(answer);
        }
    }
}

#[test]
fn answers_have_the_form_of_the_task() {
    let batch = inputs(&[3, 5], 5, DIMS);
    let (_vs, net) = network(&tiny(), emotions());
    let Answer::Flags(flags) = net.predict(&batch) else { panic!("emotions want flags") };
    let logits = net.forward(&batch, 0, false).output;
    assert_eq!(logits.size(), [2, 3, 2]);
    assert_close(&flags, &logits.softmax(-1, Kind::Float).select(2, 1), 1e-6);
    // The neutral score is added to what the head says.
    let (vs, net) = network(&tiny(), Task::Sentiment { lo: 1, hi: 5 });
    tch::no_grad(|| {
        for name in ["head.linear3.weight", "head.linear3.bias"] {
            let _ = vs.variables()[name].shallow_clone().zero_();
        }
    });
    let Answer::Score(score) = net.predict(&batch) else { panic!("sentiment wants scores") };
    assert_close(&score, &Tensor::from_slice(&[3f32, 3.0]), 1e-6);
}

#[test]
fn a_single_step_and_a_single_sample_go_through_training() {
    let (_vs, net) = network(&tiny(), sentiment());
    let (scratch, siamese) = siamese(&tiny());
    let [complete, incomplete] = [(); 2].map(|()| inputs(&[1], 1, DIMS));
    hide(&incomplete, 0, 0);
    let pass = net.views(&complete, &incomplete, true);
    let loss = pass.output.sum(Kind::Float)
        + siamese.attract(&pass.vectors)
        + siamese.reconstruct(&pass.tokens, &complete, &incomplete);
    assert!(loss.double_value(&[]).is_finite(), "{loss}");
    for (name, variable) in scratch.variables() {
        assert!(bool::try_from(variable.isfinite().all()).unwrap(), "{name} {variable}");
    }
}

#[test]
fn equal_views_cost_no_reconstruction_even_where_the_data_lack_a_modality() {
    let (_vs, net) = network(&tiny(), sentiment());
    let (_scratch, siamese) = siamese(&tiny());
    let [complete, incomplete] = [(); 2].map(|()| inputs(&[5, 3], 5, DIMS));
    [&complete, &incomplete].into_iter().for_each(|view| hide(view, 0, 1));
    let pass = net.views(&complete, &incomplete, true);
    let loss = siamese.reconstruct(&pass.tokens, &complete, &incomplete);
    assert_eq!(loss.double_value(&[]).to_bits(), 0);
}

/// Two channels, three steps of which the last is padding; the first is hidden. Errors of 0.5 and 2
/// cost 0.125 and 1.5.
#[test]
fn a_reconstruction_by_hand_is_over_hidden_frames_alone() {
    let view = |seen: [bool; 3]| {
        let seen = Tensor::from_slice(&seen).view([1, 1, 3]);
        Inputs {
            features: [0; 3].map(|_| Tensor::zeros([1, 3, 2], (Kind::Float, Device::Cpu))),
            seen: seen.expand([1, 3, 3], false),
            valid: Tensor::from_slice(&[true, true, false]).view([1, 3]),
        }
    };
    let [complete, incomplete] = [view([true, true, false]), view([false, true, false])];
    let rebuilt = Tensor::from_slice(&[0.5f32, -2.0, 9.0, 9.0, f32::NAN, f32::INFINITY]);
    let rebuilt = rebuilt.view([1, 3, 2]);
    let got = reconstruction(Modality::Audio, &rebuilt, &complete, &incomplete);
    assert!((got.double_value(&[]) - 1.625 / 2.0).abs() < 1e-5, "{got}");
}

/// p of the first view against z of the second, and the other way: cosines 0 and 1, then -1 and 1.
#[test]
fn an_attraction_by_hand_crosses_the_views() {
    let rows = |x: [f32; 8]| Tensor::from_slice(&x).view([4, 2]);
    let p = rows([1.0, 0.0, 0.0, 2.0, 3.0, 0.0, 0.0, -1.0]);
    let z = rows([5.0, 0.0, 0.0, 1.0, 0.0, 7.0, 0.0, 4.0]);
    // cos(p, z~) = 0, 1; cos(p~, z) = 1, -1.
    let got = attraction(&z, &p).double_value(&[]);
    assert!((got + 0.25).abs() < 1e-6, "{got}");
    let same = attraction(&p.abs(), &Tensor::cat(&[p.narrow(0, 2, 2), p.narrow(0, 0, 2)], 0).abs());
    assert!((same.double_value(&[]) + 1.0).abs() < 1e-6, "{same}");
}

#[test]
fn no_gradient_reaches_what_is_attracted_to() {
    let [z, p] = [1.0, 2.0].map(|s| (wave(&[6, 3]) + s).set_requires_grad(true));
    attraction(&z, &p).backward();
    assert!(!z.grad().defined());
    assert!(bool::try_from(p.grad().any()).unwrap());
}

#[test]
fn running_statistics_take_the_complete_view_first() {
    let (scratch, siamese) = siamese(&tiny());
    let vectors = wave(&[8, 4]); // audio's
    let projected = scratch.variables()["attract.audio.project.weight"].shallow_clone();
    let bias = scratch.variables()["attract.audio.project.bias"].shallow_clone();
    let means = vectors.linear(&projected, Some(&bias)).view([2, 4, 4]).mean_dim(
        [1i64].as_slice(),
        false,
        Kind::Float,
    );
    let _ = siamese.heads(2, &vectors);
    let want = means.get(0) * 0.1 * 0.9 + means.get(1) * 0.1;
    assert_close(&scratch.variables()["attract.audio.project_norm.running_mean"], &want, 1e-6);
}

/// Both directions read what the layer was given: with the sequences' own update switched off by
/// asking for none, the context of a single layer stays the same.
#[test]
fn a_layer_s_context_reads_the_sequences_before_their_update() {
    let (_vs, net) = network(&EmtConfig { n_layers: 1, ..tiny() }, sentiment());
    let batch = inputs(&[5, 2], 5, DIMS);
    let [without, with] = [0, 2].map(|kept| net.forward(&batch, kept, false));
    assert_close(&with.output, &without.output, 0.0);
    assert_eq!((without.tokens.size()[0], with.tokens.size()[0]), (0, 2));
}

#[test]
fn positions_are_told_apart() {
    let (_vs, net) = network(&tiny(), sentiment());
    let batch = inputs(&[4], 4, DIMS);
    let pass = net.forward(&batch, 1, false);
    let tokens = pass.tokens.select(1, 0).squeeze_dim(0); // language, [T, d]
    assert!((tokens.get(0) - tokens.get(1)).abs().max().double_value(&[]) > 1e-3, "{tokens}");
}

#[test]
fn impossible_values_are_all_listed() {
    assert_eq!(mosi().problems(), [""; 0]);
    let cfg = EmtConfig {
        audio_hidden: 0,
        n_layers: 65,
        model_dim: 12,
        n_heads: 8,
        feed_dropout: 1.0,
        ..mosi()
    };
    let vs = VarStore::new(Device::Cpu);
    let error = Emt::new(&vs.root(), &cfg, &shape(emotions(), DIMS)).unwrap_err();
    let want = "model.audio_hidden = 0: must lie between 1 and 8192\n  \
                model.n_layers = 65: must lie between 1 and 64\n  \
                model.feed_dropout = 1: must lie in [0, 1)\n  \
                model.model_dim = 12: must be even, and a multiple of n_heads = 8";
    assert_eq!(error.to_string(), want);
    for (model_dim, n_heads) in [(9, 3), (8, 0)] {
        assert_eq!(EmtConfig { model_dim, n_heads, ..mosi() }.problems().len(), 1);
    }
}
