"""Trains the torch.nn references at the recipes' sizes and says how long steps took.

The other half of `cargo bench -p cumdf-bench --bench models`, which starts it, one method a process, and has
it take turns with the Rust program. Reads a number of batches per line, answers with seconds; the first line
that it writes is JSON: the parameters, and the floating-point operations of a batch, forward and backward, as
torch counts them (matrix products and convolutions alone).

    .venv/bin/python scripts/step_times.py METHOD --batch 32 --steps 50 --dims 300,74,1024 --accumulate 4
"""

import argparse
import json
import resource
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

MODALITIES = ("language", "audio", "vision")


class Data:
    """A random batch of full length: a complete view, and one of which a third of the frames is hidden."""

    def __init__(self, batch, steps, dims):
        gen = torch.Generator().manual_seed(1)
        self.batch, self.steps, self.dims = batch, steps, dict(zip(MODALITIES, dims))
        self.complete = {m: torch.randn(batch, steps, d, generator=gen) for m, d in self.dims.items()}
        self.valid = torch.ones(batch, steps, dtype=torch.bool)
        self.seen = {m: torch.rand(batch, steps, generator=gen) > 1 / 3 for m in MODALITIES}
        self.shown = {m: x * self.seen[m][..., None] for m, x in self.complete.items()}
        self.score = torch.rand(batch, generator=gen) * 6 - 3


def self_mm(data):
    import reference_self_mm as r
    c = r.Config(dims=data.dims, hidden=dict(language=128, audio=32, vision=64),
                 encoded=dict(language=128, audio=16, vision=32),
                 head=dict(fused=128, language=64, audio=16, vision=32), task="sentiment")
    net = r.SelfMm(c)
    rates, decays = ({m: v for m in (*MODALITIES, "head")} for v in (1e-3, 1e-3))
    buffers = r.Buffers(c, c.centred(torch.rand(1284) * 6 - 3))
    index = torch.arange(data.batch)

    def loss():
        out = net(data.complete, data.valid)
        total = r.losses(c, out, buffers.rows(index))["total"]
        buffers.update(index, {s: f.detach() for s, f in out["feature"].items()}, 2)
        return total
    return net, r.optimizer(net, rates, decays), loss, lambda: None


def if_mmin(data):
    import reference_if_mmin as r
    c = r.Config(dims=data.dims, task="sentiment")
    teacher, net = r.Stage1(c).eval().requires_grad_(False), r.Stage2(c)

    def loss():
        wanted = r.teacher_targets(teacher, data.complete, data.seen, data.valid)
        return r.losses2(c, net(data.shown, data.valid), data.score, *wanted)["total"]
    return net, r.optimizer(net, 2, 1e-3), loss, lambda: r.clip(net, r.CLIP[2])


def cubemlp(data):
    import reference_cubemlp as r
    net = r.CubeMlp(r.full("sentiment", data.dims, data.steps))

    def loss():
        return r.losses(net.c, net(data.complete, data.valid), data.score)["total"]
    return net, r.optimizer(net), loss, lambda: r.clip(net)


def dmd(data):
    import reference_dmd as r
    net = r.Dmd(r.full("sentiment", data.dims, data.steps))

    def loss():
        return r.losses(net.c, net(data.complete, data.valid), data.score)["total"]
    return net, r.optimizer(net), loss, lambda: r.clip(net)


def mctn(data):
    import reference_mctn as r
    net = r.Mctn(r.full("sentiment", data.dims, data.steps))
    every = {m: data.valid for m in MODALITIES}

    def loss():
        out = net(data.shown, data.valid)
        return r.losses(net, out, data.complete, every, data.seen, data.valid, data.score)["total"]
    return net, r.optimizer(net), loss, lambda: None


def emt(data):
    import reference_emt as r
    net = r.Emt(r.full("sentiment", data.dims, data.steps))
    missing = {m: data.valid & ~s for m, s in data.seen.items()}

    def loss():
        full, less = net.views(data.complete, data.shown, data.valid)
        return r.losses(net.c, full, less, data.complete, missing, data.score)["total"]
    return net, r.optimizer(net, *r.recipe("sentiment", data.steps)), loss, lambda: None


def transm(data):
    import reference_transm as r
    net = r.TransModality(r.full("sentiment", data.dims, data.steps))
    every = {m: data.valid for m in MODALITIES}

    def loss():
        out = net(data.shown, data.valid)
        return r.losses(net.c, out, data.complete, every, data.valid, data.score)["total"]
    return net, r.optimizer(net), loss, lambda: None


METHODS = {"self-mm": self_mm, "cubemlp": cubemlp, "dmd": dmd, "mctn": mctn, "emt": emt, "if-mmin": if_mmin,
           "transm": transm}


def main():
    args = argparse.ArgumentParser()
    args.add_argument("method", choices=METHODS)
    args.add_argument("--batch", type=int, default=32)
    args.add_argument("--steps", type=int, default=50)
    args.add_argument("--dims", default="300,74,1024")
    args.add_argument("--accumulate", type=int, default=1)
    args = args.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    data = Data(args.batch, args.steps, [int(d) for d in args.dims.split(",")])
    net, optimizer, loss, clip = METHODS[args.method](data)

    # oneDNN's recurrent layers are one operation to the counter, which then sees no product in them.
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        loss().backward()
    optimizer.zero_grad()
    parameters = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    print(json.dumps(dict(parameters=parameters, flop=counter.get_total_flops())), flush=True)

    done = 0
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            loss().backward()
            done += 1
            if done % args.accumulate == 0:
                clip()
                optimizer.step()
                optimizer.zero_grad()
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(dict(seconds=seconds, peak=peak)), flush=True)


if __name__ == "__main__":
    main()
