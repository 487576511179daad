"""Self-MM in plain torch.nn: slow, short, and written apart from the Rust code.

Yu, Xu, Yuan, Wu: Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning for
Multimodal Sentiment Analysis, AAAI 2021; official code github.com/thuiar/Self-MM (MIT), also in
github.com/thuiar/MMSA. Where paper and code differ this follows the code (distances are plain norms), but
for the sign of a label: zero belongs to neither class (paper and MMSA). Ours, not theirs: an LSTM where
they have BERT, labels centred on the range's middle, and the emotion task.

Run as a script it checks itself. `golden.py` turns it into tests/golden/self_mm_*.safetensors.
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

MODALITIES = ("language", "audio", "vision")
SUBJECTS = ("fused", *MODALITIES)   # what has a head, a label and a feature of its own


@dataclass
class Config:
    dims: dict              # features per modality
    hidden: dict            # LSTM width per modality
    encoded: dict           # width of an utterance vector per modality
    head: dict              # hidden width of each head ("post" dimension), which is F*'s width
    task: str               # sentiment | emotion
    range: tuple = (-3, 3)  # of the scores
    classes: int = 4        # emotions

    @property
    def outputs(self):
        """Scalars per head: the score, or one logit per emotion."""
        return 1 if self.task == "sentiment" else self.classes

    @property
    def neutral(self):
        return (self.range[0] + self.range[1]) / 2

    @property
    def bound(self):
        """H: labels lie in [-H, H] once centred. Emotions are labelled -1 and 1."""
        return (self.range[1] - self.range[0]) / 2 if self.task == "sentiment" else 1.0

    def centred(self, target):
        """Labels [B] or [B, C] as the method sees them."""
        return target - self.neutral if self.task == "sentiment" else 2 * target - 1


class Encoder(nn.Module):
    """`AuViSubNet` of models/subNets/FeatureNets.py: LSTM, the state after the last valid step, Linear."""

    def __init__(self, d_in, hidden, out):
        super().__init__()
        self.lstm = nn.LSTM(d_in, hidden, batch_first=True)
        self.out = nn.Linear(hidden, out)

    def forward(self, x, valid):
        states, _ = self.lstm(x)
        last = valid.sum(1) - 1
        return self.out(states[torch.arange(len(x)), last])     # dropout comes before this Linear


class Head(nn.Module):
    """`post_*_layer_{1,2,3}` of models/multiTask/SELF_MM.py: (prediction, the feature F*)."""

    def __init__(self, width, hidden, outputs):
        super().__init__()
        self.linear1 = nn.Linear(width, hidden)                 # dropout comes before this Linear
        self.linear2 = nn.Linear(hidden, hidden)
        self.linear3 = nn.Linear(hidden, outputs)

    def forward(self, z):
        feature = self.linear1(z).relu()
        return self.linear3(self.linear2(feature).relu()), feature


class SelfMm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        for m in MODALITIES:
            setattr(self, m, Encoder(c.dims[m], c.hidden[m], c.encoded[m]))
        width = {"fused": sum(c.encoded.values()), **c.encoded}
        self.head = nn.ModuleDict({s: Head(width[s], c.head[s], c.outputs) for s in SUBJECTS})

    def forward(self, features, valid):
        """features {m: [B, T, d_m]}, valid [B, T]."""
        encoded = {m: getattr(self, m)(features[m], valid) for m in MODALITIES}
        inputs = {"fused": torch.cat([encoded[m] for m in MODALITIES], -1), **encoded}
        prediction, feature = {}, {}
        for s in SUBJECTS:
            y, feature[s] = self.head[s](inputs[s])
            prediction[s] = y[:, 0] if self.c.task == "sentiment" else y        # [B] or [B, C], centred
        out = dict(encoded=encoded, feature=feature, prediction=prediction)
        fused = prediction["fused"]
        if self.c.task == "sentiment":
            out["answer"] = fused + self.c.neutral                              # [B]
        else:
            out["logits"] = torch.stack([torch.zeros_like(fused), fused], -1)   # [B, C, 2]: the pair (0, z)
            out["answer"] = out["logits"].softmax(-1)[..., 1]                   # [B, C]
        return out


def losses(c, out, labels):
    """`labels` {s: [B] or [B, C]}: the rows of the buffers. Official: `weighted_loss` of the trainer.

    Where nothing was generated yet a unimodal label equals the fused one and its weight is 0.
    """
    terms = {}
    for s in SUBJECTS:
        y, prediction = labels[s], out["prediction"][s]
        if c.task == "sentiment":
            each = (prediction - y).abs()
        else:
            each = F.binary_cross_entropy_with_logits(prediction, (y + 1) / 2, reduction="none")
        weight = 1.0 if s == "fused" else (y - labels["fused"]).abs().tanh()
        terms[s] = (weight * each).mean()
    terms["total"] = sum(terms.values())
    return terms


def shift(near_negative, near_positive):
    """delta: how much nearer the positive centre is, from the distances to both."""
    return (near_negative - near_positive) / (near_positive + 1e-8)


def generated_label(y, delta, delta_fused, bound):
    """A new unimodal label from the fused one; the clamp tames alpha where delta_fused is near 0."""
    alpha = delta / (delta_fused + 1e-8)
    return (0.5 * alpha * y + 0.5 * (y + delta - delta_fused)).clamp(-bound, bound)


def momentum(old, new, epoch):
    return (epoch - 1) / (epoch + 1) * old + 2 / (epoch + 1) * new


class Buffers:
    """What outlives a batch, for N training samples: labels {s: [N] or [N, C]}, features {s: [N, dim_s]},
    centres {(s, sign): [dim_s] or [C, dim_s]}."""

    def __init__(self, c, labels):
        """Before training: every label is the fused one, features and centres are zero."""
        self.c = c
        like = labels.new_zeros
        each = () if c.task == "sentiment" else (c.classes,)
        self.labels = {s: labels.clone() for s in SUBJECTS}
        self.features = {s: like(len(labels), c.head[s]) for s in SUBJECTS}
        self.centres = {(s, sign): like(*each, c.head[s]) for s in SUBJECTS for sign in ("positive", "negative")}

    def rows(self, index):
        return {s: self.labels[s][index] for s in SUBJECTS}

    def distances(self, feature, s, sign):
        """[B], or [B, C] to the centre of each emotion."""
        centre = self.centres[s, sign]
        if self.c.task == "emotion":
            feature = feature[:, None]
        return (feature - centre).norm(dim=-1)

    def update(self, index, feature, epoch):
        """After the backward pass of each batch, in epoch 1, 2, ...; `feature` {s: [B, dim_s]}."""
        feature = {s: f.detach() for s, f in feature.items()}
        if epoch >= 2:                                          # `update_labels`
            delta = {s: shift(self.distances(feature[s], s, "negative"), self.distances(feature[s], s, "positive"))
                     for s in SUBJECTS}
            for s in MODALITIES:
                new = generated_label(self.labels["fused"][index], delta[s], delta["fused"], self.c.bound)
                self.labels[s][index] = momentum(self.labels[s][index], new, epoch)
        for s in SUBJECTS:                                      # `update_features`
            self.features[s][index] = feature[s]
        self.recentre()

    def recentre(self):
        """`update_centers`: means over the whole buffer by the sign of a subject's own labels; a sign
        without samples keeps its centre."""
        for (s, sign), centre in self.centres.items():
            y = self.labels[s] if self.c.task == "emotion" else self.labels[s][:, None]
            rows = y > 0 if sign == "positive" else y < 0       # [N, C or 1]
            for e in range(rows.shape[1]):
                if rows[:, e].any():
                    mean = self.features[s][rows[:, e]].mean(0)
                    if self.c.task == "emotion":
                        centre[e] = mean
                    else:
                        centre.copy_(mean)


def optimizer(net, rates, decays):
    """Adam with the L2 penalty in the gradient, one group per encoder and one for the heads."""
    groups = [dict(params=list(getattr(net, m).parameters()), lr=rates[m], weight_decay=decays[m])
              for m in ("language", "audio", "vision", "head")]
    return torch.optim.Adam(groups)


def train_batch(net, buffers, batch, epoch):
    """One batch: the loss by the labels as they are, its gradient added to what is there, then the
    buffers. The optimizer steps after the last of the accumulated batches; gradients are summed."""
    out = net(batch["features"], batch["valid"])
    terms = losses(net.c, out, buffers.rows(batch["index"]))
    terms["total"].backward()
    buffers.update(batch["index"], out["feature"], epoch)
    return out, terms


def small(task="sentiment", **kwargs):
    return Config(dims=dict(language=6, audio=4, vision=5), hidden=dict(language=5, audio=3, vision=4),
                  encoded=dict(language=5, audio=3, vision=4), head=dict(fused=6, language=5, audio=3, vision=4),
                  task=task, **kwargs)


def check():
    t = lambda v: torch.tensor(float(v), dtype=torch.float64)
    near = lambda got, want: abs(float(got) - want) < 5e-5

    # A worked example.
    fused, own = shift(t(3), t(2)), shift(t(2.75), t(2.5))
    assert near(fused, 0.5) and near(own, 0.1)
    new = generated_label(t(1.2), own, fused, 3.0)
    assert near(new, 0.52)
    assert near(momentum(t(1.2), new, 2), 2.24 / 3) and near(momentum(t(1.2), new, 3), 0.86)
    assert near((momentum(t(1.2), new, 2) - 1.2).abs().tanh(), 0.4246)
    assert generated_label(t(1.2), own, t(0), 3.0) == 3.0 and generated_label(t(-1.2), own, t(0), 3.0) == -3.0

    for task in ("sentiment", "emotion"):
        torch.manual_seed(1)
        c = small(task)
        net = SelfMm(c)
        valid = torch.arange(9) < torch.tensor([[9], [1], [4]])
        features = {m: torch.randn(3, 9, d) * valid[..., None] for m, d in c.dims.items()}
        labels = torch.tensor([1.0, 2.0, 0.5]) if task == "sentiment" else torch.ones(3, c.classes)
        buffers = Buffers(c, labels)        # of one sign
        for epoch in (1, 2, 3):
            out, terms = train_batch(net, buffers, dict(features=features, valid=valid, index=torch.arange(3)), epoch)
            assert epoch > 1 or all(terms[m] == 0 for m in MODALITIES)
            assert all(v.isfinite().all() for d in (buffers.labels, buffers.features, buffers.centres) for v in d.values())
            assert all((v.abs() <= c.bound).all() for v in buffers.labels.values())
            assert (buffers.labels["fused"] == labels).all()
        assert (buffers.centres["fused", "negative"] == 0).all()
        alone = net({m: x[2:, :4] for m, x in features.items()}, valid[2:, :4])
        assert torch.allclose(alone["answer"], out["answer"][2:], atol=1e-6)

    # Sizes of the paper's networks, with our text encoder.
    def count(head, hidden):
        c = Config(dims=dict(language=300, audio=74, vision=1024), hidden=hidden, head=head, task="sentiment",
                   encoded=dict(language=128, audio=16, vision=32))
        return sum(p.numel() for p in SelfMm(c).parameters())
    mosi = count(dict(fused=128, language=64, audio=16, vision=32), dict(language=128, audio=32, vision=64))
    mosei = count(dict(fused=128, language=32, audio=16, vision=16), dict(language=128, audio=32, vision=32))
    assert (round(mosi / 1e6, 2), round(mosei / 1e6, 2)) == (0.59, 0.43), (mosi, mosei)
    print(f"Self-MM: as it should be; {mosi} and {mosei} parameters")


if __name__ == "__main__":
    check()
