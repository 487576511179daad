"""The network of docs/model.md in plain torch.nn: slow, short, and written apart from the Rust code.

Every class is one section of that page; names in the state dict are the names given there. Nothing
is rearranged for speed: keys and values are projected over time, and a counterfactual is the
network run again on a replaced input. `golden.py` turns this into the files under tests/golden.
"""

from dataclasses import dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F

MODALITIES = ("language", "audio", "vision")
PAIRS = {"la": ("language", "audio"), "lv": ("language", "vision"), "av": ("audio", "vision")}


@dataclass
class Config:
    dims: dict                      # features per modality
    classes: int
    hidden: int = 8
    heads: int = 2
    ffn: int = 16
    kernels: dict = field(default_factory=lambda: dict(language=3, audio=3, vision=3))
    dropout: float = 0.0
    conv_activation: str = "none"   # none | relu
    missing_embedding: bool = False
    mke: bool = True
    lg_mmt: bool = True
    scale_common: bool = False
    mask_missing: bool = False
    pool_norm: str = "none"         # none | batch
    label_gate: str = "residual"    # residual | product
    head_pooled: bool = False
    distil: bool = True             # the student's SRD projections


def positions(steps, d, like):
    """Sinusoids: even columns sine, odd columns cosine."""
    t = torch.arange(steps, dtype=torch.float64)[:, None]
    angle = t / 10000 ** (2 * torch.arange((d + 1) // 2, dtype=torch.float64) / d)
    table = torch.zeros(steps, d, dtype=torch.float64)
    table[:, 0::2] = angle.sin()
    table[:, 1::2] = angle.cos()[:, : d // 2]
    return table.to(like)


def mean_over(x, valid):
    """GAP: mean of [B, T, d] over the valid steps."""
    w = valid.to(x)[..., None]
    return (x * w).sum(1) / w.sum(1)


def hidden_logits(keep):
    """Additive mask: 0 where `keep`, minus infinity elsewhere."""
    return torch.zeros(keep.shape).masked_fill(~keep, float("-inf"))


class Encoder(nn.Module):
    """(1, 2) of one modality, and the map that joins its specific and common knowledge."""

    def __init__(self, c, modality):
        super().__init__()
        self.c = c
        k = c.kernels[modality]
        self.conv = nn.Conv1d(c.dims[modality], c.hidden, k, padding=(k - 1) // 2)
        if c.missing_embedding:
            self.missing = nn.Parameter(torch.zeros(c.hidden))
        if c.mke:
            self.specific = nn.TransformerEncoderLayer(
                c.hidden, c.heads, c.ffn, c.dropout, activation="relu", batch_first=True, norm_first=False)
            self.combine = nn.Linear(5 * c.hidden, c.hidden)

    def prime(self, x, seen, valid):
        y = self.conv(x.transpose(1, 2)).transpose(1, 2)
        if self.c.conv_activation == "relu":
            y = y.relu()
        if self.c.missing_embedding:
            y = torch.where((valid & ~seen)[..., None], self.missing, y)
        return y + positions(y.shape[1], y.shape[2], y)


def common_knowledge(xm, xn, open_n, scale):
    """(3, 4): what modality m finds in modality n, [B, T, 2d]."""
    m = xm @ xn.transpose(1, 2)
    if scale:
        m = m / xm.shape[-1] ** 0.5
    s = (m.tanh() + hidden_logits(open_n)[:, None, :].to(m)).softmax(-1)
    r = s @ xn
    return torch.cat([r, r * xm], -1)


class PoolNorm(nn.BatchNorm1d):
    """Batch normalisation that a counterfactual passes through with the factual batch's statistics."""

    def forward(self, x, counterfactual=False):
        if not self.training:
            return super().forward(x)
        if not counterfactual:
            self.factual = (x.mean(0), x.var(0, unbiased=False))
            return super().forward(x)
        mean, var = self.factual
        return (x - mean) / (var + self.eps).sqrt() * self.weight + self.bias


class Classifier(nn.Module):
    """Normalisation, dropout and a linear map; `norm` covers the first `normed` columns."""

    def __init__(self, c, normed, width):
        super().__init__()
        self.norm = PoolNorm(normed) if c.pool_norm == "batch" else None
        self.dropout = nn.Dropout(c.dropout)
        self.linear = nn.Linear(width, c.classes)

    def normalise(self, x, counterfactual=False):
        return x if self.norm is None else self.norm(x, counterfactual)

    def logits(self, x):
        return self.linear(self.dropout(x))


class LabelEmbedding(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(c.classes, c.hidden))
        self.gate = nn.Linear(c.hidden, c.hidden)


class Pair(nn.Module):
    """(9) for one pair."""

    def __init__(self, c):
        super().__init__()
        self.output = nn.Linear(c.hidden, c.hidden, bias=False)
        self.linear1 = nn.Linear(c.hidden, c.ffn)
        self.dropout = nn.Dropout(c.dropout)
        self.linear2 = nn.Linear(c.ffn, c.hidden)
        self.norm = nn.LayerNorm(c.hidden)

    def forward(self, z, token):
        f = self.linear2(self.dropout(self.linear1(self.output(token)).relu()))
        return self.norm(z + f)


class Fusion(nn.Module):
    """LG-MMT (6-9)."""

    def __init__(self, c):
        super().__init__()
        d = c.hidden
        self.heads = c.heads
        self.query = nn.Linear(d, d, bias=False)
        self.key = nn.ModuleDict({m: nn.Linear(d, d, bias=False) for m in ("language", "audio")})
        self.value = nn.ModuleDict({m: nn.Linear(d, d, bias=False) for m in ("audio", "vision")})
        for name in PAIRS:
            setattr(self, name, Pair(c))

    def attend(self, e, zm, zn, m, n, keep):
        """(6-8): one query token over the steps of a pair, [B, 1, d]."""
        def split(x):                                           # [B, T, d] -> [B, h, T, d/h]
            return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)
        q, k, v = split(self.query(e)[:, None]), split(self.key[m](zm)), split(self.value[n](zn))
        s = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5 + hidden_logits(keep)[:, None, None].to(q)
        return (s.softmax(-1) @ v).transpose(1, 2).flatten(2)

    def forward(self, e, z, open_, valid):
        pairs = {}
        for name, (m, n) in PAIRS.items():
            both = open_[m] & open_[n]
            keep = torch.where(both.any(1, keepdim=True), both, valid)
            h = getattr(self, name)(z[m], self.attend(e, z[m], z[n], m, n, keep))
            pairs[name] = mean_over(h, valid)
        return pairs


class Means(nn.Module):
    """(12): the replacement of each modality."""

    def __init__(self, c):
        super().__init__()
        self.mean = nn.Module()
        for m in MODALITIES:
            self.mean.register_buffer(m, torch.zeros(c.hidden))


class Projection(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.student = nn.Linear(d, d, bias=False)
        self.teacher = nn.Linear(d, d, bias=False)


class Cumdf(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        d = c.hidden
        self.mke = nn.ModuleDict({m: Encoder(c, m) for m in MODALITIES})
        self.unimodal = nn.ModuleDict({m: Classifier(c, d, d) for m in MODALITIES})
        if c.lg_mmt:
            self.label = LabelEmbedding(c)
            self.fusion = Fusion(c)
        self.head = Classifier(c, 3 * d, (6 if c.head_pooled else 3) * d)
        self.maci = Means(c)
        if c.distil:
            levels = {"fused": 3 * d, **({p: d for p in PAIRS} if c.lg_mmt else {}), **{m: d for m in MODALITIES}}
            self.distil = nn.ModuleDict({k: Projection(w) for k, w in levels.items()})

    def open_steps(self, seen, valid):
        if not self.c.mask_missing:
            return {m: valid for m in MODALITIES}
        return {m: torch.where(seen[m].any(1, keepdim=True), seen[m], valid) for m in MODALITIES}

    def encode(self, features, seen, valid, open_):
        """X', specific and common knowledge, and X~ of the three modalities."""
        prime = {m: self.mke[m].prime(features[m], seen[m], valid) for m in MODALITIES}
        if not self.c.mke:
            return dict(x_prime=prime, x=prime)
        specific, common, x = {}, {}, {}
        for m in MODALITIES:
            specific[m] = self.mke[m].specific(prime[m], src_key_padding_mask=~open_[m])
            common[m] = torch.cat([common_knowledge(prime[m], prime[n], open_[n], self.c.scale_common)
                                   for n in MODALITIES if n != m], -1)
            x[m] = self.mke[m].combine(torch.cat([specific[m], common[m]], -1))
        return dict(x_prime=prime, specific=specific, common=common, x=x)

    def predict(self, x, guide, open_, valid, counterfactual=False):
        """From X~ to the logits. `guide` None: the estimate is made here."""
        out = {}
        pooled = {m: mean_over(x[m], valid) for m in MODALITIES}
        q = {m: self.unimodal[m].normalise(pooled[m], counterfactual) for m in MODALITIES}
        out["pooled"], out["uni_logits"] = pooled, {m: self.unimodal[m].logits(q[m]) for m in MODALITIES}
        if callable(guide):
            guide = guide(out["uni_logits"])
        out["guide"] = guide
        if self.c.lg_mmt:
            e = guide @ self.label.embedding
            u = self.label.gate(e)[:, None]
            z = {m: x[m] * (u if self.c.label_gate == "product" else 1 + u) for m in MODALITIES}
            out["pair"] = self.fusion(e, z, open_, valid)
            out["fused"] = torch.cat([out["pair"][p] for p in PAIRS], -1)
        else:
            out["fused"] = torch.cat([pooled[m] for m in MODALITIES], -1)
        h = self.head.normalise(out["fused"], counterfactual)
        if self.c.head_pooled:
            h = torch.cat([h] + [q[m] for m in MODALITIES], -1)
        out["logits"] = self.head.logits(h)
        return out

    def forward(self, features, seen, valid, guide=None, counterfactuals=False):
        """features {m: [B,T,d_m]}, seen [B,3,T], valid [B,T]; guide [B,C] is given to teachers only."""
        seen = {m: seen[:, i] for i, m in enumerate(MODALITIES)}
        have = torch.stack([seen[m].any(1) for m in MODALITIES], 1)

        def estimate(uni):
            p = torch.stack([uni[m].softmax(-1) for m in MODALITIES], 1).detach()
            w = have.to(p)[..., None]
            return torch.where(have.any(1, keepdim=True), (p * w).sum(1) / w.sum(1).clamp(min=1), 1 / self.c.classes)

        open_ = self.open_steps(seen, valid)
        out = self.encode(features, seen, valid, open_)
        out.update(self.predict(out["x"], estimate if guide is None else guide, open_, valid), have=have)
        if counterfactuals:
            out["cf_logits"] = {}
            for m in MODALITIES:
                x = dict(out["x"])
                x[m] = getattr(self.maci.mean, m).expand_as(x[m])
                replaced = self.open_steps({**seen, m: valid}, valid)
                out["cf_logits"][m] = self.predict(x, out["guide"], replaced, valid, counterfactual=True)["logits"]
        return out


def attribution(out, target):
    """(13-15): delta [B, 3] and X_con [3]. A soft target takes the expectation of |difference|."""
    y = out["logits"].softmax(-1)
    delta = torch.stack([((y - out["cf_logits"][m].softmax(-1)).abs() * target).sum(-1) for m in MODALITIES], 1)
    delta = delta * out["have"].to(delta)
    total = delta.sum()
    x_con = delta.sum(0) / total if total > 0 else torch.full((3,), 1 / 3).to(delta)
    return delta, x_con


def cross_entropy(logits, target):
    return -(target * logits.log_softmax(-1)).sum(-1)


def losses(net, out, target, teacher=None, score=None, bins=None, *, reg=0.1, cou=0.1, srd=0.1, uni=0.3,
           score_weight=0.0, lambdas=(1e-4, 1e-4, 1e-4), alphas=(1.0, 1.0, 1.0), projection="both"):
    """(10, 16-19) of a student: every term, unweighted but for the lambdas and alphas, and the total."""
    c, have, terms = net.c, out["have"], {}
    out["delta"], out["x_con"] = attribution(out, target)
    terms["task"] = cross_entropy(out["logits"], target).mean()
    each = torch.stack([cross_entropy(out["uni_logits"][m], target) for m in MODALITIES], 1)
    terms["uni"] = each[have].mean()
    terms["reg"] = torch.zeros(()).to(each)
    if c.lg_mmt:
        f = net.fusion
        groups = ([f.query], f.key.values(), f.value.values())
        terms["reg"] = sum(l * sum(w.weight.square().sum() for w in g) for l, g in zip(lambdas, groups))
    terms["cou"] = (out["x_con"].detach() * out["x_con"]).sum()

    if teacher is not None:
        def gap(level, s, t):
            if projection in ("both", "student"):
                s = net.distil[level].student(s)
            if projection == "both":
                t = net.distil[level].teacher(t)
            return 1 - F.cosine_similarity(s, t, dim=-1)
        terms["srd.fused"] = alphas[0] * gap("fused", out["fused"], teacher["fused"]).mean()
        if c.lg_mmt:
            terms["srd.pairs"] = alphas[1] * sum(
                gap(p, out["pair"][p], teacher["pairs"][i]).mean() for i, p in enumerate(PAIRS))
        weight = (1 - out["x_con"]).detach()
        weight = weight / weight.sum()
        terms["srd.modalities"] = alphas[2] * sum(
            weight[i] * gap(m, out["pooled"][m], teacher["modalities"][i])[have[:, i]].mean()
            for i, m in enumerate(MODALITIES) if have[:, i].any())

    total = terms["task"] + uni * terms["uni"] + reg * terms["reg"] + cou * terms["cou"]
    total = total + srd * sum(v for k, v in terms.items() if k.startswith("srd."))
    if score_weight:
        terms["score"] = (out["logits"].softmax(-1) @ bins - score).abs().mean()
        total = total + score_weight * terms["score"]
    terms["total"] = total
    return terms
