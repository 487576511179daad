"""The golden cases of the other methods, from reference_self_mm.py and reference_if_mmin.py; golden.py
writes them. See tests/golden/README.md.

Each case is computed in float64 and again in float32; where those part, the numbers would say nothing
about an implementation (a near tie, a division by almost zero) and another seed is to be found.
"""

from dataclasses import asdict

import reference_if_mmin as if_mmin
import reference_self_mm as self_mm
import torch

MODALITIES = ("language", "audio", "vision")
T, N = 9, 8
LENGTHS = [T, 1, 4, 7, T]
INDEX, SECOND = [6, 2, 0, 7, 3], [5, 1, 4]     # training samples of the first and the second batch
NEVER = 3                                       # an emotion that no training sample has


def batch(gen, dims, lengths, holes=(), gone=(), dtype=torch.float64):
    """Random features; `gone` (sample, modality) and `holes` (sample, modality, step) are not there."""
    valid = torch.arange(T)[None] < torch.tensor(lengths)[:, None]
    seen = valid[:, None].repeat(1, 3, 1)
    for b, m in gone:
        seen[b, m] = False
    for b, m, t in holes:
        seen[b, m, t] = False
    raw = {m: torch.randn(len(lengths), T, dims[m], generator=gen) for m in MODALITIES}
    return {m: (raw[m] * seen[:, i, :, None]).to(dtype) for i, m in enumerate(MODALITIES)}, seen, valid


def views(gen, dims, dtype):
    """The data and what a test sees of them. The data lack sample 2's audio and one frame of vision; the
    view lacks language of sample 1, all but audio of sample 3, some frames, and nothing of sample 4."""
    complete, seen, valid = batch(gen, dims, LENGTHS, holes=[(0, 2, 5)], gone=[(2, 1)], dtype=dtype)
    less = seen.clone()
    for b, m in [(1, 0), (3, 0), (3, 2)]:
        less[b, m] = False
    for b, m, t in [(0, 0, 0), (0, 0, 3), (0, 1, 1), (0, 1, 2), (0, 1, 8), (0, 2, 4), (2, 0, 3), (3, 1, 6)]:
        less[b, m, t] = False
    features = {m: complete[m] * less[:, i, :, None] for i, m in enumerate(MODALITIES)}
    return complete, seen, features, less, valid


def targets(gen, task, low, high, n):
    """Scores [n], or flags [n, C] with one emotion that nobody has and at least one for everybody."""
    if task == "sentiment":
        return (low + (high - low) * torch.rand(n, generator=gen)).mul(5).round().div(5)
    flags = (torch.rand(n, 4, generator=gen) < 0.5).float()
    flags[:, NEVER] = 0
    flags[torch.arange(n), torch.arange(n) % NEVER] = 1
    return flags


def network(net, seed, dtype, shake):
    """Default initialisation, shaken so that no weight is 0, exact in float32."""
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(shake * torch.randn(p.shape, generator=gen))
    return net.to(dtype)


def masks(prefix, seen, valid=None):
    data = {f"{prefix}.seen": seen.to(torch.uint8)}
    return data if valid is None else data | {f"{prefix}.valid": valid.to(torch.uint8)}


def flat(prefix, value):
    """Nested dictionaries as one, keys joined by dots."""
    if not isinstance(value, dict):
        return {prefix: value.detach().clone()}
    return {name: v for k, inner in value.items() for name, v in flat(f"{prefix}.{k}", inner).items()}


def gradients(prefix, net):
    return {f"{prefix}.{k}": torch.zeros_like(p) if p.grad is None else p.grad.clone() for k, p in net.named_parameters()}


# ---------------------------------------------------------------------------------------------- Self-MM

SELF_MM = {     # name: (seed, task, range of the labels, range of the training scores)
    "self_mm_sentiment": (320, "sentiment", (-3, 3), (-3, 3)),
    "self_mm_one_sign": (325, "sentiment", (1, 5), (3, 5)),
    "self_mm_emotion": (337, "emotion", (-1, 1), (-1, 1)),
}
RATES = dict(language=1e-3, audio=5e-3, vision=1e-4, head=2e-3)
DECAYS = dict(language=1e-3, audio=1e-2, vision=2e-3, head=5e-3)


def buffer_tensors(prefix, buffers):
    data = flat(f"{prefix}.labels", buffers.labels) | flat(f"{prefix}.features", buffers.features)
    return data | {f"{prefix}.centre.{s}.{sign}": v.clone() for (s, sign), v in buffers.centres.items()}


def self_mm_case(name, dtype):
    seed, task, limits, (low, high) = SELF_MM[name]
    gen = torch.Generator().manual_seed(seed)
    c = self_mm.small(task, range=limits)
    complete, seen, features, less, valid = views(gen, c.dims, dtype)
    second, second_seen, second_valid = batch(gen, c.dims, [T, 2, 6], holes=[(2, 1, 3)], dtype=dtype)
    target = targets(gen, task, low, high, N).to(dtype)
    if name == "self_mm_one_sign":
        target[2] = c.neutral                   # of neither sign
    torch.manual_seed(seed)
    net = network(self_mm.SelfMm(c), seed, dtype, 0.4)

    # The state of a run that has gone on for a while.
    buffers = self_mm.Buffers(c, c.centred(target))
    for s in self_mm.SUBJECTS:
        if s != "fused":
            moved = buffers.labels[s] + c.bound * (torch.rand(target.shape, generator=gen).to(dtype) - 0.5)
            buffers.labels[s] = moved.clamp(-0.9 * c.bound, 0.9 * c.bound).float().to(dtype)
        buffers.features[s] = torch.rand(N, c.head[s], generator=gen).to(dtype)
    for centre in buffers.centres.values():
        centre.copy_(torch.rand(centre.shape, generator=gen))
    buffers.recentre()
    for centre in buffers.centres.values():
        centre.copy_(centre.float())

    index, second_index = torch.tensor(INDEX), torch.tensor(SECOND)
    kind = "score" if task == "sentiment" else "flags"
    data = flat("param", dict(net.named_parameters()))
    data |= flat("input.features", features) | masks("input", less, valid)
    data |= flat("complete.features", complete) | masks("complete", seen)
    data |= {f"target.{kind}": target[index], "index": index}
    data |= flat("second.complete.features", second) | masks("second.complete", second_seen)
    data |= {"second.valid": second_valid.to(torch.uint8), f"second.target.{kind}": target[second_index],
             "second.index": second_index}
    data |= buffer_tensors("buffer", buffers)
    with torch.no_grad():
        data["eval.answer"] = net(features, valid)["answer"]

    # Epoch 2: two batches, one step. Their indices differ, so neither changes the other's labels.
    adam = self_mm.optimizer(net, RATES, DECAYS)
    first = dict(features=complete, valid=valid, index=index)
    before = {s: v.clone() for s, v in buffers.labels.items()}
    out, terms = self_mm.train_batch(net, buffers, first, 2)
    data |= flat("out", out) | flat("loss", terms) | gradients("grad", net)
    data |= buffer_tensors("buffer2", buffers)
    fixed = {s: v.clone() for s, v in buffers.labels.items()}
    rows = lambda labels, i: {s: v[i] for s, v in labels.items()}
    terms = self_mm.losses(c, net(second, second_valid), rows(fixed, second_index))
    terms["total"].backward()
    data |= flat("second.loss", terms)
    adam.step()
    data |= flat("step", dict(net.named_parameters()))

    # Epoch 3: the same features once more, as if no parameter had changed.
    buffers.update(index, out["feature"], 3)
    data |= buffer_tensors("buffer3", buffers)

    # A second step on both batches by the labels of buffer2: the optimizer's memory shows.
    adam.zero_grad()
    for x, v, i in ((complete, valid, index), (second, second_valid, second_index)):
        self_mm.losses(c, net(x, v), rows(fixed, i))["total"].backward()
    adam.step()
    data |= flat("step2", dict(net.named_parameters()))

    # What the case is there for.
    generated = torch.stack([3 / 2 * fixed[m][index] - 1 / 2 * before[m][index] for m in MODALITIES])
    clamped = generated.abs() > c.bound - 1e-3
    assert clamped.any() and not clamped.all(), f"{name}: clamped {clamped.sum()} of {clamped.numel()}"
    kept = dict(self_mm_one_sign=("negative", ...), self_mm_emotion=("positive", NEVER)).get(name)
    if kept:            # the fused label never has this sign
        was, *later = (data[f"{b}.centre.fused.{kept[0]}"][kept[1]] for b in ("buffer", "buffer2", "buffer3"))
        assert (was != 0).any() and all(torch.equal(was, now) for now in later)

    case = dict(name=name, method="self_mm", task=task, model=asdict(c), neutral=c.neutral, bound=c.bound,
                samples=N, epoch=2, accumulate=2, optimiser=dict(name="adam", rates=RATES, weight_decay=DECAYS),
                notes=["out, loss, grad: the complete view with the labels of buffer.*; eval.answer: the input view",
                       "labels in buffers and out.prediction are centred (score - neutral; 2 flag - 1), target.* and answers are not",
                       "emotion: out.answer is the probability of each emotion, out.logits the pairs (0, z)",
                       "buffer2: after the batch in epoch 2; buffer3: after the same out.feature again in epoch 3",
                       "step: after grad plus the gradient of second.loss.total, one Adam step with L2, rates and decays by group",
                       "step2: both batches again from step.*, by the labels of buffer2, gradients zeroed between the steps",
                       "groups: language, audio, vision, head"])
    return data, case


# ---------------------------------------------------------------------------------------------- IF-MMIN

IF_MMIN = {     # name: (seed, task, stage)
    "if_mmin_sentiment_stage1": (404, "sentiment", 1),
    "if_mmin_sentiment_stage2": (414, "sentiment", 2),
    "if_mmin_emotion_stage1": (425, "emotion", 1),
    "if_mmin_emotion_stage2": (439, "emotion", 2),
}
RATE = {1: 2e-2, 2: 2e-3}       # large enough for the second step to differ, and with it what is clipped


def if_mmin_case(name, dtype):
    seed, task, stage = IF_MMIN[name]
    gen = torch.Generator().manual_seed(seed)
    c = if_mmin.small(task)
    complete, seen, features, less, valid = views(gen, c.dims, dtype)
    target = targets(gen, task, -3, 3, len(valid)).to(dtype)
    torch.manual_seed(seed)
    net = network(if_mmin.Stage1(c), seed, dtype, 0.3)
    data = {}
    if stage == 2:      # a student that has moved on from what it copied
        teacher = net.eval().requires_grad_(False)
        data |= flat("teacher", dict(teacher.named_parameters()))
        net = if_mmin.Stage2(c)
        copied = {k: v for k, v in teacher.state_dict().items() if not k.startswith("classifier.")}
        net.load_state_dict(copied, strict=False)
        net = network(net, seed + 1, torch.float32, 0.5).to(dtype)
        by_name = {m: less[:, i] for i, m in enumerate(MODALITIES)}
        imagine, invariant = if_mmin.teacher_targets(teacher, complete, by_name, valid)
        data |= {"out.target_imagined": imagine, "out.target_invariant": invariant}

    data |= flat("param", dict(net.named_parameters()))
    data |= flat("input.features", features) | masks("input", less, valid)
    data |= flat("complete.features", complete) | masks("complete", seen)
    data["target.score" if task == "sentiment" else "target.flags"] = target
    with torch.no_grad():
        data["eval.answer"] = net(features, valid)["answer"]

    def backward():
        out = net(complete if stage == 1 else features, valid)
        terms = if_mmin.losses1(c, out, target) if stage == 1 else if_mmin.losses2(c, out, target, imagine, invariant)
        terms["total"].backward()
        return out, terms

    adam = if_mmin.optimizer(net, stage, RATE[stage])
    out, terms = backward()
    data |= flat("out", out) | flat("loss", terms) | gradients("grad", net)
    norms = if_mmin.clip(net, if_mmin.CLIP[stage])
    data |= flat("out.grad_norm", norms)
    adam.step()
    data |= flat("step", dict(net.named_parameters()))
    adam.zero_grad()
    backward()
    if_mmin.clip(net, if_mmin.CLIP[stage])
    adam.step()
    data |= flat("step2", dict(net.named_parameters()))

    clipped = [float(n) > if_mmin.CLIP[stage] for n in norms.values()]
    assert any(clipped) and not all(clipped), f"{name}: {norms}"

    weights = dict(task=1.0, cmd=c.cmd_weight) if stage == 1 else dict(
        task=1.0, imagined=c.imagine_weight, invariant=c.invariant_weight)
    case = dict(name=name, method="if_mmin", stage=stage, task=task, model=asdict(c), order=if_mmin.ORDER,
                blocks=if_mmin.Stage2.BLOCKS, weights=weights, clip=if_mmin.CLIP[stage], moments=5,
                optimiser=dict(name="adam", lr=RATE[stage], betas=if_mmin.BETAS[stage], weight_decay=0.0),
                notes=["out, loss, grad: stage 1 on the complete view, stage 2 on the input view; eval.answer: the input view",
                       "out.e, out.u, out.imagined, out.target_*: in the order audio, language, vision",
                       "loss.* are unweighted, but for the total",
                       "emotion: out.answer is the probability of each emotion, out.logits the pairs (no, yes)",
                       "grad.* before clipping; out.grad_norm.*: by sub-network, the cascade's with imagined.*",
                       "step: after clipping and one step; step2: the same batch again from step.*"])
    return data, case


# ----------------------------------------------------------------------------------------------- all

def dead(data):
    """Parameters whose gradient shows nothing."""
    return [k for k, v in data.items() if k.startswith("grad.") and v.abs().max() < 1e-6]


def apart(data, other):
    """The largest difference and its tensor, by the measure of the Rust tests."""
    worst = (0.0, "")
    for k, v in data.items():
        if v.is_floating_point():
            gap = (v - other[k].double()).abs().max() / v.abs().max().clamp(min=1)
            worst = max(worst, (float(gap), k))
    return worst


def cases():
    """(name, tensors, case) of every golden file."""
    for check in (self_mm.check, if_mmin.check):
        check()
    for build, names in ((self_mm_case, SELF_MM), (if_mmin_case, IF_MMIN)):
        for name in names:
            data, case = build(name, torch.float64)
            assert not dead(data), f"{name}: nothing reaches {dead(data)}; another seed, please"
            gap, where = apart(data, build(name, torch.float32)[0])
            assert gap < 2e-6, f"{name}: float32 is {gap:.1e} apart in {where}; another seed, please"
            yield name, data, case
