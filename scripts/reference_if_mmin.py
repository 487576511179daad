"""IF-MMIN in plain torch.nn: slow, short, and written apart from the Rust code.

Zuo, Liu, Zhao, Gao, Li: Exploiting Modality-Invariant Feature for Robust Multimodal Emotion Recognition
with Missing Modalities, ICASSP 2023; official code github.com/ZhuoYulang/IF-MMIN (MIT), built on
github.com/AIM3-RUC/MMIN. Ours, not theirs: pooling that no padding enters, a square root that has a
gradient at 0, frames missing one by one, and the sentiment and multi-label emotion heads.

Run as a script it checks itself. `golden.py` turns it into tests/golden/if_mmin_*.safetensors.
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

ORDER = ("audio", "language", "vision")     # of every concatenation


@dataclass
class Config:
    dims: dict                  # features per modality
    task: str                   # sentiment | emotion
    embedding: int = 128        # E: of the embeddings, the invariant features and the classifiers' layers
    filters: int = 128          # per height of the text CNN
    classes: int = 4            # emotions
    imagine_weight: float = 1.0
    invariant_weight: float = 100.0
    cmd_weight: float = 1.0

    @property
    def outputs(self):
        return 1 if self.task == "sentiment" else 2 * self.classes


def max_over(x, valid):
    """Max of [B, T, d] over the valid steps. The official code pools over padding too, whose amount
    depends on a sample's batch mates."""
    return x.masked_fill(~valid[..., None], float("-inf")).amax(1)


class Lstm(nn.Module):
    """`networks/lstm.py`, embd_method max."""

    def __init__(self, d_in, c):
        super().__init__()
        self.lstm = nn.LSTM(d_in, c.embedding, batch_first=True)

    def forward(self, x, valid):
        return max_over(self.lstm(x)[0], valid)


class TextCnn(nn.Module):
    """`networks/textcnn.py`. A window belongs to the step it starts at, over a sequence continued with
    zeros, so that each valid step has one whatever the padding (which is zero as well)."""

    HEIGHTS = (3, 4, 5)

    def __init__(self, d_in, c):
        super().__init__()
        for k in self.HEIGHTS:
            setattr(self, f"conv{k}", nn.Conv1d(d_in, c.filters, k))
        self.linear = nn.Linear(len(self.HEIGHTS) * c.filters, c.embedding)

    def forward(self, x, valid):
        pooled = []
        for k in self.HEIGHTS:
            windows = getattr(self, f"conv{k}")(F.pad(x.transpose(1, 2), (0, k - 1))).relu()    # [B, filters, T]
            pooled.append(max_over(windows.transpose(1, 2), valid))
        return self.linear(torch.cat(pooled, -1)).relu()        # dropout comes before this Linear


class Layers(nn.Module):
    """Linear layers with an activation between them, and after the last one if `after`."""

    def __init__(self, widths, activation, after=False):
        super().__init__()
        self.n, self.activation, self.after = len(widths) - 1, activation, after
        for i in range(self.n):
            setattr(self, f"linear{i + 1}", nn.Linear(widths[i], widths[i + 1]))

    def forward(self, x):
        for i in range(1, self.n + 1):
            x = getattr(self, f"linear{i}")(x)
            if i < self.n or self.after:
                x = self.activation(x)
        return x


leaky = nn.LeakyReLU(0.01)


class Encoders(nn.Module):
    """What both stages have: an encoder for each modality and one that all share (`networks/shared.py`)."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        self.audio = Lstm(c.dims["audio"], c)
        self.language = TextCnn(c.dims["language"], c)
        self.vision = Lstm(c.dims["vision"], c)
        self.invariant = Layers([c.embedding] * 3, leaky, after=True)

    def embed(self, features, valid):
        """e: {m: [B, E]}."""
        return {m: getattr(self, m)(features[m], valid) for m in ORDER}

    def share(self, embedded):
        """I(e): {m: [B, E]}."""
        return {m: self.invariant(e) for m, e in embedded.items()}

    def answer(self, y):
        """The classifier's outputs as what the task asks for."""
        if self.c.task == "sentiment":
            return dict(answer=y[:, 0])                                         # [B]
        logits = y.reshape(len(y), self.c.classes, 2)                           # (no, yes) for each emotion
        return dict(logits=logits, answer=logits.softmax(-1)[..., 1])           # [B, C, 2], [B, C]


def join(parts):
    return torch.cat([parts[m] for m in ORDER], -1)


class Stage1(Encoders):
    """Specific and invariant features of complete data; dropout after each hidden layer of the classifier."""

    def __init__(self, c):
        super().__init__(c)
        e = c.embedding
        self.classifier = Layers([6 * e, e, e, c.outputs], torch.relu)

    def forward(self, features, valid):
        embedded = self.embed(features, valid)
        shared = self.share(embedded)
        e, u = join(embedded), join(shared)
        return dict(embedding=embedded, invariant=shared, e=e, u=u, **self.answer(self.classifier(torch.cat([e, u], -1))))


class AutoEncoder(nn.Module):
    def __init__(self, e):
        super().__init__()
        self.encoder = Layers([3 * e, 2 * e, e, e // 2], leaky)
        self.decoder = Layers([e // 2, e, 2 * e, 3 * e], torch.relu)


class Stage2(Encoders):
    """The cascade imagines what is missing; the classifier reads the bottlenecks."""

    BLOCKS = 5

    def __init__(self, c):
        super().__init__(c)
        e = c.embedding
        self.cascade = nn.ModuleDict({str(b): AutoEncoder(e) for b in range(1, self.BLOCKS + 1)})
        self.imagined = Layers([3 * e] * 3, torch.relu)
        self.classifier = Layers([self.BLOCKS * (e // 2), e, e, c.outputs], torch.relu)

    def forward(self, features, valid):
        embedded = self.embed(features, valid)
        shared = self.share(embedded)
        e, u = join(embedded), join(shared)
        x, z = e, {}
        for b, block in self.cascade.items():
            z[b] = block.encoder(x + u)                         # not a running sum, as MMIN has it
            x = block.decoder(z[b])
        y = self.classifier(torch.cat(list(z.values()), -1))
        return dict(embedding=embedded, invariant=shared, e=e, u=u, z=z, cascade=x, imagined=self.imagined(x),
                    **self.answer(y))


def task_loss(c, out, target):
    """Mean absolute error of scores [B]; cross-entropy of each emotion's pair, flags [B, C] of 0 and 1."""
    if c.task == "sentiment":
        return (out["answer"] - target).abs().mean()
    return F.cross_entropy(out["logits"].reshape(-1, 2), target.long().reshape(-1))


def cmd(a, b, moments=5):
    """Central moment discrepancy of two batches [B, d] (Zellinger et al., ICLR 2017), unscaled."""
    def norm(x):
        return (x.square().sum() + 1e-8).sqrt()
    mean_a, mean_b = a.mean(0), b.mean(0)
    gap = norm(mean_a - mean_b)
    for k in range(2, moments + 1):
        gap = gap + norm(((a - mean_a) ** k).mean(0) - ((b - mean_b) ** k).mean(0))
    return gap


def losses1(c, out, target):
    i = out["invariant"]
    pairs = (("language", "vision"), ("language", "audio"), ("audio", "vision"))
    terms = dict(task=task_loss(c, out, target), cmd=sum(cmd(i[m], i[n]) for m, n in pairs) / 3)
    terms["total"] = terms["task"] + c.cmd_weight * terms["cmd"]
    return terms


def teacher_targets(teacher, complete, seen, valid):
    """(E, U) by the frozen first stage: embeddings of what the student does not see (of zeros, where that
    is nothing), and the invariant features of complete data. `complete` {m: [B, T, d]}, `seen` {m: [B, T]}."""
    with torch.no_grad():
        lacking = {m: complete[m] * (valid & ~seen[m])[..., None] for m in ORDER}
        return join(teacher.embed(lacking, valid)), join(teacher.share(teacher.embed(complete, valid)))


def losses2(c, out, target, imagine, invariant):
    """The unweighted terms and their weighted total."""
    terms = dict(task=task_loss(c, out, target), imagined=F.mse_loss(out["imagined"], imagine),
                 invariant=F.mse_loss(out["u"], invariant))
    terms["total"] = terms["task"] + c.imagine_weight * terms["imagined"] + c.invariant_weight * terms["invariant"]
    return terms


def subnetworks(net):
    """What is clipped by its own norm: {name: parameters}. The layers after the cascade are part of it."""
    parts = {name: list(getattr(net, name).parameters()) for name in (*ORDER, "invariant", "classifier")}
    if isinstance(net, Stage2):
        parts["cascade"] = [*net.cascade.parameters(), *net.imagined.parameters()]
    return parts


def clip(net, bound):
    """Norms before clipping, by sub-network."""
    return {name: nn.utils.clip_grad_norm_(p, bound) for name, p in subnetworks(net).items()}


CLIP = {1: 0.5, 2: 1.0}
BETAS = {1: (0.9, 0.999), 2: (0.5, 0.999)}


def optimizer(net, stage, rate):
    return torch.optim.Adam(net.parameters(), lr=rate, betas=BETAS[stage])


def rate_factor(epoch, constant, decay):
    """Epochs from 0: constant, then linear."""
    return 1 - max(0, epoch + 1 - constant) / (decay + 1)


def small(task="sentiment", **kwargs):
    return Config(dims=dict(language=6, audio=3, vision=5), task=task, embedding=4, filters=3, **kwargs)


def check():
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0]])
    assert abs(cmd(a, b) - 2) < 1e-3
    same = torch.randn(4, 3, requires_grad=True)
    cmd(same, same.detach().clone()).backward()
    assert same.grad.isfinite().all()
    assert rate_factor(19, 20, 20) == 1 and abs(rate_factor(39, 20, 20) - 1 / 21) < 1e-12

    for task in ("sentiment", "emotion"):
        torch.manual_seed(1)
        c = small(task)
        teacher, net = Stage1(c).eval().requires_grad_(False), Stage2(c)
        before = {k: v.clone() for k, v in teacher.state_dict().items()}
        net.load_state_dict({k: v for k, v in before.items() if not k.startswith("classifier.")}, strict=False)
        valid = torch.arange(9) < torch.tensor([[9], [1], [4]])
        complete = {m: torch.randn(3, 9, d) * valid[..., None] for m, d in c.dims.items()}
        seen = {m: valid.clone() for m in ORDER}
        seen["language"][0] = seen["vision"][0] = False         # audio alone
        target = torch.tensor([1.0, -2.0, 0.0]) if task == "sentiment" else torch.eye(3, c.classes)
        imagine, invariant = teacher_targets(teacher, complete, seen, valid)
        nothing = teacher.embed({m: torch.zeros_like(x) for m, x in complete.items()}, valid)
        full = teacher.embed(complete, valid)
        for i, m in enumerate(ORDER):
            block = imagine[:, i * c.embedding:(i + 1) * c.embedding]
            assert torch.allclose(block[0], (nothing if m == "audio" else full)[m][0], atol=1e-6)
            assert torch.allclose(block[1:], nothing[m][1:], atol=1e-6)

        adam = optimizer(net, 2, 1e-3)
        features = {m: x * seen[m][..., None] for m, x in complete.items()}
        out = net(features, valid)
        alone = net({m: x[2:, :4] for m, x in features.items()}, valid[2:, :4])     # shorter than a window
        assert torch.allclose(alone["answer"], out["answer"][2:], atol=1e-6)
        losses2(c, out, target, imagine, invariant)["total"].backward()
        clip(net, CLIP[2])
        assert all(torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in ps])) < CLIP[2] + 1e-4
                   for ps in subnetworks(net).values())
        adam.step()
        assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
        assert sum(map(len, subnetworks(net).values())) == len(list(net.parameters()))

    def count(stage):
        c = Config(dims=dict(language=300, audio=74, vision=1024), task="sentiment")
        return sum(p.numel() for p in stage(c).parameters())
    first, second = count(Stage1), count(Stage2)
    assert (round(first / 1e6, 2), round(second / 1e6, 2)) == (1.35, 2.99), (first, second)
    print(f"IF-MMIN: as it should be; {first} and {second} parameters")


if __name__ == "__main__":
    check()
