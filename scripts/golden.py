"""Writes tests/golden/*.safetensors from reference.py, and by golden_*.py from the other methods'
references. See tests/golden/README.md."""

import json
from dataclasses import asdict
from pathlib import Path

import golden_baselines
import golden_cubemlp
import golden_dmd
import golden_emt
import golden_mctn
import golden_transm
import torch
from reference import MODALITIES, PAIRS, Config, Cumdf, losses
from safetensors.torch import save_file

torch.set_num_threads(1)
torch.backends.mha.set_fastpath_enabled(False)
OUT = Path(__file__).resolve().parent.parent / "tests" / "golden"
B, T, D, C, LOW = 4, 6, 8, 5, -2
DIMS = dict(language=5, audio=3, vision=4)
KERNELS = dict(language=3, audio=1, vision=5)

# name: (config, targets, weight of the score loss, optimiser)
CASES = {
    "paper": (dict(), "one_hot", 0.0, "adam"),
    "recommended": (dict(conv_activation="relu", pool_norm="batch", head_pooled=True, missing_embedding=True),
                    "soft", 0.5, "adamw"),
    "product_gate_mask_missing": (dict(label_gate="product", mask_missing=True, scale_common=True),
                                  "multi_hot", 0.0, "adam"),
    "no_mke": (dict(mke=False), "one_hot", 0.0, "adam"),
    "no_lg_mmt": (dict(lg_mmt=False, pool_norm="batch", conv_activation="relu"), "multi_hot", 0.0, "adam"),
}


def inputs(gen):
    """Lengths T, 1, 4, 5; holes; no audio in sample 2, vision alone in sample 3."""
    valid = torch.arange(T)[None] < torch.tensor([T, 1, 4, 5])[:, None]
    present = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 0, 1], [0, 0, 1]], dtype=torch.bool)
    seen = valid[:, None] & present[..., None]
    complete = seen.clone()
    for b, m, t in [(0, 0, 0), (0, 0, 3), (0, 1, 1), (0, 1, 2), (0, 1, 5), (0, 2, 3), (1, 1, 0), (2, 0, 2), (3, 2, 4)]:
        seen[b, m, t] = False
    raw = {m: torch.randn(B, T, n, generator=gen).double() for m, n in DIMS.items()}
    full = {m: raw[m] * complete[:, i, :, None] for i, m in enumerate(MODALITIES)}
    return full, complete, {m: raw[m] * seen[:, i, :, None] for i, m in enumerate(MODALITIES)}, seen, valid


def targets(kind):
    if kind == "multi_hot":
        hot = torch.tensor([[1, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]]).double()
        return hot / hot.sum(1, keepdim=True), None
    score = torch.tensor([-2.0, 0.5, 1.25, -0.75], dtype=torch.float64)
    if kind == "one_hot":
        return torch.nn.functional.one_hot(score.round().long() - LOW, C).double(), score
    low = score.floor()
    dist = torch.zeros(B, C, dtype=torch.float64)
    for i in range(B):
        k, w = int(low[i]) - LOW, score[i] - low[i]
        dist[i, k] += 1 - w
        if w > 0:
            dist[i, k + 1] += w
    return dist, score


def network(config, seed):
    """Default initialisation, shaken so that no weight is 0 or 1, exact in float32."""
    torch.manual_seed(seed)
    net = Cumdf(config)
    with torch.no_grad():
        for name, p in net.state_dict().items():
            if name.endswith("running_var"):
                p.copy_(0.5 + torch.rand_like(p))
            elif p.is_floating_point():
                p.add_(0.2 * torch.randn_like(p))
    return net.double()


def tensors(prefix, state):
    return {f"{prefix}.{k}": v.detach().clone() for k, v in state.items() if not k.endswith("num_batches_tracked")}


def write(name, switches, kind, score_weight, optimiser, seed):
    gen = torch.Generator().manual_seed(seed)
    config = Config(dims=DIMS, classes=C, hidden=D, heads=2, ffn=16, kernels=KERNELS, **switches)
    full, complete, features, seen, valid = inputs(gen)
    target, score = targets(kind)
    bins = torch.arange(LOW, LOW + C).double()

    teacher_net = network(Config(**{**asdict(config), "distil": False}), seed + 1).eval()
    with torch.no_grad():
        t = teacher_net(full, complete, valid, guide=target)
    teacher = dict(fused=t["fused"], modalities=torch.stack([t["pooled"][m] for m in MODALITIES]))
    if config.lg_mmt:
        teacher["pairs"] = torch.stack([t["pair"][p] for p in PAIRS])
    teacher = {k: v.float().double() for k, v in teacher.items()}

    net = network(config, seed)
    data = tensors("param", net.state_dict())
    data |= {f"input.features.{m}": features[m] for m in MODALITIES}
    data |= {"input.seen": seen.to(torch.uint8), "input.valid": valid.to(torch.uint8), "target.distribution": target}
    data |= {f"teacher.{k}": v for k, v in teacher.items()}
    if score is not None:
        data["target.score"] = score
    net.eval()
    with torch.no_grad():
        data["eval.logits"] = net(features, seen, valid)["logits"]
        data["oracle.logits"] = net(features, seen, valid, guide=target)["logits"]

    net.train()
    out = net(features, seen, valid, counterfactuals=True)
    terms = losses(net, out, target, teacher, score, bins, score_weight=score_weight)
    terms["total"].backward()
    for k in ("x_prime", "specific", "common", "x"):
        data |= {f"out.{k}.{m}": v * valid[..., None] for m, v in out.get(k, {}).items()}
    for k in ("pooled", "uni_logits", "pair", "cf_logits"):
        data |= {f"out.{k}.{m}": v for m, v in out.get(k, {}).items()}
    data |= {f"out.{k}": out[k] for k in ("guide", "fused", "logits", "delta", "x_con")}
    data |= {f"loss.{k}": v for k, v in terms.items()}
    for k, p in net.named_parameters():
        data[f"grad.{k}"] = torch.zeros_like(p) if p.grad is None else p.grad.clone()
    data["out.grad_norm"] = torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    if optimiser == "adamw":
        torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.01).step()
    else:
        torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=0.0).step()
    data |= tensors("step", net.state_dict())

    case = dict(name=name, model=asdict(config), task="emotion" if score is None else "sentiment", targets=kind,
                low=LOW, score_weight=score_weight, uni_weight=0.3, reg=0.1, cou=0.1, srd=0.1,
                lambda_q=1e-4, lambda_k=1e-4, lambda_v=1e-4, alpha=[1.0, 1.0, 1.0], srd_projection="both",
                clip=1.0, optimiser=dict(name=optimiser, lr=1e-3, weight_decay=0.01 if optimiser == "adamw" else 0.0),
                notes=["out.*, loss.*, grad.*: training mode; eval.logits, oracle.logits: evaluation mode, param.*",
                       "out.{x_prime,specific,common,x} are zero beyond a sample's length",
                       "grad.* before clipping; step.* after clipping and one step, with running statistics",
                       "a parameter the loss does not reach has a zero grad and is not stepped"])
    save(name, data, case)


def save(name, data, case):
    """Whole numbers as they are, everything else in float32."""
    data = {k: (v.detach().float() if v.is_floating_point() else v).contiguous().clone() for k, v in data.items()}
    path = OUT / f"{name}.safetensors"
    save_file(data, path, metadata={"case": json.dumps(case)})
    path.chmod(0o644)
    print(f"{path.name}: {path.stat().st_size} bytes, {len(data)} tensors, total {float(data['loss.total']):.6f}")


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for i, (name, (switches, kind, weight, optimiser)) in enumerate(CASES.items()):
        write(name, switches, kind, weight, optimiser, 100 + 10 * i)
    for method in (golden_baselines, golden_cubemlp, golden_dmd, golden_mctn, golden_emt, golden_transm):
        for name, data, case in method.cases():
            save(name, data, case)
