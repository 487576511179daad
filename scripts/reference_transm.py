"""TransModality in plain torch.nn: short, and written apart from the Rust code.

Wang, Wan, Wan: TransModality: An End2End Fusion Method with Transformer for Multimodal Sentiment Analysis,
WWW 2020; code github.com/hyeonJeongByeon/TransModality. Ours, not theirs: a step is a word rather than an
utterance, so that states are averaged over valid steps before the classifier; no dropout between the
encoders' recurrent steps; outputs of the translations without ReLU; complete features as their targets;
scores centred on the range's middle, and the emotion task.

Run as a script it checks itself. `golden.py` turns it into tests/golden/transm_*.safetensors.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

MODALITIES = ("language", "audio", "vision")
OTHERS = ("vision", "audio")    # each has a cell that translates language into it and back


@dataclass
class Config:
    dims: dict                  # features per modality
    task: str                   # sentiment | emotion
    gru: int = 300              # per direction
    width: int = 100
    heads: int = 5
    inner: dict = field(default_factory=lambda: dict(vision=200, audio=120))    # feed-forward width of a cell
    encoder_layers: int = 4
    decoder_layers: int = 2
    input_dropout: float = 0.5
    dropout: float = 0.3        # before and after the encoders' Linear
    cell_dropout: float = 0.3
    range: tuple = (-3, 3)      # of the scores
    classes: int = 4            # emotions
    translate_weight: float = 1.0
    rate: float = 5e-4

    @property
    def outputs(self):
        return 1 if self.task == "sentiment" else 2 * self.classes

    @property
    def neutral(self):
        return (self.range[0] + self.range[1]) / 2


class Encoder(nn.Module):
    """Bidirectional GRU and a Linear with tanh; zero beyond a sample's length."""

    def __init__(self, d_in, c):
        super().__init__()
        self.input_dropout, self.dropout = nn.Dropout(c.input_dropout), nn.Dropout(c.dropout)
        self.gru = nn.GRU(d_in, c.gru, bidirectional=True, batch_first=True)
        self.out = nn.Linear(2 * c.gru, c.width)

    def forward(self, x, valid):
        packed = pack_padded_sequence(self.input_dropout(x), valid.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=x.shape[1])
        return self.dropout(self.out(self.dropout(states)).tanh()) * valid[..., None]


class Attention(nn.Module):
    """A ReLU after each of the four Linears."""

    def __init__(self, c):
        super().__init__()
        self.heads = c.heads
        for name in ("query", "key", "value", "out"):
            linear = nn.Linear(c.width, c.width)
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
            setattr(self, name, linear)

    def forward(self, x, memory, keys):
        """`keys` [B, 1, 1, T]: which of the memory's steps may be looked at."""
        split = lambda y: y.relu().unflatten(-1, (self.heads, -1)).transpose(1, 2)      # [B, heads, T, d]
        q, k, v = split(self.query(x)), split(self.key(memory)), split(self.value(memory))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=keys)
        return self.out(y.transpose(1, 2).flatten(2)).relu()


class Layer(nn.Module):
    """Post-norm; with `decoder` it looks at a memory too. No causal mask."""

    def __init__(self, c, inner, decoder):
        super().__init__()
        self.own = Attention(c)
        if decoder:
            self.memory = Attention(c)
        self.linear1 = nn.Linear(c.width, inner)
        self.linear2 = nn.Linear(inner, c.width)
        for i in range(3 if decoder else 2):
            setattr(self, f"norm{i + 1}", nn.LayerNorm(c.width))
        self.dropout = nn.Dropout(c.cell_dropout)

    def forward(self, x, keys, memory=None):
        x = self.norm1(x + self.dropout(self.own(x, x, keys)))
        feed = self.norm2
        if memory is not None:
            x = self.norm2(x + self.dropout(self.memory(x, memory, keys)))
            feed = self.norm3
        return feed(x + self.dropout(self.linear2(self.linear1(x).relu())))


def positions(x):
    """[T, d]: sines and cosines interleaved, from position 0."""
    t, d = x.shape[1:]
    rates = torch.exp(torch.arange(0, d, 2, device=x.device, dtype=x.dtype) * (-math.log(10000.0) / d))
    angles = torch.arange(t, device=x.device, dtype=x.dtype)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :d]


class Stack(nn.Module):
    """Layers on a sequence with positions; of a decoder the sequence is the query."""

    def __init__(self, c, inner, layers, decoder=False):
        super().__init__()
        self.layer = nn.ModuleList(Layer(c, inner, decoder) for _ in range(layers))

    def forward(self, x, keys, memory=None):
        x = x + positions(x)
        for layer in self.layer:
            x = layer(x, keys, memory)
        return x


class Cell(nn.Module):
    """Language into another modality and back. The decoder's query is what it is to write."""

    def __init__(self, other, c):
        super().__init__()
        inner = c.inner[other]
        self.encode1 = Stack(c, inner, c.encoder_layers)
        self.decode1 = Stack(c, inner, c.decoder_layers, decoder=True)
        self.encode2 = Stack(c, inner, c.encoder_layers)
        self.decode2 = Stack(c, inner, c.decoder_layers, decoder=True)
        self.there = nn.Linear(c.width, c.dims[other])          # "forward", were the name free
        self.back = nn.Linear(c.width, c.dims["language"])

    def forward(self, language, other, valid, translate=True):
        keys = valid[:, None, None]
        e1 = self.encode1(language, keys)
        d1 = self.decode1(other, keys, e1)
        e2 = self.encode2(d1, keys)
        out = dict(encoded1=e1, decoded1=d1, encoded2=e2)
        if translate:       # an answer needs none of it
            out["decoded2"] = d2 = self.decode2(language, keys, e2)
            out |= dict(translated=self.there(d1), returned=self.back(d2))
        return {k: v * valid[..., None] for k, v in out.items()}


class TransModality(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.encoder = nn.ModuleDict({m: Encoder(c.dims[m], c) for m in MODALITIES})
        self.cell = nn.ModuleDict({n: Cell(n, c) for n in OTHERS})
        self.head = nn.Linear(7 * c.width, c.outputs)

    def forward(self, features, valid, translate=True):
        """features {m: [B, T, d_m]}, valid [B, T]."""
        f = {m: self.encoder[m](features[m], valid) for m in MODALITIES}
        cell = {n: self.cell[n](f["language"], f[n], valid, translate) for n in OTHERS}
        states = [cell[n][k] for n in OTHERS for k in ("encoded1", "encoded2")]
        states = torch.cat([*states, *(f[m] for m in MODALITIES)], -1)          # [B, T, 7 width], zero beyond lengths
        pooled = states.sum(1) / valid.sum(1, keepdim=True)
        y = self.head(pooled)
        out = dict(encoded=f, cell=cell, pooled=pooled)
        if self.c.task == "sentiment":
            return out | dict(answer=y[:, 0] + self.c.neutral)                  # [B]
        logits = y.reshape(len(y), self.c.classes, 2)                           # (no, yes) for each emotion
        return out | dict(logits=logits, answer=logits.softmax(-1)[..., 1])     # [B, C, 2], [B, C]


def losses(c, out, complete, has, valid, target):
    """The unweighted terms and their weighted total. `complete` {m: [B, T, d_m]} and `has` {m: [B, T]} are
    the data; what they lack is not translated into. Target: scores [B], or flags [B, C] of 0 and 1."""
    def error(made, m):
        which = (valid & has[m].any(1, keepdim=True))[..., None]
        each = (made - complete[m]).abs() * which
        return each.sum() / (which.sum() * each.shape[-1]).clamp(min=1)

    if c.task == "sentiment":
        task = (out["answer"] - target).abs().mean()
    else:
        task = F.cross_entropy(out["logits"].reshape(-1, 2), target.long().reshape(-1))
    cell = out["cell"]
    translate = sum(error(cell[n]["translated"], n) + error(cell[n]["returned"], "language") for n in OTHERS)
    return dict(task=task, translate=translate, total=task + c.translate_weight * translate)


def optimizer(net):
    return torch.optim.Adam(net.parameters(), lr=net.c.rate)


def rate_factor(step, warm_up):
    """Steps from 1."""
    return min(1.0, step / warm_up)


def full(task, dims, steps):
    """Of any number of steps; short scores are MOSEI's."""
    return Config(dims=dims, task=task, cell_dropout=0.2 if task == "sentiment" and steps < 50 else 0.3)


def official_depth(c):
    c.encoder_layers, c.decoder_layers, c.cell_dropout = 10, 5, 0.5
    return c


def small(task="sentiment", **kwargs):
    return Config(**dict(dims=dict(language=6, audio=4, vision=5), task=task, gru=3, width=6, heads=2,
                         inner=dict(vision=5, audio=4), encoder_layers=2, decoder_layers=1, input_dropout=0.0,
                         dropout=0.0, cell_dropout=0.0) | kwargs)


def check():
    torch.manual_seed(1)
    valid = torch.arange(9) < torch.tensor([[9], [1], [4]])
    for task in ("sentiment", "emotion"):
        c = small(task, decoder_layers=2)
        net = TransModality(c)
        features = {m: torch.randn(3, 9, d) for m, d in c.dims.items()}         # what padding holds does not matter
        out = net(features, valid)
        alone = net({m: x[2:, :4] for m, x in features.items()}, valid[2:, :4], translate=False)
        assert torch.allclose(alone["answer"], out["answer"][2:], atol=1e-6)

        other = net(features | dict(vision=torch.randn(3, 9, 5)), valid)["cell"]["vision"]
        assert torch.equal(other["encoded1"], out["cell"]["vision"]["encoded1"])
        assert (other["encoded2"] != out["cell"]["vision"]["encoded2"]).any()

        # Nothing to translate into.
        nothing = dict.fromkeys(MODALITIES, valid & False)
        target = torch.tensor([1.0, -2.0, 0.0]) if task == "sentiment" else torch.eye(3, c.classes)
        assert losses(c, out, features, nothing, valid, target)["translate"] == 0

    p = positions(torch.zeros(1, 3, 6, dtype=torch.float64))
    assert torch.equal(p[0], torch.tensor([0.0, 1, 0, 1, 0, 1], dtype=torch.float64))
    assert abs(p[2, 3] - math.cos(2 / 10000 ** (2 / 6))) < 1e-12
    assert rate_factor(1, 500) == 0.002 and rate_factor(500, 500) == rate_factor(900, 500) == 1

    dims = dict(language=300, audio=74, vision=1024)
    count = lambda c: sum(p.numel() for p in TransModality(c).parameters())
    light, deep = count(full("sentiment", dims, 50)), count(official_depth(full("sentiment", dims, 50)))
    assert (round(light / 1e6, 1), round(deep / 1e6, 1)) == (6.6, 9.7), (light, deep)
    print(f"TransModality: as it should be; {light} and at official depth {deep} parameters")


if __name__ == "__main__":
    check()
