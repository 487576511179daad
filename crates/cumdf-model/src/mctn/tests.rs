use tch::{Device, nn::VarStore};

use super::*;
use crate::testing::{alone, assert_close, hide, inputs, n_parameters, names, wave};

const DIMS: [i64; 3] = [6, 4, 5];

fn config() -> MctnConfig {
    MctnConfig { sources: Modality::ALL.to_vec(), hidden_dim: 32, cell: MctnCell::Standard }
}

fn official() -> MctnConfig {
    MctnConfig { cell: MctnCell::Official, ..config() }
}

fn text() -> MctnConfig {
    MctnConfig { sources: vec![Modality::Language], ..config() }
}

fn sentiment() -> Task {
    Task::Sentiment { lo: -3, hi: 3 }
}

fn emotions() -> Task {
    Task::Emotion { classes: ["neutral", "happy", "sad", "angry"].map(String::from).to_vec() }
}

fn network(cfg: &MctnConfig, task: Task, dims: [i64; 3]) -> (VarStore, Mctn) {
    let vs = VarStore::new(Device::Cpu);
    let net = Mctn::new(&vs.root(), cfg, &Shape { task, steps: 50, dims }).unwrap();
    (vs, net)
}

fn values(answer: Answer) -> Tensor {
    match answer {
        Answer::Score(x) | Answer::Flags(x) | Answer::Classes(x) => x,
    }
}

/// Everything that a loss reads, as one number.
fn everything(pass: &MctnPass) -> Tensor {
    let square = |x: &Tensor| x.square().mean(Kind::Float);
    let frames = pass.translations.iter().flat_map(|t| [&t.first, &t.cycle, &t.second]);
    frames.map(square).fold(square(&pass.outputs), |sum, term| sum + term)
}

#[test]
fn it_has_the_size_and_names_of_its_formula() {
    let widths = [300, 74, 1024];
    let (vs, _net) = network(&text(), sentiment(), widths);
    // E1 2 (128 (1024 + 32) + 256), D1 and D2 33 1024 + 128 64 + 256 + 2 1024 + 64 each,
    // E2 2 (128 64 + 256), the answer 128 64 + 256 + 33 + 33.
    assert_eq!(n_parameters(&vs), 270_848 + 2 * 44_352 + 16_896 + 8_514);
    let mut want = vec!["quality".to_owned()];
    let lstm = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"];
    for k in [1, 2] {
        for suffix in ["", "_reverse"] {
            want.extend(lstm.map(|v| format!("language.encode{k}.{v}{suffix}")));
        }
        let decoder = [
            "attention.key.weight",
            "attention.state.weight",
            "attention.state.bias",
            "attention.score.weight",
            "cell.weight_ih",
            "cell.weight_hh",
            "cell.bias_ih",
            "cell.bias_hh",
            "out.weight",
            "out.bias",
        ];
        want.extend(decoder.map(|v| format!("language.decode{k}.{v}")));
    }
    want.extend(lstm.map(|v| format!("language.regress.lstm.{v}")));
    let ends = ["score.weight", "score.bias", "out.weight", "out.bias"];
    want.extend(ends.map(|v| format!("language.regress.{v}")));
    want.sort();
    assert_eq!(names(&vs), want);

    let (vs, _net) = network(&config(), sentiment(), widths);
    assert_eq!(n_parameters(&vs), 3 * 384_962);
    let (vs, _net) =
        network(&MctnConfig { sources: text().sources, ..official() }, sentiment(), widths);
    assert_eq!(n_parameters(&vs), 384_962 - 2 * (2 * 1024 + 64) + 2 * 65);
}

#[test]
fn every_variable_gets_a_gradient() {
    for task in [sentiment(), emotions()] {
        for cfg in [config(), text()] {
            let (vs, net) = network(&cfg, task.clone(), DIMS);
            let batch = inputs(&[3, 5, 1, 4], 5, DIMS);
            (everything(&net.forward(&batch)) + net.decay()).backward();
            for (name, variable) in vs.variables().into_iter().filter(|(_, v)| v.requires_grad()) {
                let norm = variable.grad().norm().double_value(&[]);
                assert!(norm.is_finite() && norm > 0.0, "{name}: {norm}");
            }
        }
    }
}

/// The attention's term of the state is the same for every step: the softmax has no gradient for it.
#[test]
fn of_the_official_cell_only_the_attention_to_the_state_learns_nothing() {
    let (vs, net) = network(&official(), sentiment(), DIMS);
    for (name, mut variable) in vs.variables() {
        if name.ends_with("regress.score.weight") {
            // As it starts, tanh is nearly linear, and the score's bias nearly cancels as well.
            let _ = tch::no_grad(|| variable.g_mul_scalar_(30.0));
        }
    }
    everything(&net.forward(&inputs(&[3, 5, 1, 4], 5, DIMS))).backward();
    for (name, variable) in vs.variables().into_iter().filter(|(_, v)| v.requires_grad()) {
        let largest = variable.grad().abs().max().double_value(&[]);
        let dead = name.contains("attention.state");
        assert_eq!(largest < 1e-9, dead, "{name}: {largest}");
        if name.contains("cell.") {
            let forget = variable.grad().narrow(0, 32, 32).abs().max().double_value(&[]);
            assert_eq!(forget.to_bits(), 0, "{name}: the forget gate is the input gate");
        }
    }
}

#[test]
fn neither_batch_mates_nor_padding_change_an_answer() {
    for (cfg, task) in [(config(), sentiment()), (config(), emotions()), (official(), sentiment())]
    {
        let (_vs, net) = network(&cfg, task, DIMS);
        let lengths = [3, 7, 1];
        let [batch, padded] = [7, 12].map(|steps| inputs(&lengths, steps, DIMS));
        for inputs in [&batch, &padded] {
            hide(inputs, 0, 1);
        }
        let together = values(net.predict(&batch));
        assert_close(&values(net.predict(&padded)), &together, 1e-6);
        let pass = net.forward(&batch);
        for row in 0..3 {
            let single = alone(&batch, row);
            assert_close(&values(net.predict(&single)), &together.narrow(0, row, 1), 1e-6);
            let length = lengths[row as usize];
            let parts = |t: &Translations| [t.first.copy(), t.cycle.copy(), t.second.copy()];
            for (own, all) in net.forward(&single).translations.iter().zip(&pass.translations) {
                for (own, all) in parts(own).iter().zip(parts(all)) {
                    assert_close(own, &all.narrow(0, row, 1).narrow(1, 0, length), 1e-6);
                }
            }
        }
    }
}

/// With one step attention has no choice, and nothing is reversed.
#[test]
fn one_step_is_enough() {
    for task in [sentiment(), emotions()] {
        let (vs, net) = network(&config(), task, DIMS);
        let batch = inputs(&[1, 1], 1, DIMS);
        let answers = values(net.predict(&batch));
        assert!(bool::try_from(answers.isfinite().all()).unwrap(), "{answers}");
        everything(&net.forward(&batch)).backward();
        for grad in vs.trainable_variables().iter().map(Tensor::grad).filter(Tensor::defined) {
            assert!(bool::try_from(grad.isfinite().all()).unwrap(), "{grad}");
        }
    }
}

#[test]
fn answers_have_the_form_of_the_task() {
    let batch = inputs(&[3, 5], 5, DIMS);
    let (_vs, net) = network(&text(), emotions(), DIMS);
    let Answer::Flags(flags) = net.predict(&batch) else { panic!("emotions want flags") };
    let logits = net.forward(&batch).outputs; // [1, B, C, 2]
    assert_eq!(logits.size(), [1, 2, 4, 2]);
    let yes = (logits.select(3, 1) - logits.select(3, 0)).sigmoid().get(0);
    assert_close(&flags, &yes, 1e-6);
    let (_vs, net) = network(&text(), Task::Sentiment { lo: 1, hi: 5 }, DIMS);
    let Answer::Score(score) = net.predict(&batch) else { panic!("sentiment wants scores") };
    assert_close(&score, &net.forward(&batch).outputs.get(0), 1e-6);
    assert!((score.mean(Kind::Float).double_value(&[]) - 3.0).abs() < 1.0, "{score}");
}

#[test]
fn a_network_reads_nothing_but_its_source() {
    for cfg in [config(), official()] {
        let (_vs, net) = network(&cfg, sentiment(), DIMS);
        let want = net.forward(&inputs(&[3, 5], 5, DIMS));
        let other = inputs(&[3, 5], 5, DIMS);
        let noise = |m: usize| other.features[m].g_mul_scalar(-3.0) + 1.0;
        let loud = Inputs {
            features: [other.features[0].shallow_clone(), noise(1), noise(2)],
            seen: other.seen.shallow_clone(),
            valid: other.valid.shallow_clone(),
        };
        let got = net.forward(&loud);
        assert!(got.outputs.get(0).equal(&want.outputs.get(0)), "of language");
        assert!(!got.outputs.get(1).equal(&want.outputs.get(1)), "of audio");
        let [got, want] = [&got, &want].map(|pass| &pass.translations[0]);
        assert!(got.cycle.equal(&want.cycle) && got.second.equal(&want.second));
        // Of language alone, the networks of the others are not heard.
        for batch in [&other, &loud] {
            for row in [0, 1] {
                let _ = batch.seen.get(row).narrow(0, 1, 2).zero_();
            }
        }
        assert!(values(net.predict(&other)).equal(&values(net.predict(&loud))));
        assert_close(&values(net.predict(&other)), &net.forward(&other).outputs.get(0), 0.0);
    }
}

#[test]
fn the_way_there_and_the_way_back_are_the_same_network() {
    let (vs, net) = network(&config(), sentiment(), DIMS);
    let batch = inputs(&[3, 5], 5, DIMS);
    let moved = |name: &str| {
        let before = net.forward(&batch);
        let mut variable = vs.variables()[name].shallow_clone();
        tch::no_grad(|| variable.copy_(&(&variable + wave(&variable.size()))));
        let after = net.forward(&batch);
        let [before, after] = [&before, &after].map(|pass| &pass.translations[0]);
        [
            !after.first.equal(&before.first),
            !after.cycle.equal(&before.cycle),
            !after.second.equal(&before.second),
        ]
    };
    assert_eq!(moved("language.decode1.cell.weight_ih"), [true, true, false]);
    assert_eq!(moved("language.encode1.weight_ih_l0"), [true, true, true]);
    assert_eq!(moved("language.decode2.cell.weight_ih"), [false, false, true]);
    assert_eq!(moved("audio.decode1.cell.weight_ih"), [false, false, false]);
}

/// The cycle skips making `P^`; it must be what one gets by making it.
#[test]
fn the_cycle_reads_what_was_translated() {
    for cfg in [config(), official()] {
        let (_vs, net) = network(&cfg, sentiment(), DIMS);
        let batch = inputs(&[3, 5], 5, DIMS);
        let pass = net.forward(&batch);
        let (turn, beyond) = (Turn::new(&batch.valid), batch.valid.logical_not());
        for (own, got) in net.nets.iter().zip(&pass.translations) {
            // As the source does it: filled up with zeros to the common width.
            let first = got.first.masked_fill(&beyond.unsqueeze(-1), 0.0);
            let filled = first.constant_pad_nd([0, 6 - first.size()[2]]);
            let [[forward, backward]] = BiRnn::run([&own.encode1], [&filled], &turn);
            let joint = (forward + backward).unsqueeze(0);
            let states = decode(&[&own.decode1], &joint, &beyond).get(0);
            let keep = |x: &Tensor| x.masked_fill(&beyond.unsqueeze(-1), 0.0);
            let want = own.decode1.frames(&states, DIMS[own.source.index()]);
            assert_close(&keep(&got.cycle), &keep(&want), 1e-5);
        }
    }
}

#[test]
fn translations_are_as_wide_as_their_targets() {
    let (_vs, net) = network(&config(), sentiment(), DIMS);
    for t in net.forward(&inputs(&[3, 5], 5, DIMS)).translations {
        let width = |m: Modality| vec![2, 5, DIMS[m.index()]];
        let [p, q] = t.targets;
        assert_eq!([t.first.size(), t.cycle.size(), t.second.size()], [p, t.source, q].map(width));
        let mut all = [t.source, p, q];
        all.sort();
        assert_eq!(all, Modality::ALL);
    }
}

/// The samples see: all; audio and vision; vision; nothing.
#[test]
fn answers_are_weighted_by_quality_among_the_networks_that_see_something() {
    let (_vs, mut net) = network(&config(), sentiment(), DIMS);
    let batch = inputs(&[3, 5, 4, 2], 5, DIMS);
    for (row, m) in [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)] {
        hide(&batch, row, m);
    }
    let third = 1.0 / 3.0;
    let equal = [[third, third, third], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0], [third, third, third]];
    let shares = |net: &Mctn| net.shares(&batch).transpose(0, 1);
    let table = |rows: [[f32; 3]; 4]| Tensor::from_slice(&rows.concat()).view([4, 3]);
    assert_close(&shares(&net), &table(equal), 1e-6);
    // 0.1 ln 2 less error is twice the weight; the third has none, and counts as the worst.
    net.set_quality([Some(1.0), Some(1.0 + 0.1 * 2f64.ln()), None]);
    let weighted = [[0.5, 0.25, 0.25], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0], [0.5, 0.25, 0.25]];
    assert_close(&shares(&net), &table(weighted), 1e-6);
    let outputs = net.forward(&batch).outputs.transpose(0, 1); // [B, 3]
    let want = (outputs * table(weighted)).sum_dim_intlist(1, false, Kind::Float);
    assert_close(&values(net.predict(&batch)), &want, 1e-6);
}

#[test]
fn the_papers_network_does_not_tell_audio_from_vision() {
    let (_vs, net) = network(&text(), emotions(), DIMS);
    let batch = inputs(&[4, 4, 4], 4, DIMS);
    for (row, m) in [(0, 0), (1, 0), (1, 1), (2, 0), (2, 2)] {
        hide(&batch, row, m);
    }
    let answers = values(net.predict(&batch));
    for row in [1, 2] {
        assert_close(&answers.get(row), &answers.get(0), 1e-6);
    }
}

#[test]
fn an_error_is_over_the_valid_steps_of_the_named_samples() {
    let got = Tensor::from_slice(&[1f32, 3.0, 9.0, 9.0, 5.0, 5.0, 2.0, 0.0]).view([2, 2, 2]);
    let want = got.zeros_like();
    let valid = Tensor::from_slice(&[true, false, true, true]).view([2, 2]);
    let error = |samples: [bool; 2]| {
        translation_error(&got, &want, &Tensor::from_slice(&samples), &valid).double_value(&[])
    };
    assert!((error([true, false]) - 5.0).abs() < 1e-6); // (1 + 9) / 2
    assert!((error([false, true]) - 13.5).abs() < 1e-6); // (25 + 25 + 4) / 4
    assert!((error([true, true]) - 64.0 / 6.0).abs() < 1e-5);
    assert_eq!(error([false, false]).to_bits(), 0);
}

#[test]
fn impossible_values_are_all_listed() {
    assert_eq!(config().problems(), [""; 0]);
    let shape = Shape { task: sentiment(), steps: 5, dims: DIMS };
    let refused = |sources: Vec<Modality>| {
        let cfg = MctnConfig { sources, hidden_dim: 0, ..config() };
        Mctn::new(&VarStore::new(Device::Cpu).root(), &cfg, &shape).unwrap_err().to_string()
    };
    let size = "model.hidden_dim = 0: must lie between 1 and 8192";
    let empty = "model.sources is empty: at least one network must be asked";
    assert_eq!(refused(vec![]), format!("{empty}\n  {size}"));
    let twice = "model.sources names a modality twice";
    assert_eq!(refused(vec![Modality::Audio; 2]), format!("{twice}\n  {size}"));
    let order = vec![Modality::Vision, Modality::Language];
    let cfg = MctnConfig { sources: order, ..config() };
    let (_vs, net) = network(&cfg, sentiment(), DIMS);
    assert_eq!(net.sources(), [Modality::Language, Modality::Vision]);
}
