"""CubeMLP in plain torch.nn: short, and written apart from the Rust code.

Sun, Wang, Liu, Chen, Lin: CubeMLP: An MLP-based Model for Multimodal Sentiment Analysis and Depression
Estimation, ACM MM 2022; official code github.com/kiva12138/CubeMLP. Ours, not theirs: a recurrent encoder
(or a plain Linear) where they have BERT for text, frames as they are (no all-zero frame is filled), scores
centred on the range's middle, and the emotion task.

Run as a script it checks itself. `golden.py` turns it into tests/golden/cubemlp_*.safetensors.
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

MODALITIES = ("language", "audio", "vision")    # also the cube's order
AXES = ("time", "modality", "channel")
EPS = 1e-6                                      # of every layer norm
ONE_LINEAR = 128                                # up to this flat size the head is one Linear


@dataclass
class Config:
    dims: dict                      # features per modality
    task: str                       # sentiment | emotion
    steps: int = 50                 # T, which the time axis is built for
    width: int = 128                # of the encoders: the first channel axis
    blocks: tuple = ((50, 3, 128), (10, 3, 32))     # (time, modality, channel) sizes, hidden and out alike
    time_pooling: str = "mean"      # mean | cat
    text_encoder: str = "gru"       # gru | linear
    mlp_dropout: float = 0.1
    dropout: float = 0.1            # after the encoders and in the head
    range: tuple = (-3, 3)          # of the scores
    classes: int = 4                # emotions
    rate: float = 1e-3
    clip: float = 1.0               # of each gradient's value

    @property
    def outputs(self):
        return 1 if self.task == "sentiment" else 2 * self.classes

    @property
    def neutral(self):
        return (self.range[0] + self.range[1]) / 2


class GruEncoder(nn.Module):
    """Two layers in both directions, the last one's directions added; zero beyond a sample's length."""

    def __init__(self, d_in, c):
        super().__init__()
        self.gru = nn.GRU(d_in, c.width, num_layers=2, bidirectional=True, batch_first=True)
        self.norm = nn.LayerNorm(c.width, eps=EPS)
        for name, p in self.gru.named_parameters():
            if "weight_hh" in name:
                nn.init.orthogonal_(p)

    def forward(self, x, valid):
        packed = pack_padded_sequence(x, valid.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=x.shape[1])
        ahead, back = states.chunk(2, -1)
        return self.norm(ahead + back).relu() * valid[..., None]


class LinearEncoder(nn.Module):
    def __init__(self, d_in, c):
        super().__init__()
        self.linear = nn.Linear(d_in, c.width, bias=False)

    def forward(self, x, valid):
        return self.linear(x) * valid[..., None]


class Mixer(nn.Module):
    """An MLP along one axis of the cube, beside a linear residual: drop(W2 gelu(W1 LN(x))) + R x."""

    def __init__(self, axis, d_in, d_out, dropout):
        super().__init__()
        self.axis = axis
        self.norm = nn.LayerNorm(d_in, eps=EPS)
        self.linear1 = nn.Linear(d_in, d_out)
        self.linear2 = nn.Linear(d_out, d_out)
        self.residual = nn.Linear(d_in, d_out, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, cube):
        x = cube.transpose(self.axis, -1)
        x = self.dropout(self.linear2(F.gelu(self.linear1(self.norm(x))))) + self.residual(x)
        return x.transpose(self.axis, -1)


class Mixers(nn.Module):
    """Several blocks; each mixes time, then modalities, then channels. No mask: padding takes part."""

    def __init__(self, sizes, blocks, dropout):
        super().__init__()
        for i, out in enumerate(blocks):
            axes = {a: Mixer(n + 1, sizes[n], out[n], dropout) for n, a in enumerate(AXES)}
            self.add_module(str(i), nn.ModuleDict(axes))
            sizes = out

    def forward(self, cube):
        """The last cube, and what each mixer made: {block: {axis: [B, t, m, c]}}."""
        made = {}
        for i, block in self.named_children():
            made[i] = {}
            for axis, mixer in block.items():
                made[i][axis] = cube = mixer(cube)
        return cube, made


class WideHead(nn.Module):
    def __init__(self, flat, c):
        super().__init__()
        self.linear1 = nn.Linear(flat, ONE_LINEAR)
        self.linear2 = nn.Linear(ONE_LINEAR, c.outputs)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x):
        return self.linear2(self.dropout(self.linear1(x).relu()))


class CubeMlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        kind = {m: GruEncoder for m in MODALITIES}
        if c.text_encoder == "linear":
            kind["language"] = LinearEncoder
        self.encoder = nn.ModuleDict({m: kind[m](c.dims[m], c) for m in MODALITIES})
        self.dropout = nn.Dropout(c.dropout)
        self.block = Mixers((c.steps, len(MODALITIES), c.width), c.blocks, c.mlp_dropout)
        time, modality, channel = c.blocks[-1]
        flat = modality * channel * (time if c.time_pooling == "cat" else 1)
        self.head = nn.Linear(flat, c.outputs) if flat <= ONE_LINEAR else WideHead(flat, c)

    def forward(self, features, valid):
        """features {m: [B, T, d_m]}, valid [B, T], T up to `steps`."""
        encoded = {m: self.dropout(self.encoder[m](features[m], valid)) for m in MODALITIES}
        cube = torch.stack([encoded[m] for m in MODALITIES], 2)
        cube = F.pad(cube, (0, 0, 0, 0, 0, self.c.steps - cube.shape[1]))       # [B, steps, 3, width]
        mixed, block = self.block(cube)
        flat = (mixed.mean(1) if self.c.time_pooling == "mean" else mixed).flatten(1)
        y = self.head(flat)
        out = dict(encoded=encoded, block=block, flat=flat)
        if self.c.task == "sentiment":
            return out | dict(answer=y[:, 0] + self.c.neutral)                  # [B]
        logits = y.reshape(len(y), self.c.classes, 2)                           # (no, yes) for each emotion
        return out | dict(logits=logits, answer=logits.softmax(-1)[..., 1])     # [B, C, 2], [B, C]


def losses(c, out, target):
    """Mean absolute error of scores [B]; cross-entropy of each emotion's pair, flags [B, C] of 0 and 1."""
    if c.task == "sentiment":
        task = (out["answer"] - target).abs().mean()
    else:
        task = F.cross_entropy(out["logits"].reshape(-1, 2), target.long().reshape(-1))
    return dict(task=task, total=task)


def optimizer(net):
    return torch.optim.Adam(net.parameters(), lr=net.c.rate)


def clip(net):
    nn.utils.clip_grad_value_(net.parameters(), net.c.clip)


def schedule(adam, step):
    """A tenth of the rate after every `step` epochs."""
    return torch.optim.lr_scheduler.StepLR(adam, step, 0.1)


def full(task, dims, steps):
    """50 steps as the paper has for MOSI; with 20 the first block does not stretch time."""
    rate = 4e-3 if steps == 50 else 1e-3
    return Config(dims=dims, task=task, steps=steps, blocks=((steps, 3, 128), (10, 3, 32)), rate=rate)


def small(task="sentiment", **kwargs):
    return Config(**dict(dims=dict(language=6, audio=4, vision=5), task=task, steps=9, width=6,
                         blocks=((7, 3, 5), (4, 3, 4)), mlp_dropout=0.0, dropout=0.0, clip=0.1) | kwargs)


def check():
    count = lambda module: sum(p.numel() for p in module.parameters())
    dims = dict(language=300, audio=74, vision=1024)
    c = full("sentiment", dims, 50)
    net = CubeMlp(c)
    assert count(net.block) == 68_198, count(net.block)
    linear = CubeMlp(Config(dims=dims, task="sentiment", text_encoder="linear"))
    sizes = count(net), count(linear)
    assert tuple(round(n / 1e6, 2) for n in sizes) == (2.33, 1.74), sizes
    assert net.head.in_features == 96 and CubeMlp(full("emotion", dims, 20)).head.in_features == 96

    # Four blocks as for MOSEI, everything concatenated; and a head of two layers.
    long = CubeMlp(Config(dims=dims, task="sentiment", time_pooling="cat",
                          blocks=((50, 3, 128), (10, 3, 64), (10, 3, 32), (10, 3, 3))))
    assert long.head.in_features == 90
    wide = CubeMlp(small("emotion", blocks=((9, 3, 5),), time_pooling="cat"))
    assert wide.head.linear1.in_features == 135

    torch.manual_seed(1)
    for task in ("sentiment", "emotion"):
        c = small(task)
        net = CubeMlp(c).eval()
        valid = torch.arange(9) < torch.tensor([[9], [1], [4]])
        features = {m: torch.randn(3, 9, d) for m, d in c.dims.items()}         # what padding holds does not matter
        answer = net(features, valid)["answer"]
        alone = net({m: x[2:, :4] for m, x in features.items()}, valid[2:, :4])
        assert torch.allclose(alone["answer"], answer[2:], atol=1e-6)

    # Mixing time leaves channels and modalities apart.
    time = net.block.get_submodule("0")["time"]
    cube = torch.randn(2, 9, 3, 6)
    other = cube.clone()
    other[:, 4, 1, 2] += 1
    moved = (time(other) - time(cube)).abs().amax((0, 1)) > 0
    assert moved[1, 2] and moved.sum() == 1
    print(f"CubeMLP: as it should be; {sizes[0]} and with linear text {sizes[1]} parameters")


if __name__ == "__main__":
    check()
