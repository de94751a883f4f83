"""What leaving out heads one by one costs, against running the whole model for each of them."""

import time

import numpy as np
import torch

from benchmarks.material import base_model, labelled_noise
from otoscope.interventions.engine import Engine, parts_of
from otoscope.models import load
from otoscope.surgery import Gate

LIMIT = 0.6


def main(heads: int = 3, seconds: float = 3.0) -> bool:
    """Prints CPU seconds and their ratio, for some heads of every layer of twelve, on one thread.

    All heads of a layer cost the same; with more of them the one pass of the unedited model counts for less.
    """
    torch.set_num_threads(1)
    model = load(base_model())
    corpus = labelled_noise(1, seconds)
    variants = {f"{k}.{h}": [Gate(f"layer.{k}.head.{h}")] for k in range(1, 13) for h in range(heads)}

    def take(variant, part):
        samples = [one.read() for one in part]
        with torch.inference_mode():
            return variant.encode(samples).numpy()

    cost, found = {}, {}
    take(model, corpus)  # the first pass warms up
    for name, reuse in (("whole model for each", False), ("from the edited layer on", True)):
        began = time.process_time()
        found[name] = next(part.found for part in Engine(model, variants, reuse=reuse).over(parts_of(corpus), take))
        cost[name] = time.process_time() - began
        print(f"{len(variants)} of 144 heads left out, {name}: {cost[name]:.1f} CPU s")
    one, other = found.values()
    same = all(np.array_equal(one[name], other[name]) for name in one)
    naive, reused = cost.values()
    print(f"ratio {reused / naive:.2f} (limit {LIMIT}), {seconds:g} s of audio, one thread; same bits: {same}")
    return same and reused / naive <= LIMIT


if __name__ == "__main__":
    raise SystemExit(not main())
