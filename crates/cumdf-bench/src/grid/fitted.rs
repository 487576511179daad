//! Floors that are solved for rather than trained: one result, whatever the seed.

use anyhow::Result;
use cumdf_data::{Corpus, EvalSet, View};
use cumdf_train::{answers::Answers, linear::LinearFloor};

/// A floor that needs no seed and no training.
#[derive(Debug)]
pub struct Fitted {
    /// Its name, as a [`Variant`](super::variants::Variant)'s `method`.
    pub name: &'static str,
    /// Counts the changes of what it computes, as a method's formula does.
    pub formula: u32,
    /// Its answers to a split under each view, in file order.
    pub answers: fn(&Corpus, &EvalSet, &[View]) -> Result<Vec<Answers>>,
}

/// All of them.
pub static FITTED: &[Fitted] = &[Fitted { name: "linear", formula: 1, answers: linear }];

/// The one called `name`, if there is one.
pub fn find(name: &str) -> Option<&'static Fitted> {
    FITTED.iter().find(|fitted| fitted.name == name)
}

/// Ridge or logistic regression on mean features, one model per condition.
fn linear(corpus: &Corpus, split: &EvalSet, views: &[View]) -> Result<Vec<Answers>> {
    let floor = LinearFloor::new(corpus);
    let answers = |view: &View| floor.fit(view.condition)?.predict(split, view);
    views.iter().map(answers).collect()
}
