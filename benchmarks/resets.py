"""What resetting every layer in turn costs, against running the whole model for each of them."""

import time

import numpy as np
import torch

from benchmarks.material import base_model, labelled_noise
from otoscope.interventions.engine import Engine, parts_of
from otoscope.models import load
from otoscope.surgery import Reset, apply, prepared

LIMIT, TOLERANCE = 0.6, 1e-5


def main(seconds: float = 3.0) -> bool:
    """Prints CPU seconds and their ratio, for each of twelve layers set to other weights, on one thread.

    Making the edited models is counted on both sides, and the engine's own pass of the unedited model on its side.
    """
    torch.set_num_threads(1)
    model, corpus = prepared(load(base_model())), labelled_noise(1, seconds)  # its weights are read once for both
    torch.manual_seed(1)
    initial = {name: torch.randn_like(one) * 0.02 for name, one in model.source.state_dict().items()}
    layers = [f"layer.{k}" for k in range(1, model.anatomy.n_layers + 1)]
    variants = {layer: [Reset(layer, initial)] for layer in layers}

    def take(variant, part):
        samples = [one.read() for one in part]
        with torch.inference_mode():
            return variant.encode(samples).numpy()

    take(model, corpus)  # the first pass warms up
    began = time.process_time()
    naive = {name: take(apply(model, edits, share=True), corpus) for name, edits in variants.items()}
    middle = time.process_time()
    found = next(part.found for part in Engine(model, variants).over(parts_of(corpus), take))
    ended = time.process_time()
    furthest = max(float(np.abs(naive[name] - found[name]).max()) for name in layers)
    ratio = (ended - middle) / (middle - began)
    print(f"{len(layers)} layers reset, whole model for each: {middle - began:.1f} CPU s")
    print(f"{len(layers)} layers reset, from the reset layer on: {ended - middle:.1f} CPU s")
    print(f"ratio {ratio:.2f} (limit {LIMIT}), {seconds:g} s of audio, one thread; largest difference {furthest:.1g}")
    return ratio <= LIMIT and furthest <= TOLERANCE


if __name__ == "__main__":
    raise SystemExit(not main())
