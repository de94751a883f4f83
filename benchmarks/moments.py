"""What moments of all streams cost beside a plain forward pass, span by span, and what float32 would save and lose."""

import statistics
import time

import numpy as np
import torch
from scipy.linalg.blas import dgemm, sgemm

from benchmarks.material import base_model, labelled_noise
from otoscope.measures.layers import CCA
from otoscope.models import load

LIMIT = 0.30
SPANS = {"frame (with mel)": "mel", "phone": "phone", "word": "word"}


def main(rounds: int = 5, seconds: float = 15.0) -> bool:
    """Prints CPU seconds of each span against a plain forward pass; they take turns, on one thread."""
    torch.set_num_threads(1)
    source = base_model()
    corpus = labelled_noise(rounds + 1, seconds)
    model = load(source)
    measures = {span: CCA(target) for span, target in SPANS.items()}
    for measure in measures.values():
        measure.prepare(model.anatomy, corpus, 0)
    intra = CCA("intra")
    intra.prepare(model.anatomy, corpus, 0)
    transforms = measures["frame (with mel)"].transforms(model.anatomy)
    spent: dict[str, list[float]] = {name: [] for name in ("forward", *measures, "cca-intra beside them")}
    for k, utterance in enumerate(corpus):
        wave = utterance.read()
        began = time.process_time()
        with torch.inference_mode():
            source(torch.from_numpy(wave)[None])
        forward = time.process_time() - began
        capture = model.capture((utterance,), (wave,), None, (), transforms)
        took = {"forward": forward}
        for name, measure in {**measures, "cca-intra beside them": intra}.items():
            began = time.process_time()
            measure.update(capture)
            took[name] = time.process_time() - began
        if k:  # the first round warms up
            for name, one in took.items():
                spent[name].append(one)
    ratio = {n: statistics.median(s / f for s, f in zip(spent[n], spent["forward"], strict=True)) for n in spent}
    print(f"forward: {statistics.median(spent['forward']):.2f} CPU s for {seconds:g} s of speech, one thread")
    for name in measures:
        print(f"  moments of {name} spans: {ratio[name]:.3f} of it")
    both = sum(ratio[name] for name in measures)
    print(f"  together {both:.3f} (limit {LIMIT}); cca-intra by itself {ratio['cca-intra beside them']:.3f}")
    _single_precision(capture.frames("layer.6", 0).numpy())
    return both <= LIMIT


def _single_precision(rows: np.ndarray) -> None:
    """The product of one block in float32 against float64, on rows with means as large as layers have."""
    x = rows + 30 * np.random.default_rng(0).standard_normal(rows.shape[1]).astype(np.float32)
    double = x.astype(np.float64)
    double -= double.mean(axis=0)
    single = x - x.mean(axis=0)
    took = {}
    for name, product, a in (("float64", dgemm, double), ("float32", sgemm, single)):
        began = time.process_time()
        for _ in range(10):
            found = product(1.0, a.T, a.T, trans_b=1)
        took[name] = (time.process_time() - began, found)
    lost = np.abs(took["float32"][1] - took["float64"][1]).max() / np.abs(took["float64"][1]).max()
    share = took["float32"][0] / took["float64"][0]
    print(f"  float32 blocks would take {share:.2f} of a product's time and lose all but {-np.log10(lost):.1f} digits")


if __name__ == "__main__":
    raise SystemExit(not main())
