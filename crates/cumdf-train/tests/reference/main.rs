//! Every method against an independent implementation in torch.nn: networks, losses, gradients and
//! whole steps of training. The references are `scripts/reference*.py`, their numbers are in
//! `tests/golden/` (see its README; each case explains itself in its notes).

mod baselines;
mod common;
mod cubemlp;
mod cumdf;
mod dmd;
mod emt;
mod mctn;
mod transm;
