"""The golden cases of DMD, from reference_dmd.py; golden.py writes them. See tests/golden/README.md."""

from dataclasses import asdict

import reference_dmd as dmd
import torch
from golden_baselines import T, apart, dead, flat, gradients, masks, network, targets, views

CASES = {       # name: (seed, task, what differs); one layer each, and two where no step is taken: for the size
    "dmd_sentiment": (500, "sentiment", dict(levels=1)),
    "dmd_emotion": (600, "emotion", dict(levels=1)),
    "dmd_official": (700, "sentiment", dict(last_step="official", levels=2)),
}
RATE, DECAY = 2e-4, 1e-2
# Adding to these changes no edge: their gradient is 0 but for rounding, which Adam would blow up without decay.
# So it is with the middle third of each in_proj_bias, the keys'.
CANCELS = [f"distil.{b}.{layer}.bias" for b in ("hom", "het") for layer in ("logit", "repr", "edge")]


def case(name, dtype):
    seed, task, own = CASES[name]
    gen = torch.Generator().manual_seed(seed)
    c = dmd.small(task, **own)
    assert c.steps == T
    complete, seen, features, less, valid = views(gen, c.dims, dtype)
    target = targets(gen, task, -3, 3, len(valid)).to(dtype)
    target[4] = target[0]               # a label that two samples have
    torch.manual_seed(seed)
    net = network(dmd.Dmd(c), seed, dtype, 0.2)

    data = flat("param", dict(net.named_parameters()))
    data |= flat("input.features", features) | masks("input", less, valid)
    data |= flat("complete.features", complete) | masks("complete", seen)
    data["target.score" if task == "sentiment" else "target.flags"] = target
    net.eval()
    with torch.no_grad():
        data["eval.answer"] = net(features, valid)["answer"]
    net.train()

    adam = dmd.optimizer(net, RATE, DECAY)
    for step in ("step", "step2"):
        adam.zero_grad()
        out = net(complete, valid)
        terms = dmd.losses(c, out, target)
        terms["total"].backward()
        if step == "step":
            data |= flat("out", out) | flat("loss", terms) | gradients("grad", net)
        beyond = sum(int((p.grad.abs() > dmd.CLIP).sum()) for p in net.parameters())
        assert beyond > 0, f"{name}: nothing to clip"
        if name == "dmd_official":
            break
        dmd.clip(net)
        adam.step()
        data |= flat(step, dict(net.named_parameters()))
    assert all(v > 0 for v in terms.values()), f"{name}: {terms}"

    return data, dict(
        name=name, method="dmd", task=task, model=asdict(c), neutral=c.neutral, order=dmd.ORDER, edges=dmd.PAIRS,
        weights=dmd.WEIGHTS, clip=dmd.CLIP, cancels=CANCELS,
        optimiser=dict(name="adam", lr=RATE, betas=[0.9, 0.999], weight_decay=DECAY),
        notes=["out, loss, grad: the complete view in training, no dropout; eval.answer: the input view",
               "inputs are padded to model.steps; convolutions, mean squares and the cosines' means run over padding too",
               "out.project, private, shared, reconstruct, private_again: [B, d, T']; out.cross.<target>_<source>: [B, T', d]",
               "out.margin reads shared flattened as [d, T'], the heads of hom read it flattened as [T', d]",
               "out.c, out.gated and the distillation's vertices: in the order language, vision, audio",
               "a memory reads cross.<m>_<n> in the order of sources; language: audio, vision; audio: language, vision; vision: language, audio",
               "out.edge.*: [6, B], edges (student, teacher) as in `edges`, which counts in `order`",
               "out.logit.*: [B, K] before the neutral score is added; out.repr.hom inside the block after ReLU, out.repr.het after the block",
               "levels holds for every transformer, the memories too",
               "nothing but the teachers' logits and representations within the two distances is detached; edges are not",
               "loss.* are unweighted, but for the total",
               "emotion: out.answer is the probability of each emotion, out.logits the pairs (no, yes); margin by Hamming distance",
               "grad.* before clipping, which is by value",
               "the recipe has no weight decay; here it keeps Adam from stepping by rounding errors where a gradient is 0: "
               "`cancels` and the keys' third of every in_proj_bias",
               "step: after clipping and one step; step2: the same batch again from step.*, gradients zeroed between; "
               "dmd_official takes none"])


def cases():
    dmd.check()
    for name in CASES:
        data, about = case(name, torch.float64)
        none = sorted(set(dead(data)) ^ {f"grad.{k}" for k in CANCELS})
        assert not none, f"{name}: nothing reaches {none}; another seed, please"
        gap, where = apart(data, case(name, torch.float32)[0])
        assert gap < 2e-6, f"{name}: float32 is {gap:.1e} apart in {where}; another seed, please"
        yield name, data, about
