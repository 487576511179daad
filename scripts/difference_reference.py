"""Intervals and tests in SciPy and statsmodels: what crates/cumdf-bench/src/difference is compared with.

    pip install scipy statsmodels
    python scripts/difference_reference.py     writes crates/cumdf-bench/tests/golden/difference.json
"""

import json
from pathlib import Path

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

GOLDEN = Path(__file__).resolve().parent.parent / "crates/cumdf-bench/tests/golden/difference.json"
DIGITS = 4  # what is written is what is computed with


def seeds(differences):
    d = np.array(differences)
    interval = stats.t.interval(0.95, len(d) - 1, loc=d.mean(), scale=stats.sem(d))
    case = {"differences": differences, "interval": [float(x) for x in interval], "wilcoxon": None}
    if len(d) >= 6:
        # Exact in either case: over all signs where sizes are equal, which "exact" does not know.
        tied = len(set(np.abs(d))) < len(d)
        method = stats.PermutationMethod(n_resamples=np.inf) if tied else "exact"
        case["wilcoxon"] = float(stats.wilcoxon(d, method=method).pvalue)
    return case


rng = np.random.default_rng(0)
draws = [[round(float(x), DIGITS) for x in rng.normal(0.3, 1.0, n)] for n in [2, 3, 5, 6, 8, 12, 20]]
draws.append([0.5, -0.5, 0.25, 0.75, 0.5, 0.5, -0.25, 1.0])  # equal sizes
families = [[0.01, 0.04, 0.03, 0.005], [0.5], [0.02, 0.02, 0.9, 0.001, 0.3, 0.02]]
golden = {
    "seeds": [seeds(d) for d in draws],
    "holm": [{"p": p, "adjusted": multipletests(p, method="holm")[1].tolist()} for p in families],
}
GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
