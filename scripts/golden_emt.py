"""The golden cases of EMT-DLFR, from reference_emt.py; golden.py writes them. See tests/golden/README.md."""

from dataclasses import asdict

import reference_emt as emt
import torch
from golden_baselines import MODALITIES, T, apart, batch, dead, flat, gradients, masks, network, targets, views

CASES = {       # name: (seed, task)
    "emt_sentiment": (523, "sentiment"),
    "emt_emotion": (647, "emotion"),
}
RATES = dict(language=5e-4, audio=1e-3, vision=2e-4, rest=4e-4)
DECAYS = dict(language=1e-3, audio=1e-2, vision=2e-3, rest=5e-3)
# Normalised away, or by a softmax: their gradient is 0 but for rounding. Decay is what moves them.
CANCELS = [f"attract.{n}.project.bias" for n in emt.ATTRACTED] + ["fusion.pool.linear2.bias"]


def state(prefix, net):
    return {f"{prefix}.{k}": v.detach().clone() for k, v in net.state_dict().items()
            if not k.endswith("num_batches_tracked")}


def running(prefix, net):
    return {k: v for k, v in state(prefix, net).items() if ".running_" in k}


def case(name, dtype):
    seed, task = CASES[name]
    gen = torch.Generator().manual_seed(seed)
    c = emt.small(task)
    complete, seen, features, less, valid = views(gen, c.dims, dtype)
    second, second_seen, second_valid = batch(gen, c.dims, [T, 2, 6], holes=[(2, 1, 3)], dtype=dtype)
    second_less = second_seen.clone()
    second_less[0, 2] = False
    for b, m, t in [(0, 0, 4), (0, 1, 7), (1, 0, 1), (2, 1, 0), (2, 2, 5)]:
        second_less[b, m, t] = False
    second_features = {m: second[m] * second_less[:, i, :, None] for i, m in enumerate(MODALITIES)}
    target, second_target = targets(gen, task, -3, 3, 8).to(dtype).split([5, 3])
    torch.manual_seed(seed)
    net = network(emt.Emt(c), seed, dtype, 0.2)
    for k, v in net.named_buffers():
        if ".running_" in k:
            v.copy_(torch.rand(v.shape, generator=gen) + (0.5 if k.endswith("var") else -0.5))

    kind = "score" if task == "sentiment" else "flags"
    data = state("param", net)
    data |= flat("input.features", features) | masks("input", less, valid)
    data |= flat("complete.features", complete) | masks("complete", seen)
    data |= flat("second.input.features", second_features) | masks("second.input", second_less, second_valid)
    data |= flat("second.complete.features", second) | masks("second.complete", second_seen)
    data |= {f"target.{kind}": target, f"second.target.{kind}": second_target}
    net.eval()
    with torch.no_grad():
        data["eval.answer"] = net(features, valid)["answer"]
    net.train()

    def backward(complete, seen, features, less, valid, target):
        both = net.views(complete, features, valid)
        missing = {m: (seen & ~less)[:, i] for i, m in enumerate(MODALITIES)}
        assert all(v.any() for v in missing.values())
        terms = emt.losses(c, *both, complete, missing, target)
        terms["total"].backward()
        return both, terms

    first = (complete, seen, features, less, valid, target)
    other = (second, second_seen, second_features, second_less, second_valid, second_target)
    adam = emt.optimizer(net, RATES, DECAYS)
    for step in ("step", "step2"):
        adam.zero_grad()
        both, terms = backward(*first)
        if step == "step":
            for view, out in zip(("complete", "incomplete"), both):
                for k in ("tokens", "local", "reconstruct"):
                    out[k] = {m: x * valid[..., None] for m, x in out.get(k, {}).items()}
                data |= flat(f"out.{view}", out)
            data |= flat("loss", terms) | gradients("grad", net) | running("buffer", net)
        _, terms = backward(*other)
        if step == "step":
            data |= flat("second.loss", terms)
        adam.step()
        data |= state(step, net)

    return data, dict(
        name=name, method="emt", task=task, model=asdict(c), neutral=c.neutral, accumulate=2,
        weights=dict(task=1.0, task_complete=c.attract_weight, attract=c.attract_weight, recon=c.recon_weight),
        optimiser=dict(name="adam", rates=RATES, betas=[0.9, 0.999], weight_decay=DECAYS), cancels=CANCELS,
        notes=["out, loss, grad: both views in training, no dropout, the complete one first; eval.answer: the input view in evaluation",
               "out.*.{tokens,local,reconstruct} are zero beyond a sample's length",
               "out.*.tokens: after the encoder's Linear; vector: the utterance vectors and the flattened global context (what is "
               "attracted, and in the order language, audio, vision, global the head's input); context: the first [B, 3, d]; "
               "local: after the last layer; z and p: SimSiam's; output: [B, K] before the neutral score is added",
               "an encoder without Linear has equal widths in model.hidden and model.encoded, project.* is absent where encoded is model.width",
               "loss.task: of the incomplete view; loss.recon.*: of frames seen in the complete view and not in the incomplete one, "
               "so frames that the data lack are no target",
               "loss.* are unweighted, but for the total; loss.attract.* halves the sum of both directions",
               "emotion: out.*.answer is the probability of each emotion, out.*.logits the pairs (no, yes)",
               "param, step and step2 hold running statistics too; buffer.*: they after the first batch's two views",
               "step: after grad plus the gradient of second.loss.total (same parameters), one Adam step with L2, rates and decays by group",
               "step2: both batches again from step.*, gradients zeroed between the steps",
               "groups: encoder.language, encoder.audio, encoder.vision, rest",
               "`cancels`: parameters whose gradient is 0 but for rounding"])


def cases():
    emt.check()
    for name in CASES:
        data, about = case(name, torch.float64)
        none = sorted(set(dead(data)) ^ {f"grad.{k}" for k in CANCELS})
        assert not none, f"{name}: nothing reaches {none}; another seed, please"
        gap, where = apart(data, case(name, torch.float32)[0])
        assert gap < 2e-6, f"{name}: float32 is {gap:.1e} apart in {where}; another seed, please"
        yield name, data, about
