"""DMD in plain torch.nn: short, and written apart from the Rust code.

Li, Wang, Cui: Decoupled Multimodal Distilling for Emotion Recognition, CVPR 2023; official code
github.com/mdswyz/DMD (MIT), whose transformer is that of Tsai et al., Multimodal Transformer for Unaligned
Multimodal Language Sequences, ACL 2019 (github.com/yaohungt/Multimodal-Transformer, MIT). Ours, not theirs:
the state after the last valid window where they take the last step of the padded sequence
(`last_step = "official"` does as they do), the orthogonality loss over features (the paper; the code fed the
wrong axis), the margin loss's labels of emotions, and the three projections whose output nothing uses are
left out.

Run as a script it checks itself. `golden_dmd.py` turns it into tests/golden/dmd_*.safetensors.
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

MODALITIES = ("language", "audio", "vision")
ORDER = ("language", "vision", "audio")         # of every concatenation and of the distillation's vertices
SOURCES = {"language": ("audio", "vision"), "audio": ("language", "vision"), "vision": ("language", "audio")}
PAIRS = [(to, by) for to in range(3) for by in range(3) if to != by]    # edges: (student, teacher) in ORDER
WANTED = {"hom": (0, 0, 1, 0, 1, 0), "het": (0, 0, 1, 0, 1, 1)}         # edges that the prior favours
CLIP = 0.6                                      # of each element of the gradient


@dataclass
class Config:
    dims: dict              # features per modality
    task: str               # sentiment | emotion
    steps: int              # T, to which every sample is padded
    width: int              # d
    heads: int
    kernels: dict           # of the first convolution, per modality
    levels: int = 4         # layers of every transformer
    gd: tuple = (64, 32)    # width of the distillation units (hom, het)
    dropout_text: float = 0.0
    dropout_attn: dict = None   # per modality: the one that is read
    dropout_relu: float = 0.0
    dropout_res: float = 0.0
    dropout_emb: float = 0.0
    dropout_out: float = 0.0
    last_step: str = "valid"    # valid | official
    range: tuple = (-3, 3)      # of the scores
    classes: int = 4            # emotions

    @property
    def outputs(self):
        return 1 if self.task == "sentiment" else 2 * self.classes

    @property
    def neutral(self):
        return (self.range[0] + self.range[1]) / 2

    def windows(self, m):
        """T'."""
        return self.steps - self.kernels[m] + 1


def positions(steps, d):
    """[steps, d]: positions from 1, sines in the first half of the channels, cosines in the second."""
    i = torch.arange(d // 2, dtype=torch.float64)
    angle = torch.arange(1, steps + 1, dtype=torch.float64)[:, None] * 10000.0 ** (-i / (d // 2 - 1))
    return torch.cat([angle.sin(), angle.cos()], -1).to(torch.get_default_dtype())


class Layer(nn.Module):
    def __init__(self, d, attn, c):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attn = nn.MultiheadAttention(d, c.heads, dropout=attn, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.drop_relu, self.drop_res = nn.Dropout(c.dropout_relu), nn.Dropout(c.dropout_res)
        for layer in (self.attn.out_proj, self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x, source, mask):
        y = self.norm1(x)
        key, value = (y, y) if source is None else map(self.norm1, source)
        x = x + self.drop_res(self.attn(y, key, value, attn_mask=mask, need_weights=False)[0])
        return x + self.drop_res(self.linear2(self.drop_relu(self.linear1(self.norm2(x)).relu())))


class Transformer(nn.Module):
    """`modules/transformer.py`, causal: x [B, T_q, d] reads itself, or at each layer `source` [B, T_k, d]."""

    def __init__(self, d, attn, c):
        super().__init__()
        self.scale = d ** 0.5
        self.register_buffer("positions", positions(c.steps, d), persistent=False)
        self.drop = nn.Dropout(c.dropout_emb)
        self.layer = nn.ModuleList(Layer(d, attn, c) for _ in range(c.levels))
        self.norm = nn.LayerNorm(d)

    def embed(self, x):
        """A step whose first channel is 0 counts as padding and has no position."""
        there = (x[..., :1] != 0).to(x)
        return self.scale * x + self.positions[:x.shape[1]] * there

    def forward(self, x, source=None):
        t_q, t_k = x.shape[1], (x if source is None else source).shape[1]
        mask = torch.ones(t_q, t_k, dtype=torch.bool, device=x.device).triu(1 + abs(t_k - t_q))
        if source is not None:
            low = self.embed(source)
            source = (self.drop(low), self.drop(low))
        x = self.drop(self.embed(x))
        for layer in self.layer:
            x = layer(x, source, mask)
        return self.norm(x)


class Head(nn.Module):
    """A residual block (narrower inside, if told) and the logits. What else it gives is a representation."""

    def __init__(self, d, c, inner=None):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(d, inner or d), nn.Linear(inner or d, d)
        self.drop = nn.Dropout(c.dropout_out)
        self.out = nn.Linear(d, c.outputs)

    def forward(self, x):
        """(logits, inside the block, after the block)"""
        inside = self.linear1(x).relu()
        after = self.linear2(self.drop(inside)) + x
        return self.out(after), inside, after


class Distil(nn.Module):
    """`trains/singleTask/distillnets`: the weight of every edge of the graph."""

    def __init__(self, outputs, d, width):
        super().__init__()
        self.logit, self.repr, self.edge = nn.Linear(outputs, width), nn.Linear(d, width), nn.Linear(4 * width, 1)

    def forward(self, logits, reprs):
        """[3, B, K], [3, B, d] in ORDER to [6, B] in the order of PAIRS."""
        z = torch.cat([self.logit(logits), self.repr(reprs)], -1)
        to, by = zip(*PAIRS)
        e = self.edge(torch.cat([z[list(to)], z[list(by)]], -1))[..., 0]
        return (e / 8).softmax(0)


class Dmd(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        d, each = c.width, lambda make: nn.ModuleDict({m: make(m) for m in MODALITIES})
        attn = c.dropout_attn or dict.fromkeys(MODALITIES, 0.0)
        conv = lambda d_in, kernel: nn.Conv1d(d_in, d, kernel, bias=False)
        flat = {m: d * c.windows(m) for m in MODALITIES}
        self.drop_text = nn.Dropout(c.dropout_text)
        self.project = each(lambda m: conv(c.dims[m], c.kernels[m]))
        self.private = each(lambda m: conv(d, 1))
        self.shared = conv(d, 1)
        self.reconstruct = each(lambda m: conv(2 * d, 1))
        self.margin = each(lambda m: nn.Linear(flat[m], d))
        self.hom = each(lambda m: Head(flat[m], c, d))
        self.common = each(lambda m: Transformer(d, attn[m], c))
        self.common_head = Head(3 * d, c)
        self.cross = nn.ModuleDict({f"{m}_{n}": Transformer(d, attn[n], c) for m in MODALITIES for n in SOURCES[m]})
        self.memory = each(lambda m: Transformer(2 * d, attn["language"], c))
        self.het = each(lambda m: Head(2 * d, c))
        self.gate = each(lambda m: nn.Linear(2 * d, 2 * d))
        self.gate["common"] = nn.Linear(3 * d, 3 * d)
        self.fusion = Head(9 * d, c)
        self.distil = nn.ModuleDict(dict(hom=Distil(c.outputs, d, c.gd[0]), het=Distil(c.outputs, 2 * d, c.gd[1])))

    def last(self, states, m, lengths):
        """The state after the last window of real frames alone; of shorter samples, after the first window."""
        if self.c.last_step == "official":
            return states[:, -1]
        step = (lengths - self.c.kernels[m]).clamp(min=0)
        return states[torch.arange(len(step), device=step.device), step]

    def forward(self, features, valid):
        """features {m: [B, steps, d_m]}, valid [B, steps]."""
        lengths = valid.sum(1)
        features = {**features, "language": self.drop_text(features["language"])}
        x = {m: self.project[m](features[m].transpose(1, 2)) for m in MODALITIES}       # [B, d, T']
        private = {m: self.private[m](x[m]) for m in MODALITIES}
        shared = {m: self.shared(x[m]) for m in MODALITIES}

        common = {m: self.last(self.common[m](shared[m].transpose(1, 2)), m, lengths) for m in MODALITIES}
        c = torch.cat([common[m] for m in ORDER], -1)
        s = {m: v.transpose(1, 2) for m, v in private.items()}
        cross = {f"{m}_{n}": self.cross[f"{m}_{n}"](s[m], s[n]) for m in MODALITIES for n in SOURCES[m]}
        memory = {m: self.last(self.memory[m](torch.cat([cross[f"{m}_{n}"] for n in SOURCES[m]], -1)), m, lengths)
                  for m in MODALITIES}
        gated = torch.cat([self.gate[m](memory[m]).sigmoid() for m in ORDER] + [self.gate["common"](c).sigmoid()], -1)
        y = self.fusion(gated)[0]                                                       # [B, K]
        out = dict(project=x, private=private, shared=shared, common=common, c=c, cross=cross, memory=memory,
                   gated=gated, logit=dict(fused=y))
        if self.c.task == "sentiment":
            out["answer"] = y[:, 0] + self.c.neutral                                    # [B]
        else:
            out["logits"] = y.reshape(len(y), self.c.classes, 2)                        # (no, yes) for each emotion
            out["answer"] = out["logits"].softmax(-1)[..., 1]                           # [B, C]
        if self.training:
            self.extend(out)
        return out

    def extend(self, out):
        """What only the losses read."""
        x, private, shared, logit = out["project"], out["private"], out["shared"], out["logit"]
        out["reconstruct"] = {m: self.reconstruct[m](torch.cat([private[m], shared[m]], 1)) for m in MODALITIES}
        out["private_again"] = {m: self.private[m](v) for m, v in out["reconstruct"].items()}
        out["margin"] = {m: self.margin[m](v.flatten(1)) for m, v in shared.items()}    # of [d, T']
        hom = {m: self.hom[m](v.transpose(1, 2).flatten(1)) for m, v in shared.items()}  # of [T', d]
        het = {m: self.het[m](v) for m, v in out["memory"].items()}
        logit["common"] = self.common_head(out["c"])[0]
        logit["hom"], logit["het"] = ({m: v[0] for m, v in b.items()} for b in (hom, het))
        out["repr"] = dict(hom={m: v[1] for m, v in hom.items()}, het={m: v[2] for m, v in het.items()})
        out["edge"] = {b: self.distil[b](in_order(logit[b]), in_order(out["repr"][b])) for b in ("hom", "het")}


def in_order(parts):
    return torch.stack([parts[m] for m in ORDER])


def prior(branch, like):
    return (like.new_tensor(WANTED[branch]) / 0.25).softmax(0)


def regular(edge, branch):
    """Edges [6, B]: how far their means are from the prior."""
    return 10 * (edge.mean(1) - prior(branch, edge)).square().sum()


def distil_logits(edge, branch, logits):
    """Students follow teachers; logits [3, B, K] in ORDER."""
    (to, by), weight = map(list, zip(*PAIRS)), edge + prior(branch, edge)[:, None]
    return (weight * (logits[to] - logits.detach()[by]).abs().sum(-1)).mean(1).sum()


def distil_reprs(edge, branch, reprs):
    """Students keep away from teachers; representations [3, B, d] in ORDER."""
    (to, by), weight = map(list, zip(*PAIRS)), (edge.mean(1) + prior(branch, edge))
    near = F.cosine_similarity(reprs[to], reprs.detach()[by], dim=-1).relu().mean(1)
    return 10 * (near * weight).sum()


def hinge(same, other, gap):
    """Cosines to a sample of the same label and of another, `gap` away."""
    return (0.15 * gap - same + other).relu()


def margin(u, y):
    """u [N, d] with labels y [N, k]: of every anchor the mean over all pairs of the same and of another label;
    the mean over anchors that have both. Vectorised, N^3 cells."""
    cos = F.normalize(u) @ F.normalize(u).T
    gap = (y[:, None] - y).abs().sum(-1)
    same = (gap == 0) & ~torch.eye(len(u), dtype=torch.bool, device=u.device)
    pairs = same[:, :, None] & (gap > 0)[:, None]
    each = (hinge(cos[:, :, None], cos[:, None], gap[:, None]) * pairs).sum((1, 2))
    count = pairs.sum((1, 2))
    return (each / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)


def task_loss(c, logit, target):
    """Mean absolute error of scores [B]; cross-entropy of each emotion's pair, flags [B, C] of 0 and 1."""
    if c.task == "sentiment":
        return (logit[:, 0] + c.neutral - target).abs().mean()
    return F.cross_entropy(logit.reshape(-1, 2), target.long().reshape(-1))


WEIGHTS = dict(task=1.0, common=1.0, hom=1.0, het=1.0, logit_hom=0.05, reg_hom=0.05, logit_het=0.05, repr_het=0.05,
               reg_het=0.05, private=0.1, reconstruct=0.1, margin=0.01, orthogonal=0.01)


def losses(c, out, target):
    """The unweighted terms and their weighted total; `out` of a network that trains."""
    logit, edge = out["logit"], out["edge"]
    terms = dict(task=task_loss(c, logit["fused"], target), common=task_loss(c, logit["common"], target))
    for b in ("hom", "het"):
        terms[b] = sum(task_loss(c, v, target) for v in logit[b].values())
        terms[f"logit_{b}"] = distil_logits(edge[b], b, in_order(logit[b]))
        terms[f"reg_{b}"] = regular(edge[b], b)
    terms["repr_het"] = distil_reprs(edge["het"], "het", in_order(out["repr"]["het"]))
    terms["private"] = sum(F.mse_loss(v, out["private_again"][m]) for m, v in out["private"].items())
    terms["reconstruct"] = sum(F.mse_loss(v, out["project"][m]) for m, v in out["reconstruct"].items())
    u, y = torch.cat([out["margin"][m] for m in ORDER]), target.reshape(len(target), -1).repeat(3, 1)
    terms["margin"] = margin(u, y)
    terms["orthogonal"] = sum(F.cosine_similarity(v, out["shared"][m], dim=1).relu().mean()
                              for m, v in out["private"].items())
    terms["total"] = sum(w * terms[k] for k, w in WEIGHTS.items())
    return terms


def optimizer(net, rate=1e-3, decay=0.0):
    """Theirs is 1e-4, over ten batches with a BERT to tune; without it, this rate and one batch."""
    return torch.optim.Adam(net.parameters(), lr=rate, weight_decay=decay)


def clip(net):
    nn.utils.clip_grad_value_(net.parameters(), CLIP)


def small(task="sentiment", **kwargs):
    return Config(**(dict(dims=dict(language=6, audio=4, vision=5), task=task, steps=9, width=4, heads=2, levels=2,
                          kernels=dict(language=3, audio=1, vision=5), gd=(3, 2)) | kwargs))


def full(task, dims, steps):
    """MOSI at 50 steps, else MOSEI; IEMOCAP."""
    of = lambda language, audio, vision: dict(language=language, audio=audio, vision=vision)
    if task == "emotion":
        own = dict(width=40, heads=10, kernels=of(3, 3, 3), dropout_text=0.3, dropout_attn=of(0.25, 0.0, 0.0),
                   dropout_emb=0.25, dropout_out=0.1, dropout_relu=0.1, dropout_res=0.1)
    elif steps >= 50:
        own = dict(width=50, heads=10, kernels=of(5, 5, 5), dropout_text=0.5, dropout_attn=of(0.3, 0.2, 0.0),
                   dropout_emb=0.2, dropout_out=0.5)
    else:
        own = dict(width=30, heads=6, kernels=of(5, 1, 3), dropout_text=0.3, dropout_attn=of(0.4, 0.0, 0.0),
                   dropout_emb=0.0, dropout_out=0.5)
    return Config(dims=dims, task=task, steps=steps, **own)


def check():
    near = lambda got, want, by=5e-5: abs(float(got) - want) < by
    like = torch.zeros(1)
    for branch, (low, high), even in (("hom", (0.0088, 0.4823), 2.9893), ("het", (0.0060, 0.3273), 1.5489)):
        assert all(near(p, high if w else low) for p, w in zip(prior(branch, like), WANTED[branch]))
        unit = Distil(1, 4, 3)
        nn.init.zeros_(unit.edge.weight), nn.init.zeros_(unit.edge.bias)
        edge = unit(torch.randn(3, 2, 1), torch.randn(3, 2, 4)).detach()
        assert torch.allclose(edge, torch.full((6, 2), 1 / 6)) and near(regular(edge, branch), even)
    t = torch.tensor
    assert hinge(t(0.9), t(0.5), t(2.0)) == 0 and near(hinge(t(0.9), t(0.5), t(6.0)), 0.5)

    # The same by hand: anchors one by one.
    torch.manual_seed(1)
    u, y = torch.randn(7, 3), t([[1.0], [2.0], [1.0], [1.0], [2.0], [0.5], [2.0]])
    by_hand = []
    for i in range(7):
        same = [j for j in range(7) if j != i and y[j] == y[i]]
        other = [k for k in range(7) if y[k] != y[i]]
        cos = F.cosine_similarity(u[i], u, dim=-1)
        pairs = [hinge(cos[j], cos[k], (y[i] - y[k]).abs()[0]) for j in same for k in other]
        by_hand += [torch.stack(pairs).mean()] if pairs else []
    assert len(by_hand) == 6 and near(margin(u, y), float(torch.stack(by_hand).mean()), 1e-6)
    assert margin(u, torch.ones(7, 1)) == 0

    # Teachers learn nothing from their students.
    logits = torch.randn(3, 4, 1, requires_grad=True)
    edge = torch.zeros(6, 4)
    edge[0] = 1         # language learns from vision; the prior, taken away, would add the others
    distil_logits(edge - prior("hom", edge)[:, None], "hom", logits).backward()
    assert (logits.grad[0] != 0).all() and (logits.grad[1:] == 0).all()

    # The future stays hidden, from a source of other length too.
    c = small()
    one, past = Transformer(4, 0.0, c), torch.randn(2, 6, 4)
    later = past.clone()
    later[:, 4:] = torch.randn(2, 2, 4)
    assert torch.allclose(one(past)[:, :4], one(later)[:, :4], atol=1e-6)
    query = torch.randn(2, 4, 4)
    assert torch.allclose(one(query, past)[:, :2], one(query, later)[:, :2], atol=1e-6)
    assert sum(p.numel() for p in one.parameters()) == c.levels * (12 * 16 + 13 * 4) + 2 * 4

    for task in ("sentiment", "emotion"):
        torch.manual_seed(1)
        c = small(task)
        net = Dmd(c)
        valid = torch.arange(9) < t([[9], [1], [4]])
        features = {m: torch.randn(3, 9, d) * valid[..., None] for m, d in c.dims.items()}
        features["vision"][0] = 0
        out = net(features, valid)
        terms = losses(c, out, t([1.0, 2.0, 1.0]) if task == "sentiment" else torch.eye(3, c.classes))
        terms["total"].backward()
        assert all(p.grad.isfinite().all() for p in net.parameters())
        clip(net)
        assert max(float(p.grad.abs().max()) for p in net.parameters()) <= CLIP + 1e-6
        net.eval()
        nothing = net({m: torch.zeros_like(x) for m, x in features.items()}, valid)
        assert nothing["answer"].isfinite().all()
        alone = net({m: x[1:2] for m, x in features.items()}, valid[1:2])
        assert torch.allclose(alone["answer"], out["answer"][1:2], atol=1e-6)

    # The published networks' sizes: with three unused projections d T' -> d, without the distillation units.
    sizes = []
    for task, steps in (("sentiment", 50), ("sentiment", 20), ("emotion", 20)):
        c = full(task, dict(language=300, audio=74, vision=1024), steps)
        net = Dmd(c)
        count = lambda part: sum(p.numel() for p in part.parameters())
        sizes.append(count(net))
        published = count(net) - count(net.distil) + count(net.margin)
        assert published == {50: 4_894_908, 30: 1_482_188, 40: 2_561_984}[c.width] and 4_000 < count(net.distil) < 7_500
    print(f"DMD: as it should be; {sizes} parameters")


if __name__ == "__main__":
    check()
