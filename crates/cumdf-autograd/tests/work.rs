//! What is counted, against sums by hand. One test, because the count is of the whole process.

use cumdf_autograd::work::Counter;
use tch::{Device, Kind, Tensor};

fn random(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

fn counted<T>(run: impl FnOnce() -> T) -> u64 {
    let counter = Counter::begin();
    let _ = run();
    counter.operations()
}

#[test]
fn products_and_convolutions_are_counted_once_forward_and_backward() {
    let (a, b) = (random(&[3, 5]), random(&[5, 7]));
    let product = 2 * 3 * 5 * 7;
    assert_eq!(counted(|| a.mm(&b)), product);
    assert_eq!(counted(|| a.matmul(&b)), product, "what calls another counts once");
    assert_eq!(counted(|| random(&[3, 7]).addmm(&a, &b)), product);
    assert_eq!(counted(|| random(&[4, 3, 5]).bmm(&random(&[4, 5, 7]))), 4 * product);
    let batch = (random(&[4, 3, 7]), random(&[4, 3, 5]), random(&[4, 5, 7]));
    assert_eq!(counted(|| batch.0.baddbmm(&batch.1, &batch.2, 1.0, 1.0)), 4 * product);
    assert_eq!(counted(|| a.mv(&random(&[5]))), 2 * 3 * 5);
    assert_eq!(counted(|| &a + &a), 0, "no product");

    // A linear layer with gradients of input, weight and bias: a product each of the first two.
    let weight = random(&[7, 5]).set_requires_grad(true);
    let x = random(&[3, 5]).set_requires_grad(true);
    let step = || x.linear(&weight, Some(&random(&[7]))).sum(Kind::Float).backward();
    assert_eq!(counted(step), 3 * product);
    let frozen = x.detach();
    let step = || frozen.linear(&weight, None::<&Tensor>).sum(Kind::Float).backward();
    assert_eq!(counted(step), 2 * product, "an input that learns nothing costs nothing");

    // 6 filters of 3 steps and 4 channels at 10 places of 2 sequences, padded; 4 places by twos.
    let filters = random(&[6, 4, 3]).set_requires_grad(true);
    let x = random(&[2, 4, 10]);
    let one = 2 * (2 * 10) * (6 * 4 * 3);
    let conv =
        |stride: i64, padding: i64| x.conv1d(&filters, None::<&Tensor>, stride, padding, 1, 1);
    assert_eq!(counted(|| conv(1, 1)), one);
    assert_eq!(counted(|| conv(2, 0)), one * 4 / 10);
    assert_eq!(counted(|| conv(1, 1).sum(Kind::Float).backward()), 2 * one, "no input gradient");

    // An LSTM of 5 units over 7 steps of 3 sequences with 4 features, in whatever way it is run.
    let weights = [random(&[20, 4]), random(&[20, 5]), random(&[20]), random(&[20])];
    let weights = weights.map(|w| w.set_requires_grad(true));
    let (x, state) = (random(&[7, 3, 4]), [random(&[1, 3, 5]), random(&[1, 3, 5])]);
    let lstm = || x.lstm(&state, &weights, true, 1, 0.0, true, false, false).0;
    let one = 2 * (7 * 3) * (20 * 4 + 20 * 5);
    assert_eq!(counted(|| tch::no_grad(lstm)), one);
    // Backward: the weights' gradients, and the states'; those of the input are nobody's.
    let whole = counted(|| lstm().sum(Kind::Float).backward());
    let backward = whole - one;
    assert!((one..=2 * one).contains(&backward), "{backward} of {one}");

    let outer = Counter::begin();
    assert_eq!(counted(|| a.mm(&b)), product, "two that count at once count alike");
    assert_eq!(outer.operations(), product);
    drop(outer);
    let _ = a.mm(&b);
    assert_eq!(counted(|| a.mm(&b)), product);
}
