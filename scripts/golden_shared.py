"""What the golden files of one-network methods have in common: their data, two steps, and when they hold."""

import torch
from golden_baselines import MODALITIES, apart, dead, flat, gradients, masks, targets, views


def given(seed, c, dtype, odd=False):
    """The data of a case by `golden_baselines.views`: (tensors, complete, seen, features, less, valid, target).

    `odd`: the last sample is a frame shorter, so that every modality has an odd number of frames, and the
    signs of absolute errors do not add up to nothing.
    """
    gen = torch.Generator().manual_seed(seed)
    complete, seen, features, less, valid = views(gen, c.dims, dtype)
    if odd:
        for mask in (seen[-1], less[-1], valid[-1]):
            mask[..., -1] = False
        for x in (*complete.values(), *features.values()):
            x[-1, -1] = 0
    target = targets(gen, c.task, *c.range, len(valid)).to(dtype)
    data = flat("input.features", features) | masks("input", less, valid)
    data |= flat("complete.features", complete) | masks("complete", seen)
    data["target.score" if c.task == "sentiment" else "target.flags"] = target
    return data, complete, seen, features, less, valid, target


def frames(seen):
    """Masks [B, 3, T] by modality: {m: [B, T]}."""
    return {m: seen[:, i] for i, m in enumerate(MODALITIES)}


def two_steps(net, adam, forward, clip=lambda net: None):
    """Tensors of `forward() -> (out, terms)`, of the gradients before clipping, and of the network after
    one and two steps on the same batch."""
    out, terms = forward()
    terms["total"].backward()
    data = flat("out", out) | flat("loss", terms) | gradients("grad", net)
    for prefix in ("step", "step2"):
        if prefix == "step2":
            adam.zero_grad()
            forward()[1]["total"].backward()
        clip(net)
        adam.step()
        data |= flat(prefix, net.state_dict())
    return data


def held(build, names, idle=lambda name: ()):
    """(name, tensors, case) of each name, if float32 says the same and every parameter has a gradient, but
    for those that `idle` ends with."""
    for name in names:
        data, case = build(name, torch.float64)
        nothing = [k for k in dead(data) if not k.endswith(idle(name))]
        assert not nothing, f"{name}: nothing reaches {nothing}; another seed, please"
        gap, where = apart(data, build(name, torch.float32)[0])
        assert gap < 2e-6, f"{name}: float32 is {gap:.1e} apart in {where}; another seed, please"
        yield name, data, case
