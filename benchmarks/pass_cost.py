"""What the pass with all its measures costs, against a plain forward pass with fused attention."""

import statistics
import time

import torch

from benchmarks.material import base_model, labelled_noise
from otoscope.diagnosis import Observation
from otoscope.models import load

LIMIT = 1.5


def main(rounds: int = 5, seconds: float = 15.0) -> bool:
    """Prints CPU seconds and their ratio; the two take turns, each utterance by itself, on one thread."""
    torch.set_num_threads(1)
    source = base_model()
    corpus = labelled_noise(rounds + 1, seconds)
    observation = Observation.prepare(load(source), corpus)
    waves = [torch.from_numpy(one.read())[None] for one in corpus]
    plain, examined = [], []
    for k, utterance in enumerate(corpus):
        began = time.process_time()
        with torch.inference_mode():
            source(waves[k])
        between = time.process_time()
        observation.update(corpus.subset([utterance.id]))
        ended = time.process_time()
        if k:  # the first round warms up
            plain.append(between - began)
            examined.append(ended - between)
    ratio = statistics.median(e / p for e, p in zip(examined, plain, strict=True))
    print(f"forward, fused attention ({source.config._attn_implementation}): {statistics.median(plain):.2f} CPU s")
    print(f"pass with {len(observation.measures)} measures: {statistics.median(examined):.2f} CPU s")
    print(f"ratio {ratio:.2f} (limit {LIMIT}), utterances of {seconds:g} s, one thread")
    began = time.process_time()
    try:
        observation.compute()
    finally:
        print(f"computing the diagnosis once, at the end: {time.process_time() - began:.0f} CPU s")
    return ratio <= LIMIT


if __name__ == "__main__":
    raise SystemExit(not main())
