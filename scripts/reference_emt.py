"""EMT-DLFR in plain torch.nn: short, and written apart from the Rust code.

Sun, Lian, Liu, Tao: Efficient Multimodal Transformer with Dual-Level Feature Restoration for Robust Multimodal
Sentiment Analysis, IEEE Transactions on Affective Computing 2023; official code github.com/sunlicai/EMT-DLFR
(MIT). Ours, not theirs: an LSTM where they have BERT, whose features are reconstructed as those of the others
are, a narrower predictor for it, one model for all missing rates, and the emotion task.

Run as a script it checks itself. `golden_emt.py` turns it into tests/golden/emt_*.safetensors.
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

MODALITIES = ("language", "audio", "vision")
ATTRACTED = ("global", *MODALITIES)


@dataclass
class Config:
    dims: dict              # features per modality
    hidden: dict            # LSTM width per modality
    encoded: dict           # width of tokens and utterance vectors per modality
    attract: dict           # hidden width of the predictor of each of ATTRACTED
    task: str               # sentiment | emotion
    width: int = 128        # d
    heads: int = 4
    layers: int = 3         # passes through the one fusion module
    head: int = 256
    dropout_attn: float = 0.0
    dropout_feed: float = 0.0
    dropout_head: float = 0.0
    attract_weight: float = 1.0     # of the attraction and of the complete view's task
    recon_weight: float = 1.0
    range: tuple = (-3, 3)          # of the scores
    classes: int = 4                # emotions

    @property
    def outputs(self):
        return 1 if self.task == "sentiment" else 2 * self.classes

    @property
    def neutral(self):
        return (self.range[0] + self.range[1]) / 2


class Encoder(nn.Module):
    """LSTM and Linear (none where the widths agree): tokens [B, T, out], and the one after the last valid step."""

    def __init__(self, d_in, hidden, out):
        super().__init__()
        self.lstm = nn.LSTM(d_in, hidden, batch_first=True)
        self.out = nn.Linear(hidden, out) if hidden != out else nn.Identity()

    def forward(self, x, valid):
        tokens = self.out(self.lstm(x)[0])
        return tokens, tokens[torch.arange(len(x), device=x.device), valid.sum(1) - 1]


class Attention(nn.Module):
    """Pre-norm, of x [B, T_q, d] on itself or a context [B, T_k, d] with a norm of its own; `seen` [B, T_k]."""

    def __init__(self, c, context):
        super().__init__()
        d = c.width
        self.heads, self.dropout = c.heads, c.dropout_attn
        self.norm = nn.LayerNorm(d)
        if context:
            self.context_norm = nn.LayerNorm(d)
        self.query, self.key_value = nn.Linear(d, d, bias=False), nn.Linear(d, 2 * d, bias=False)
        self.out = nn.Linear(d, d)

    def forward(self, x, context=None, seen=None):
        x = self.norm(x)
        context = x if context is None else self.context_norm(context)
        split = lambda v: v.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, (k, v) = split(self.query(x)), map(split, self.key_value(context).chunk(2, -1))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None if seen is None else seen[:, None, None],
                                           dropout_p=self.dropout if self.training else 0.0)
        return self.out(y.transpose(1, 2).flatten(2))


class Feed(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm = nn.LayerNorm(c.width)
        self.linear1, self.linear2 = nn.Linear(c.width, 8 * c.width), nn.Linear(4 * c.width, c.width)
        self.drop = nn.Dropout(c.dropout_feed)

    def forward(self, x):
        u, g = self.linear1(self.norm(x)).chunk(2, -1)
        return self.drop(self.linear2(u * F.gelu(g)))


class Fusion(nn.Module):
    """One half unit for both directions, all modalities and all layers, and one pooling for all layers."""

    def __init__(self, c):
        super().__init__()
        self.layers = c.layers
        self.cross, self.own, self.feed = Attention(c, True), Attention(c, False), Feed(c)
        self.pool = nn.ModuleDict(dict(linear1=nn.Linear(3 * c.width, 3 * c.width), linear2=nn.Linear(3 * c.width, 1)))

    def unit(self, x, context, seen=None, context_seen=None):
        x = x + self.cross(x, context, context_seen)
        x = x + self.own(x, seen=seen)
        return x + self.feed(x)

    def forward(self, local, g, valid):
        """local {m: [B, T, d]}, g [B, 3, d], valid [B, T]."""
        for _ in range(self.layers):
            read = [self.unit(g, x, context_seen=valid).flatten(1) for x in local.values()]
            local = {m: self.unit(x, g, seen=valid) for m, x in local.items()}
            read = torch.stack(read, 1)                                         # [B, 3, 3d]
            score = self.pool["linear2"](self.pool["linear1"](read).tanh())
            g = (score.softmax(1) * read).sum(1).unflatten(-1, (3, -1))
        return local, g


class Attract(nn.Module):
    """SimSiam's projector and predictor of vectors of width n."""

    def __init__(self, n, hidden):
        super().__init__()
        self.project, self.project_norm = nn.Linear(n, n), nn.BatchNorm1d(n, affine=False)
        self.predict1, self.predict_norm = nn.Linear(n, hidden, bias=False), nn.BatchNorm1d(hidden)
        self.predict2 = nn.Linear(hidden, n)

    def forward(self, x):
        z = self.project_norm(self.project(x))
        return z, self.predict2(self.predict_norm(self.predict1(z)).relu())


class Head(nn.Module):
    def __init__(self, width, c):
        super().__init__()
        self.drop = nn.Dropout(c.dropout_head)
        self.linear1, self.linear2 = nn.Linear(width, c.head), nn.Linear(c.head, c.head)
        self.linear3 = nn.Linear(c.head, c.outputs)

    def forward(self, x):
        return self.linear3(self.linear2(self.linear1(self.drop(x)).relu()).relu())


def positions(like):
    """[T, d] for like [B, T, d]: sines and cosines take turns, positions from 0."""
    _, steps, d = like.shape
    rate = 10000.0 ** (-torch.arange(0, d, 2, device=like.device, dtype=like.dtype) / d)
    angle = torch.arange(steps, device=like.device, dtype=like.dtype)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


class Emt(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        d = c.width
        self.encoder = nn.ModuleDict({m: Encoder(c.dims[m], c.hidden[m], c.encoded[m]) for m in MODALITIES})
        self.project = nn.ModuleDict({m: nn.Linear(n, d, bias=False) if n != d else nn.Identity()
                                      for m, n in c.encoded.items()})
        self.fusion = Fusion(c)
        self.head = Head(sum(c.encoded.values()) + 3 * d, c)
        self.attract = nn.ModuleDict({n: Attract(c.encoded.get(n, 3 * d), c.attract[n]) for n in ATTRACTED})
        self.reconstruct = nn.ModuleDict({m: nn.Linear(d, c.dims[m]) for m in MODALITIES})

    def forward(self, features, valid):
        """One view: features {m: [B, T, d_m]}, valid [B, T]. In training, z and p too."""
        encoded = {m: self.encoder[m](features[m], valid) for m in MODALITIES}
        tokens, last = ({m: v[i] for m, v in encoded.items()} for i in (0, 1))
        first = {m: self.project[m](x) for m, x in tokens.items()}
        position = positions(first["language"])
        local = {m: x + position for m, x in first.items()}
        context = torch.stack([self.project[m](x) for m, x in last.items()], 1)
        local, g = self.fusion(local, context, valid)
        vectors = {"global": g.flatten(1), **last}
        y = self.head(torch.cat([*last.values(), vectors["global"]], -1))                 # [B, K]
        out = dict(tokens=tokens, context=context, local=local, vector=vectors, output=y)
        if self.c.task == "sentiment":
            out["answer"] = y[:, 0] + self.c.neutral                                    # [B]
        else:
            out["logits"] = y.reshape(len(y), self.c.classes, 2)                        # (no, yes) for each emotion
            out["answer"] = out["logits"].softmax(-1)[..., 1]                           # [B, C]
        if self.training:
            pairs = {n: self.attract[n](v) for n, v in vectors.items()}
            out["z"], out["p"] = ({n: v[i] for n, v in pairs.items()} for i in (0, 1))
        return out

    def views(self, complete, incomplete, valid):
        """The siamese pass, in the order that BatchNorm's running statistics see: (complete, incomplete)."""
        full = self(complete, valid)
        less = self(incomplete, valid)
        less["reconstruct"] = {m: self.reconstruct[m](x) for m, x in less["local"].items()}
        return full, less


def task_loss(c, out, target):
    """Mean absolute error of scores [B]; cross-entropy of each emotion's pair, flags [B, C] of 0 and 1."""
    if c.task == "sentiment":
        return (out["answer"] - target).abs().mean()
    return F.cross_entropy(out["logits"].reshape(-1, 2), target.long().reshape(-1))


def attraction(p, z):
    return -F.cosine_similarity(p, z.detach(), dim=-1).mean()


def masked_smooth_l1(x, target, mask):
    """Of frames [B, T, d] under mask [B, T]."""
    each = F.smooth_l1_loss(x, target, reduction="none") * mask[..., None]
    return each.sum() / (mask.sum() * x.shape[-1] + 1e-6)


def losses(c, full, less, complete, missing, target):
    """The unweighted terms and their weighted total. `complete` {m: [B, T, d_m]}; `missing` {m: [B, T]}: frames
    that the complete view has and the incomplete one lacks."""
    terms = dict(task=task_loss(c, less, target), task_complete=task_loss(c, full, target))
    terms["attract"] = {n: (attraction(less["p"][n], full["z"][n]) + attraction(full["p"][n], less["z"][n])) / 2
                        for n in ATTRACTED}
    terms["recon"] = {m: masked_smooth_l1(less["reconstruct"][m], complete[m], missing[m]) for m in MODALITIES}
    terms["total"] = (terms["task"] + c.attract_weight * (sum(terms["attract"].values()) + terms["task_complete"])
                      + c.recon_weight * sum(terms["recon"].values()))
    return terms


def optimizer(net, rates, decays):
    """Adam with the L2 penalty in the gradient, one group per encoder and one for the rest. It steps after the
    last of the accumulated batches (4); gradients are summed."""
    encoder = {m: list(net.encoder[m].parameters()) for m in MODALITIES}
    rest = [p for name, p in net.named_parameters() if not name.startswith("encoder.")]
    return torch.optim.Adam([dict(params=p, lr=rates[group], weight_decay=decays[group])
                             for group, p in {**encoder, "rest": rest}.items()])


def small(task="sentiment", **kwargs):
    return Config(**(dict(dims=dict(language=6, audio=4, vision=5), task=task, width=8, heads=2, layers=2, head=6,
                          hidden=dict(language=8, audio=4, vision=5), encoded=dict(language=8, audio=3, vision=5),
                          attract={"global": 6, "language": 5, "audio": 4, "vision": 4}) | kwargs))


def full(task, dims, steps):
    """MOSI at 50 steps; MOSEI and IEMOCAP."""
    by = lambda language, audio, vision: dict(language=language, audio=audio, vision=vision)
    long = task == "sentiment" and steps >= 50
    if long:
        own = dict(layers=3, head=256, dropout_attn=0.3, dropout_feed=0.1, dropout_head=0.3)
    elif task == "sentiment":
        own = dict(layers=2, head=128)
    else:
        own = dict(layers=2, head=128, dropout_attn=0.1, dropout_feed=0.1, dropout_head=0.1)
    return Config(dims=dims, task=task, hidden=by(128, 32, 64) if long else by(128, 16, 32),
                  encoded=by(128, 16, 32), attract={"global": 128, "language": 64, "audio": 8, "vision": 16}, **own)


def recipe(task, steps):
    """(rates, decays) by group."""
    groups = (*MODALITIES, "rest")
    if task == "emotion":
        rates, decays = (1e-3, 1e-3, 1e-3, 1e-3), (1e-3, 1e-3, 1e-3, 1e-3)
    elif steps >= 50:
        rates, decays = (1e-3, 1e-3, 1e-4, 1e-3), (1e-3, 1e-2, 1e-3, 1e-3)
    else:
        rates, decays = (5e-4, 1e-4, 1e-4, 1e-4), (1e-3, 1e-3, 1e-3, 1e-3)
    return dict(zip(groups, rates)), dict(zip(groups, decays))


def check():
    for task in ("sentiment", "emotion"):
        torch.manual_seed(1)
        c = small(task)
        net = Emt(c)
        valid = torch.arange(9) < torch.tensor([[9], [1], [4]])
        complete = {m: torch.randn(3, 9, d) * valid[..., None] for m, d in c.dims.items()}
        target = torch.tensor([1.0, -2.0, 0.0]) if task == "sentiment" else torch.eye(3, c.classes)
        nothing = {m: torch.zeros_like(valid) for m in MODALITIES}
        both = net.views(complete, complete, valid)
        terms = losses(c, *both, complete, nothing, target)
        assert all(v == 0 for v in terms["recon"].values())         # of no frame: no loss, no NaN
        assert terms["task"] == terms["task_complete"]

        less = {m: x.clone() for m, x in complete.items()}
        less["language"][0] = less["audio"][2, 1] = 0
        missing = {m: valid & (less[m] != x).any(-1) for m, x in complete.items()}
        assert missing["language"].sum() == 9 and missing["audio"].sum() == 1
        out = net.views(complete, less, valid)
        terms = losses(c, *out, complete, missing, target)
        p, z = out[1]["p"]["audio"], out[0]["z"]["audio"]
        assert torch.autograd.grad(attraction(p, z), z, retain_graph=True, allow_unused=True) == (None,)
        terms["total"].backward()
        assert all(q.grad.isfinite().all() for q in net.parameters())

        net.eval()      # a prediction depends on nothing but its own valid frames
        answer = net(less, valid)["answer"]
        noise = {m: torch.randn_like(x) for m, x in complete.items()}
        assert torch.equal(net.views(noise, less, valid)[1]["answer"], answer)
        alone = net({m: x[2:, :4] for m, x in less.items()}, valid[2:, :4])
        assert torch.allclose(alone["answer"], answer[2:], atol=1e-6)
        parts = sum(len(g["params"]) for g in optimizer(net, *recipe(task, 9)).param_groups)
        assert parts == len(list(net.parameters()))

    dims = dict(language=300, audio=74, vision=1024)
    count = lambda part: sum(p.numel() for p in part.parameters())
    net = Emt(full("sentiment", dims, 50))
    assert count(net.fusion) == count(Emt(full("emotion", dims, 20)).fusion) == 478_337
    assert count(net.fusion) - count(net.fusion.pool) == 330_112
    wide = Attract(128, 256)        # the official predictor of language
    predicting = count(net) - count(net.attract) - count(net.reconstruct)
    training = count(net) - count(net.attract["language"]) + count(wide)
    assert (round(predicting / 1e6, 2), round(training / 1e6, 2)) == (1.21, 1.72), (predicting, training)
    print(f"EMT: as it should be; {count(net)} parameters, {predicting} of them to predict")


if __name__ == "__main__":
    check()
