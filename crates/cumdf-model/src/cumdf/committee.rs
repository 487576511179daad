//! Several networks that answer together, by the mean of their distributions.

use anyhow::Result;
use cumdf_data::Inputs;
use tch::{Kind, Tensor, nn::Path};

use super::{Cumdf, ModelConfig};
use crate::{
    answer::{Answer, Explained, Predictor},
    shape::Shape,
};

/// Networks of the same kind with weights of their own.
#[derive(Debug)]
pub struct Committee {
    members: Vec<Cumdf>,
}

/// Where the variables of a member stand, for example `member0`.
fn place(member: usize) -> String {
    format!("member{member}")
}

impl Committee {
    /// Registers `n` networks under `vs`; one alone stands there as it is.
    ///
    /// # Errors
    /// When a size in `cfg` is impossible.
    pub fn new(vs: &Path, n: usize, cfg: &ModelConfig, shape: &Shape) -> Result<Self> {
        let member = |k| Cumdf::new(&(vs / place(k)), cfg, shape);
        let members = match n {
            0 | 1 => vec![Cumdf::new(vs, cfg, shape)?],
            n => (0..n).map(member).collect::<Result<_>>()?,
        };
        Ok(Self { members })
    }

    /// The networks.
    pub fn members(&self) -> &[Cumdf] {
        &self.members
    }

    /// The networks, to be changed.
    pub fn members_mut(&mut self) -> &mut [Cumdf] {
        &mut self.members
    }

    /// The member whose variable this is; the first where there is one alone.
    pub fn member_of(variable: &str) -> usize {
        let rest = variable.strip_prefix("member").and_then(|rest| rest.split_once('.'));
        rest.and_then(|(member, _)| member.parse().ok()).unwrap_or(0)
    }
}

/// The mean of tensors of one shape.
fn mean(tensors: &[Tensor]) -> Tensor {
    match tensors {
        [alone] => alone.shallow_clone(),
        all => Tensor::stack(all, 0).mean_dim([0i64].as_slice(), false, Kind::Float),
    }
}

impl Predictor for Committee {
    fn predict(&self, inputs: &Inputs) -> Answer {
        let answer = |member: &Cumdf| member.predict(inputs).into_tensor();
        Answer::Classes(mean(&self.members.iter().map(answer).collect::<Vec<_>>()))
    }

    /// Shares are the mean of the members' own.
    fn explain(&self, inputs: &Inputs) -> Explained {
        let all: Vec<_> = self.members.iter().map(|member| member.explain(inputs)).collect();
        let (answers, shares): (Vec<_>, Vec<_>) =
            all.into_iter().map(|own| (own.answer.into_tensor(), own.attributions)).unzip();
        let shares: Option<Vec<Tensor>> = shares.into_iter().collect();
        Explained {
            answer: Answer::Classes(mean(&answers)),
            attributions: shares.map(|shares| mean(&shares)),
        }
    }

    fn floats_per_sample(&self, steps: i64) -> f64 {
        self.members.first().map_or(0.0, |member| member.floats_per_sample(steps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_tells_its_member() {
        for (variable, member) in
            [("member3.head.linear.weight", 3), ("head.linear.weight", 0), ("member12.x", 12)]
        {
            assert_eq!(Committee::member_of(variable), member, "{variable}");
        }
    }
}
