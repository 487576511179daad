//! The first product of a network with its input, which leaves out frames that are zero.

use cumdf_autograd::record;
use tch::Tensor;

/// Share of the frames that must be zero before it pays to leave them out.
const WORTH_IT: f64 = 0.1;

/// `x W^T + b` for inputs, `[.., d]` to `[.., out]`.
///
/// Under MRMS a third of the frames and more are zero, and so is padding; such a frame gives the
/// bias, and its share of the gradient is nothing. On a CPU they are left out, forward and
/// backward. On a GPU, where to count them would be to wait, and where somebody wants the gradient
/// of the input, this is the plain product.
///
/// - `weight`: `[out, d]`; `bias`: `[out]`
/// - `valid`: `[..]` bool, false where `x` means nothing: such a frame is multiplied whatever it
///   holds, so that it does not decide how the others are computed. `None`: all of `x` counts
pub(crate) fn product(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    valid: Option<&Tensor>,
) -> Tensor {
    if x.device().is_cuda() || x.requires_grad() {
        return x.linear(weight, bias);
    }
    let flat = x.flatten(0, -2); // [frames, d]
    let all = flat.size()[0];
    let few = |zeros: f64| zeros < WORTH_IT * all as f64;
    // `[frames]`: those with something in `size`, and those that mean nothing, whatever they hold.
    let counting = |size: Tensor| match valid {
        Some(valid) => size.ne(0.0).logical_or(&valid.flatten(0, -1).logical_not()),
        None => size.ne(0.0),
    };
    // One channel tells cheaply that there are few.
    let some = counting(flat.select(1, 0)).count_nonzero(None).double_value(&[]);
    if few(all as f64 - some) {
        return x.linear(weight, bias);
    }
    let size = flat.abs().sum_dim_intlist([1i64].as_slice(), false, flat.kind());
    let rows = counting(size).nonzero().squeeze_dim(1);
    if few((all - rows.size()[0]) as f64) {
        return x.linear(weight, bias);
    }
    let kept = flat.index_select(0, &rows);
    let size = [&x.size()[..x.dim() - 1], &weight.size()[..1]].concat();
    let out = tch::no_grad(|| {
        let options = (x.kind(), x.device());
        let out = match bias {
            Some(bias) => bias.expand([all, weight.size()[0]], false).contiguous(),
            None => Tensor::zeros([all, weight.size()[0]], options),
        };
        let _ = out.shallow_clone().index_copy_(0, &rows, &kept.linear(weight, bias));
        out.view(&size[..])
    });
    let none = Tensor::zeros([1], (x.kind(), x.device()));
    record([weight, bias.unwrap_or(&none)], out, move |grad, [of_weight, of_bias]| {
        let grad = grad.flatten(0, -2);
        let sum = || grad.sum_dim_intlist([0i64].as_slice(), false, grad.kind());
        [
            of_weight.then(|| grad.index_select(0, &rows).transpose(0, 1).matmul(&kept)),
            of_bias.then(sum),
        ]
    })
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::testing::{assert_close, wave};

    #[test]
    fn frames_of_zeros_change_neither_product_nor_gradients() {
        for (hidden, bias) in [(4, true), (4, false), (0, true), (7, true)] {
            let x = wave(&[2, 4, 3]).to_kind(Kind::Double);
            let _ = x.flatten(0, 1).narrow(0, 8 - hidden, hidden).zero_();
            let outcome = |ours: bool| {
                let leaf = |size: &[i64]| wave(size).to_kind(Kind::Double).set_requires_grad(true);
                let (w, b) = (leaf(&[5, 3]), leaf(&[5]));
                let b_used = bias.then_some(&b);
                let out = if ours { product(&x, &w, b_used, None) } else { x.linear(&w, b_used) };
                (&out * wave(&out.size())).sum(Kind::Double).backward();
                (out.detach(), w.grad(), b.grad())
            };
            let ((got, got_w, got_b), (want, want_w, want_b)) = (outcome(true), outcome(false));
            assert_close(&got, &want, 1e-12);
            assert_close(&got_w, &want_w, 1e-12);
            assert_eq!(got_b.defined(), bias);
            if bias {
                assert_close(&got_b, &want_b, 1e-12);
            }
        }
    }

    #[test]
    fn what_means_nothing_changes_no_bit_of_the_rest() {
        let (x, w, b) = (wave(&[9, 8, 300]), wave(&[64, 300]), wave(&[64]));
        let _ = x.narrow(1, 0, 3).zero_(); // more than a tenth, so that frames are left out
        let valid = wave(&[9, 8]).gt(-0.5);
        let padding = valid.logical_not().unsqueeze(-1);
        let of = |rubbish: f64| {
            let out = product(&x.masked_fill(&padding, rubbish), &w, Some(&b), Some(&valid));
            out.masked_fill(&padding, 0.0)
        };
        let want = of(0.0);
        for rubbish in [f64::NAN, 1e30] {
            assert!(of(rubbish).equal(&want), "{rubbish} was read");
        }
    }

    #[test]
    fn an_input_that_learns_has_its_gradient() {
        let x =
            wave(&[2, 4, 3]).masked_fill(&wave(&[2, 4, 1]).gt(0.0), 0.0).set_requires_grad(true);
        product(&x, &wave(&[5, 3]), None, None).sum(Kind::Float).backward();
        assert!(bool::try_from(x.grad().any()).unwrap());
    }
}
