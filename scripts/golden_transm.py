"""The golden cases of TransModality, from reference_transm.py; golden.py writes them."""

from dataclasses import asdict

import reference_transm as transm
import torch
import torch.nn.functional as F
from golden_baselines import flat, network
from golden_shared import frames, given, held, two_steps

CASES = {       # name: (seed, task, what differs from the small configuration)
    "transm_sentiment": (714, "sentiment", dict(range=(1, 5))),
    "transm_emotion": (724, "emotion", dict(encoder_layers=1, decoder_layers=2, heads=3)),
}


def centre_keys(net, features, valid):
    """Biases of the attentions' keys for which a unit is on at every other step or so. That of a unit which
    is on at all of them would cancel in the softmax, and leave rounding to an optimizer that divides by it."""
    def centre(key, inputs):
        y = F.linear(inputs[0], key.weight)[valid]
        key.bias.copy_(-y.quantile(0.45, 0).float())

    keys = [module.key for module in net.modules() if isinstance(module, transm.Attention)]
    hooks = [key.register_forward_pre_hook(centre) for key in keys]
    with torch.no_grad():
        net(features, valid)
    for hook in hooks:
        hook.remove()


def build(name, dtype):
    seed, task, other = CASES[name]
    c = transm.small(task, **other)
    data, complete, seen, features, _, valid, target = given(seed, c, dtype, odd=True)
    has = frames(seen)
    torch.manual_seed(seed)
    net = network(transm.TransModality(c), seed, torch.float64, 0.3)
    centre_keys(net, {m: x.double() for m, x in features.items()}, valid)
    net = net.to(dtype)
    data |= flat("param", net.state_dict())
    with torch.no_grad():
        data["eval.answer"] = net(features, valid, translate=False)["answer"]

    def forward():
        out = net(features, valid)
        return out, transm.losses(c, out, complete, has, valid, target)

    data |= two_steps(net, transm.optimizer(net), forward)
    data = {k.replace(".there.", ".forward."): v for k, v in data.items()}

    case = dict(name=name, method="transm", task=task, model=asdict(c), neutral=c.neutral,
                weights=dict(task=1.0, translate=c.translate_weight), clip=None, norm_eps=1e-5,
                optimiser=dict(name="adam", lr=c.rate, betas=(0.9, 0.999), weight_decay=0.0),
                notes=["out, eval.answer: the input view; loss, grad: the same, held against the complete view",
                       "out.cell.<n>: encoded1, decoded1, encoded2, decoded2 after each stack, translated (into n) and returned (into language), all zero beyond a sample's length",
                       "out.pooled: the head's input, the mean over valid steps, ordered vision's encoded1, encoded2, audio's, f of language, audio, vision",
                       "score: out.answer is the head's output + neutral; emotion: out.logits are pairs (no, yes), out.answer the probabilities",
                       "loss.* are unweighted, but for the total; translate: the sum of four means over (sample that has the target in the complete view, valid step, channel), at holes too",
                       "positions: sine and cosine interleaved, from 0, added once before each stack; the memory of decode1 is encoded1, of decode2 encoded2, without positions",
                       "step: one Adam step, no warm-up; step2: the same batch again from step.*"])
    return data, case


def cases():
    transm.check()
    yield from held(build, CASES)
