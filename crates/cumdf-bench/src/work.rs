//! The work in a training step, counted from the shapes.

use cumdf_model::{Shape, cumdf::ModelConfig};

/// Floating-point operations of a step of CUMDF's student: matrix products alone, a multiplication and an
/// addition each, backward counted as twice forward.
///
/// Follows what the network computes: one product per unordered pair in GMCKE, one query token in
/// LG-MMT, no projection in the counterfactual passes.
///
/// - `batch`: `B`; `steps`: `T`
pub fn training_step_flops(cfg: &ModelConfig, shape: &Shape, batch: i64, steps: i64) -> f64 {
    let (b, t, d, f) = (batch as f64, steps as f64, cfg.hidden_dim as f64, cfg.ffn_dim as f64);
    let (h, tokens) = (cfg.n_heads as f64, b * t);
    let conv: f64 = (shape.dims.iter().zip(cfg.kernel_sizes))
        .map(|(dim, kernel)| tokens * *dim as f64 * kernel as f64 * d)
        .sum();
    // Per modality: in- and out-projection, scores and values, feed-forward; then the join.
    let specific = 3.0 * (tokens * (4.0 * d * d + 2.0 * d * f) + 2.0 * b * t * t * d);
    let combine = 3.0 * tokens * 5.0 * d * d;
    // Three products X X'^T, six retrievals.
    let common = 9.0 * b * t * t * d;
    // Per pair: scores and averages of h heads over time; vectors otherwise.
    let fusion = 3.0 * (2.0 * tokens * h * d + b * (3.0 * d * d + 2.0 * d * f));
    let extraction = if cfg.mke { specific + combine + common } else { 0.0 };
    let fusion = if cfg.lg_mmt { fusion } else { 0.0 };
    let multiplications = conv + extraction + fusion;
    2.0 * 3.0 * multiplications
}
