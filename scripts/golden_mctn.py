"""The golden cases of MCTN, from reference_mctn.py; golden.py writes them."""

from dataclasses import asdict

import reference_mctn as mctn
import torch
from golden_baselines import flat, network
from golden_shared import frames, given, held, two_steps

CASES = {       # name: (seed, task, what differs from the small configuration)
    "mctn_sentiment": (600, "sentiment", dict(range=(1, 5))),
    "mctn_emotion": (627, "emotion", {}),
    "mctn_official": (613, "sentiment", dict(cell="official")),
}
QUALITY = [0.9, 1.1, 1.05]      # validation errors of the nets
CANCELLED = ("attention.state.weight", "attention.state.bias")


def idle(name):
    """What the official attention adds to every score alike: its gradient is rounding, and so is its step."""
    return CANCELLED if name == "mctn_official" else ()


def build(name, dtype):
    seed, task, other = CASES[name]
    c = mctn.small(task, **other)
    data, complete, seen, features, less, valid, target = given(seed, c, dtype)
    has, shown = frames(seen), frames(less)
    torch.manual_seed(seed)
    net = network(mctn.Mctn(c), seed, dtype, 0.4)
    net.quality.copy_(torch.tensor(QUALITY).to(dtype))
    data |= flat("param", net.state_dict())
    with torch.no_grad():
        data["eval.answer"] = net.predict(features, shown, valid)

    def forward():
        out = net(features, valid)
        return out, mctn.losses(net, out, complete, has, shown, valid, target)

    data |= two_steps(net, mctn.optimizer(net), forward)
    cancelled = [k for k in dict(net.named_parameters()) if k.endswith(idle(name))]
    for k in cancelled:
        assert data[f"grad.{k}"].abs().max() < 1e-6
        del data[f"step.{k}"], data[f"step2.{k}"]

    weights = dict(task=1.0, translate=c.translate_weight, cycle=c.cycle_weight, second=c.second_weight,
                   decay=c.decay_weight)
    case = dict(name=name, method="mctn", task=task, model=asdict(c), neutral=c.neutral, width=c.width,
                targets=mctn.TARGETS, sharpness=mctn.SHARPNESS, weights=weights, cancelled=cancelled, clip=None,
                optimiser=dict(name="adam", lr=c.rate, betas=(0.9, 0.999), weight_decay=0.0),
                notes=["out, eval.answer: the input view; loss, grad: the same, held against the complete view",
                       "param.quality, step.quality: the nets' validation errors by source language, audio, vision; not trained",
                       "out.<source>.translated, cycled, second: the true channels of P, of the source and of Q, zero beyond a sample's length",
                       "out.<source>: of every sample, those the net's loss skips too; joint, joint2: directions added",
                       "out.<source>.answer: score: the regressor's number + neutral; emotion: the probabilities of logits (no, yes)",
                       "eval.answer: the answers averaged over the nets that see a frame, weights softmax(-sharpness * quality)",
                       "loss.* are summed over the nets and unweighted, but for the total; decay: the squared norm of regress.out.weight",
                       "an error is a mean over (sample that shows a frame of the source and has one of the target, valid step, true channel), at holes too",
                       "official cell: in the decoders alone; encoders and regressors are standard LSTMs",
                       "cancelled: parameters that cancel in a softmax; grad.* is rounding, and step.*, step2.* are left out",
                       "step: one Adam step; step2: the same batch again from step.*"])
    return data, case


def cases():
    mctn.check()
    yield from held(build, CASES, idle)
