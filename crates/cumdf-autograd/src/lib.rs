//! What libtorch lets C++ alone do: functions with a backward pass of their own, written in Rust, in
//! its graph; and a count of the work that it is called for ([`work`]).
//!
//! [`record`] is what `torch.autograd.Function` is to Python. This crate holds the workspace's C++
//! files, and most of its unsafe code; everything that is computed stays in Rust.
//!
//! Worth it where libtorch's own graph is dear: a recurrent layer is thousands of small nodes to
//! it, each of which keeps tensors and adds its share to the gradients of the weights.

#![expect(unsafe_code, reason = "the border to C++: pointers and a closure's ownership")]

pub mod work;

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tch::Tensor;
use torch_sys::C_tensor;

/// What gives the gradients of `N` inputs: from the gradient of the output, and from which inputs
/// need one, to one each (`None` counts as zeros).
type Backward<const N: usize> =
    Box<dyn Fn(&Tensor, [bool; N]) -> [Option<Tensor>; N] + Send + 'static>;

unsafe extern "C" {
    fn cumdf_wants_gradient(inputs: *const *const C_tensor, n: usize) -> bool;

    fn cumdf_record(
        inputs: *const *const C_tensor,
        n: usize,
        output: *const C_tensor,
        closure: *mut c_void,
        backward: unsafe extern "C" fn(
            *mut c_void,
            *const C_tensor,
            *const bool,
            *mut *mut C_tensor,
        ) -> bool,
        drop: unsafe extern "C" fn(*mut c_void),
    ) -> bool;
}

/// Whether a gradient is to be recorded for what is made of these inputs now.
fn wants_gradient<const N: usize>(inputs: [&Tensor; N]) -> bool {
    let inputs = inputs.map(Tensor::as_ptr);
    // SAFETY: `N` pointers to tensors that the caller borrows; C++ reads them and keeps none.
    unsafe { cumdf_wants_gradient(inputs.as_ptr(), N) }
}

/// Makes `output` the outcome of a function of `inputs`, with this backward pass.
///
/// The output must have been computed without a graph (under [`tch::no_grad_guard`]) into memory of
/// its own. Nothing is recorded, and `backward` dropped, under [`tch::no_grad`] and where no input
/// requires a gradient.
///
/// `backward` is given the gradient of the output, in the output's shape, and which inputs need
/// one; it runs without a graph of its own, so there are no second derivatives. It may be called
/// again where a graph is kept. What it holds lives until the backward pass is over: inputs and
/// copies are fine, but never the tensor returned here, which would keep itself alive.
///
/// Unlike libtorch's own functions, nothing notices when a tensor that `backward` holds was changed
/// in place meanwhile.
///
/// # Panics
/// When the output is not of a floating kind. A panic inside `backward` becomes an error, and so a
/// panic, of the call that went backward.
pub fn record<const N: usize>(
    inputs: [&Tensor; N],
    output: Tensor,
    backward: impl Fn(&Tensor, [bool; N]) -> [Option<Tensor>; N] + Send + 'static,
) -> Tensor {
    if !wants_gradient(inputs) {
        return output;
    }
    let backward: Backward<N> = Box::new(backward);
    let closure = Box::into_raw(Box::new(backward)).cast::<c_void>(); // a thin pointer
    let inputs = inputs.map(Tensor::as_ptr);
    // SAFETY: as above; the closure is given away, and C++ gives it back to `release` once.
    let recorded = unsafe {
        cumdf_record(inputs.as_ptr(), N, output.as_ptr(), closure, call::<N>, release::<N>)
    };
    assert!(recorded, "libtorch keeps no gradient for {output:?}");
    output
}

/// Runs the closure for C++.
///
/// # Safety
/// `closure` is a `Backward<N>` of [`record`]; `grad` a tensor that C++ keeps alive meanwhile;
/// `needed` and `grads` have `N` places.
unsafe extern "C" fn call<const N: usize>(
    closure: *mut c_void,
    grad: *const C_tensor,
    needed: *const bool,
    grads: *mut *mut C_tensor,
) -> bool {
    catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the caller's promises. `clone_from_ptr` makes a handle of its own.
        let (backward, grad, needed) = unsafe {
            let grad = Tensor::clone_from_ptr(grad.cast_mut());
            (&*closure.cast::<Backward<N>>(), grad, *needed.cast::<[bool; N]>())
        };
        for (i, found) in backward(&grad, needed).into_iter().enumerate() {
            if let Some(found) = found {
                // SAFETY: place `i < N`. The new handle is C++'s to delete.
                unsafe { *grads.add(i) = torch_sys::at_shallow_clone(found.as_ptr().cast_mut()) };
            }
        }
    }))
    .is_ok()
}

/// Frees the closure for C++.
///
/// # Safety
/// `closure` is a `Backward<N>` of [`record`] that nobody uses any more.
unsafe extern "C" fn release<const N: usize>(closure: *mut c_void) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(closure.cast::<Backward<N>>()) });
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tch::{Device, Kind};

    use super::*;

    fn leaf(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).set_requires_grad(true)
    }

    fn values(t: &Tensor) -> Vec<f32> {
        Vec::try_from(t).expect("a vector of numbers")
    }

    /// `a b`, with a gradient that tells it from libtorch's: ten times too large.
    fn tenfold(a: &Tensor, b: &Tensor) -> Tensor {
        let product = tch::no_grad(|| a * b);
        let (saved_a, saved_b) = (a.detach(), b.detach());
        record([a, b], product, move |grad, needed| {
            [needed[0].then(|| grad * &saved_b * 10.0), needed[1].then(|| grad * &saved_a * 10.0)]
        })
    }

    #[test]
    fn the_graph_asks_the_closure() {
        let (a, b) = (leaf(&[1.0, 2.0]), leaf(&[3.0, 4.0]));
        let out = tenfold(&(&a * 2.0), &b); // the graph goes on below it
        assert_eq!(values(&out.detach()), [6.0, 16.0]);
        (out * 5.0).sum(Kind::Float).backward();
        assert_eq!(values(&a.grad()), [300.0, 400.0]);
        assert_eq!(values(&b.grad()), [100.0, 200.0]);
    }

    #[test]
    fn an_input_without_gradient_is_told_so() {
        let (a, b) = (Tensor::from_slice(&[2f32]), leaf(&[3.0]));
        let asked = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&asked);
        let out = record([&a, &b], tch::no_grad(|| &a * &b), move |grad, needed| {
            told.store(needed.iter().filter(|needed| **needed).count(), Ordering::SeqCst);
            [None, Some(grad * 2.0)]
        });
        out.sum(Kind::Float).backward();
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(values(&b.grad()), [2.0]);
    }

    #[test]
    fn nothing_is_recorded_without_need() {
        let (a, b) = (leaf(&[1.0]), leaf(&[1.0]));
        let hidden = tch::no_grad(|| tenfold(&a, &b));
        let plain = tenfold(&a.detach(), &b.detach());
        assert!(!hidden.requires_grad() && !plain.requires_grad());
    }

    #[test]
    fn what_the_closure_holds_goes_with_the_graph() {
        let (held, a) = (Arc::new(()), leaf(&[1.0]));
        let make = || {
            let mine = Arc::clone(&held);
            record([&a], tch::no_grad(|| &a * 2.0), move |grad, _| {
                let _ = &mine;
                [Some(grad * 2.0)]
            })
        };
        let out = make();
        assert_eq!(Arc::strong_count(&held), 2);
        out.sum(Kind::Float).backward();
        assert_eq!(Arc::strong_count(&held), 1, "freed after the backward pass");
        drop(make());
        assert_eq!(Arc::strong_count(&held), 1, "freed with the output");
    }

    #[test]
    fn a_panic_inside_stops_the_backward_pass() {
        let a = leaf(&[1.0]);
        let out = record([&a], tch::no_grad(|| &a * 2.0), |_, _| panic!("as the test wants"));
        let failed = catch_unwind(AssertUnwindSafe(|| out.sum(Kind::Float).backward()));
        assert!(failed.is_err());
        assert!(!a.grad().defined());
        let after = tenfold(&a, &Tensor::ones([1], (Kind::Float, Device::Cpu)));
        after.sum(Kind::Float).backward(); // the next one is unharmed
        assert_eq!(values(&a.grad()), [10.0]);
    }
}
