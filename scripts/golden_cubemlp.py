"""The golden cases of CubeMLP, from reference_cubemlp.py; golden.py writes them."""

from dataclasses import asdict

import reference_cubemlp as cubemlp
import torch
from golden_baselines import flat, network
from golden_shared import given, held, two_steps

CASES = {       # name: (seed, task, what differs from the small configuration)
    "cubemlp_sentiment": (506, "sentiment", dict(range=(1, 5))),
    "cubemlp_emotion": (504, "emotion", dict(time_pooling="cat", blocks=((7, 3, 5), (5, 2, 4), (3, 3, 2)))),
    "cubemlp_linear_text": (526, "sentiment", dict(text_encoder="linear")),
}


def build(name, dtype):
    seed, task, other = CASES[name]
    c = cubemlp.small(task, **other)
    data, complete, _, features, _, valid, target = given(seed, c, dtype)
    torch.manual_seed(seed)
    net = network(cubemlp.CubeMlp(c), seed, dtype, 0.2)
    data |= flat("param", net.state_dict())
    with torch.no_grad():
        data["eval.answer"] = net(features, valid)["answer"]

    def forward():
        out = net(complete, valid)
        return out, cubemlp.losses(c, out, target)

    data |= two_steps(net, cubemlp.optimizer(net), forward, cubemlp.clip)
    over = torch.cat([v.flatten() for k, v in data.items() if k.startswith("grad.")]).abs() > c.clip
    assert over.any() and not over.all(), f"{name}: {over.sum()} values to clip"

    case = dict(name=name, method="cubemlp", task=task, model=asdict(c), neutral=c.neutral, weights=dict(task=1.0),
                clip=dict(kind="value", bound=c.clip),
                optimiser=dict(name="adam", lr=c.rate, betas=(0.9, 0.999), weight_decay=0.0),
                notes=["out, loss, grad: the complete view; eval.answer: the input view; every input has `steps` steps",
                       "out.encoded: after norm and ReLU, zero beyond a sample's length; with linear text that Linear alone, zeroed too",
                       "blocks: (time, modality, channel) sizes, hidden and out alike; out.block.<i>.<axis>: the cube [B, time, modality, channel]",
                       "out.flat: the head's input, ordered (time if concatenated, modality, channel)",
                       "score: out.answer is the head's output + neutral; emotion: out.logits are pairs (no, yes), out.answer the probabilities",
                       "grad.* before clipping by value; step: after clipping and one step; step2: the same batch again from step.*"])
    return data, case


def cases():
    cubemlp.check()
    yield from held(build, CASES)
