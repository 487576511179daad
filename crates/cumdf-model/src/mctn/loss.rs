//! The losses of a pass. Each network's is a mean over the samples that it can learn from, 0 where
//! there is none.

use cumdf_data::Targets;
use tch::{Kind, Reduction, Tensor};

use crate::loss::masked_mean;

/// The networks' task losses, added up: per network the mean over its own samples of the absolute
/// error, or of the cross-entropy of every emotion's pair.
///
/// - `outputs`: scores `[N, B]` or logits `[N, B, C, 2]`; `own`: `[N, B]` bool, the samples that show
///   something of the network's source
pub fn task_loss(outputs: &Tensor, own: &Tensor, targets: &Targets) -> Tensor {
    let each = match (targets.score(), targets.flags()) {
        (Some(score), _) => (outputs - score).abs(), // [N, B]
        (None, Some(flags)) => {
            let flags = flags.to_kind(Kind::Int64).unsqueeze(0);
            let flags = flags.expand([outputs.size()[0], -1, -1], false).flatten(0, -1);
            let none = None::<Tensor>;
            outputs
                .flatten(0, 2) // [N B C, 2]
                .cross_entropy_loss(&flags, none, Reduction::None, -100, 0.0)
                .view_as(&outputs.select(3, 0))
                .mean_dim([2i64].as_slice(), false, Kind::Float)
        }
        (None, None) => unreachable!("a label is a score or a set of emotions"),
    };
    let over = [1i64];
    let kept = each.masked_fill(&own.logical_not(), 0.0);
    let counts = own.sum_dim_intlist(over.as_slice(), false, Kind::Float).clamp_min(1.0);
    (kept.sum_dim_intlist(over.as_slice(), false, Kind::Float) / counts).sum(Kind::Float)
}

/// The mean squared error of a translation over the valid steps and channels of some samples.
///
/// - `got`, `want`: `[B, T, d]`; `samples`: `[B]` bool; `valid`: `[B, T]` bool
pub fn translation_error(got: &Tensor, want: &Tensor, samples: &Tensor, valid: &Tensor) -> Tensor {
    let each = (got - want).square().mean_dim([2i64].as_slice(), false, Kind::Float); // [B, T]
    masked_mean(&each, &valid.logical_and(&samples.unsqueeze(1)))
}
