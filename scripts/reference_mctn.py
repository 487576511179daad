"""MCTN in plain torch.nn: short, and written apart from the Rust code.

Pham, Liang, Manzini, Morency, Poczos: Found in Translation: Learning Robust Joint Representations by Cyclic
Translations Between Modalities, AAAI 2019; official code github.com/hainow/MCTN. Ours, not theirs: three
nets, one for each source, whose answers are averaged; errors of valid frames and true channels only; inputs
that lack frames and modalities; standard cells, a linear output and an attention that depends on the
decoder's state, unless `cell` is "official"; scores centred on the range's middle, and the emotion task.

Run as a script it checks itself. `golden.py` turns it into tests/golden/mctn_*.safetensors.
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

MODALITIES = ("language", "audio", "vision")
TARGETS = {     # source: (first target P, second target Q)
    "language": ("vision", "audio"),
    "audio": ("language", "vision"),
    "vision": ("language", "audio"),
}
SHARPNESS = 10  # of the nets' weights by their validation errors


@dataclass
class Config:
    dims: dict                  # features per modality
    task: str                   # sentiment | emotion
    hidden: int = 32
    cell: str = "standard"      # standard | official: of the decoders
    range: tuple = (-3, 3)      # of the scores
    classes: int = 4            # emotions
    translate_weight: float = 0.1
    cycle_weight: float = 0.1
    second_weight: float = 0.1
    decay_weight: float = 0.01
    rate: float = 1e-3

    @property
    def width(self):
        """D: of what an encoder reads and a decoder writes."""
        return max(self.dims.values())

    @property
    def outputs(self):
        return 1 if self.task == "sentiment" else 2 * self.classes

    @property
    def neutral(self):
        return (self.range[0] + self.range[1]) / 2


class BiLstm(nn.LSTM):
    """Both directions added, each inside a sample's own length; zero beyond it."""

    def __init__(self, d_in, hidden):
        super().__init__(d_in, hidden, bidirectional=True, batch_first=True)

    def forward(self, x, valid):
        packed = pack_padded_sequence(x, valid.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(super().forward(packed)[0], batch_first=True, total_length=x.shape[1])
        ahead, back = states.chunk(2, -1)
        return ahead + back


class OfficialCell(nn.LSTMCell):
    """`seq2seq/cells.py`: the input gate is the forget gate too (whose own weights are dead), gates are hard
    sigmoids, and the state that is kept is the tanh of the cell."""

    def forward(self, x, state):
        gates = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(state[0], self.weight_hh, self.bias_hh)
        i, _, g, o = gates.chunk(4, -1)
        i, o = ((0.2 * gate + 0.5).clamp(0, 1) for gate in (i, o))
        kept = (i * state[1] + i * g.tanh()).tanh()
        return o * kept, kept


class Attention(nn.Module):
    """w . tanh(U J_j + V h + b); the official score is linear, so that its state term cancels."""

    def __init__(self, c):
        super().__init__()
        self.official = c.cell == "official"
        inner = 1 if self.official else c.hidden
        self.key = nn.Linear(c.hidden, inner, bias=False)
        self.state = nn.Linear(c.hidden, inner)
        if not self.official:
            self.score = nn.Linear(c.hidden, 1, bias=False)

    def forward(self, keys, state):
        """[B, T] from the projected joint representation [B, T, inner] and the state [B, h]."""
        score = keys + self.state(state)[:, None]
        return (score if self.official else self.score(score.tanh())).squeeze(-1)


class Decoder(nn.Module):
    """As many steps as there are frames, from a zero state; nothing is fed back."""

    def __init__(self, c):
        super().__init__()
        self.official = c.cell == "official"
        self.attention = Attention(c)
        self.cell = (OfficialCell if self.official else nn.LSTMCell)(c.hidden, c.hidden)
        self.out = nn.Linear(c.hidden, c.width)

    def forward(self, joint, valid):
        """([B, T, D], attention weights [B, T of the decoder, T of the encoder])."""
        keys = self.attention.key(joint)
        hide = ~valid
        h = state = joint.new_zeros(len(joint), joint.shape[-1])
        hidden, weights = [], []
        for _ in range(joint.shape[1]):
            score = self.attention(keys, state if self.official else h)
            w = score.masked_fill(hide, float("-inf")).softmax(-1)
            h, state = self.cell(torch.bmm(w[:, None], joint)[:, 0], (h, state))
            hidden.append(h)
            weights.append(w)
        y = self.out(torch.stack(hidden, 1))
        return y.tanh() if self.official else y, torch.stack(weights, 1)


class Regressor(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.lstm = nn.LSTM(c.hidden, c.hidden, batch_first=True)
        self.score = nn.Linear(c.hidden, 1)
        self.out = nn.Linear(c.hidden, c.outputs)

    def forward(self, joint, valid):
        """The outputs [B, K], and the states [B, h] pooled over valid steps."""
        states, _ = self.lstm(joint)
        score = self.score(states).squeeze(-1).tanh()
        weights = score.masked_fill(~valid, float("-inf")).softmax(-1)
        pooled = torch.bmm(weights[:, None], states)[:, 0]
        return self.out(pooled), pooled


class Net(nn.Module):
    """The translations of one source."""

    def __init__(self, source, c):
        super().__init__()
        self.c, self.source = c, source
        self.encode1, self.decode1 = BiLstm(c.width, c.hidden), Decoder(c)
        self.encode2, self.decode2 = BiLstm(c.hidden, c.hidden), Decoder(c)
        self.regress = Regressor(c)

    def read(self, x, valid):
        return self.encode1(F.pad(x, (0, self.c.width - x.shape[-1])), valid)

    def write(self, decoder, joint, valid, modality):
        """The channels and valid steps of `modality`; the rest is nothing."""
        return decoder(joint, valid)[0][..., :self.c.dims[modality]] * valid[..., None]

    def forward(self, x, valid, translate=True):
        """x [B, T, d of the source]. Answers need no translation."""
        first, second = TARGETS[self.source]
        joint = self.read(x, valid)
        joint2 = self.encode2(joint, valid)
        y, pooled = self.regress(joint2, valid)
        out = dict(joint=joint, joint2=joint2, pooled=pooled)
        if translate:
            out["translated"] = self.write(self.decode1, joint, valid, first)
            out["cycled"] = self.write(self.decode1, self.read(out["translated"], valid), valid, self.source)
            out["second"] = self.write(self.decode2, joint2, valid, second)
        if self.c.task == "sentiment":
            return out | dict(answer=y[:, 0] + self.c.neutral)                  # [B]
        logits = y.reshape(len(y), self.c.classes, 2)                           # (no, yes) for each emotion
        return out | dict(logits=logits, answer=logits.softmax(-1)[..., 1])     # [B, C, 2], [B, C]


class Mctn(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        for s in MODALITIES:
            setattr(self, s, Net(s, c))
        self.register_buffer("quality", torch.zeros(len(MODALITIES)))           # each net's validation error

    def forward(self, features, valid, translate=True):
        """{source: what its net makes}; features {m: [B, T, d_m]}, valid [B, T]."""
        return {s: getattr(self, s)(features[s], valid, translate) for s in MODALITIES}

    def predict(self, features, seen, valid):
        """The answers of the nets that see a frame ({m: [B, T]}), averaged; of all, where none does."""
        out = self(features, valid, translate=False)
        answers = torch.stack([out[s]["answer"] for s in MODALITIES], 1)        # [B, 3] or [B, 3, C]
        has = torch.stack([seen[s].any(1) for s in MODALITIES], 1)
        has = has | ~has.any(1, keepdim=True)
        weights = (-SHARPNESS * self.quality).masked_fill(~has, float("-inf")).softmax(-1)
        return (weights if answers.dim() == 2 else weights[..., None]).mul(answers).sum(1)


def mean(each, mask):
    """Of the elements under a mask [B, ...] that is broadcast over the last axes; 0 where there is none."""
    mask = mask.reshape(mask.shape + (1,) * (each.dim() - mask.dim())).expand_as(each)
    return (each * mask).sum() / mask.sum().clamp(min=1)


def losses(net, out, complete, has, seen, valid, target):
    """The unweighted terms, each summed over the nets, and their weighted total. `complete` {m: [B, T, d_m]}
    and `has` {m: [B, T]} are the data, `seen` {m: [B, T]} what the view shows of them.

    A net learns from samples that show a frame of its source, and a translation from those that have its
    target. Target: scores [B], or flags [B, C] of 0 and 1.
    """
    c = net.c
    terms = dict.fromkeys(("task", "translate", "cycle", "second", "decay"), 0.0)
    for s in MODALITIES:
        own = seen[s].any(1)
        for name, made, m in zip(("translate", "second", "cycle"), ("translated", "second", "cycled"), (*TARGETS[s], s)):
            which = valid & (own & has[m].any(1))[:, None]
            terms[name] = terms[name] + mean((out[s][made] - complete[m]).square(), which)
        if c.task == "sentiment":
            each = (out[s]["answer"] - target).abs()
        else:
            each = F.cross_entropy(out[s]["logits"].transpose(1, 2), target.long(), reduction="none")
        terms["task"] = terms["task"] + mean(each, own)
        terms["decay"] = terms["decay"] + getattr(net, s).regress.out.weight.square().sum()
    terms["total"] = (terms["task"] + c.translate_weight * terms["translate"] + c.cycle_weight * terms["cycle"]
                      + c.second_weight * terms["second"] + c.decay_weight * terms["decay"])
    return terms


def optimizer(net):
    return torch.optim.Adam(net.parameters(), lr=net.c.rate)


def full(task, dims, steps):
    """Of any number of steps."""
    return Config(dims=dims, task=task)


def small(task="sentiment", **kwargs):
    return Config(**dict(dims=dict(language=6, audio=4, vision=5), task=task, hidden=4) | kwargs)


def check():
    torch.manual_seed(1)
    valid = torch.arange(9) < torch.tensor([[9], [1], [4]])
    for task in ("sentiment", "emotion"):
        for cell in ("standard", "official"):
            c = small(task, cell=cell)
            net = Mctn(c)
            net.quality.copy_(torch.tensor([0.9, 1.0, 1.1]))
            features = {m: torch.randn(3, 9, d) * valid[..., None] for m, d in c.dims.items()}
            has = dict.fromkeys(MODALITIES, valid)
            out = net(features, valid)
            answer = net.predict(features, has, valid)
            alone = net.predict(*({m: x[2:, :4] for m, x in view.items()} for view in (features, has)), valid[2:, :4])
            assert torch.allclose(alone, answer[2:], atol=1e-6)

            # The decoder looks where it likes; the official one at the same frames at every step.
            attention = net.language.decode1(out["language"]["joint"], valid)[1]
            assert torch.allclose(attention.sum(-1), torch.ones(3, 9)) and (attention[1, :, 1:] == 0).all()
            assert torch.allclose(attention, attention[:, :1].expand_as(attention), atol=1e-6) == (cell == "official")

            # By language alone the others are not read.
            only = {m: valid & (m == "language") for m in MODALITIES}
            other = {m: x if m == "language" else torch.randn_like(x) for m, x in features.items()}
            assert torch.equal(net.predict(other, only, valid), out["language"]["answer"])

            # Nothing to learn from.
            nothing = dict.fromkeys(MODALITIES, valid & False)
            target = torch.tensor([1.0, -2.0, 0.0]) if task == "sentiment" else torch.eye(3, c.classes)
            terms = losses(net, out, features, has, nothing, valid, target)
            assert all(terms[k] == 0 for k in ("task", "translate", "cycle", "second")) and terms["decay"] > 0

            # The cycle goes through the same decoder.
            with torch.no_grad():
                net.language.decode1.cell.bias_ih[0] += 1
            moved = net(features, valid)["language"]
            assert all((moved[k] != out["language"][k]).any() for k in ("translated", "cycled"))
            assert torch.equal(moved["second"], out["language"]["second"])

    count = lambda module: sum(p.numel() for p in module.parameters())
    net = Mctn(full("sentiment", dict(language=300, audio=74, vision=1024), 50))
    each, = {count(getattr(net, s)) for s in MODALITIES}
    assert round(each / 1e6, 2) == 0.38, each
    print(f"MCTN: as it should be; {count(net)} parameters, {each} for each source")


if __name__ == "__main__":
    check()
