"""What the head metrics cost beside a plain forward pass with fused attention, and beside keeping the maps."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from benchmarks.material import base_model, labelled_noise, peak_memory
from otoscope.diagnosis import CATALOGUE
from otoscope.diagnosis.entries import ONE
from otoscope.diagnosis.options import Options
from otoscope.measures.heads.diagonality import centrality, diagonality, mean_offset
from otoscope.measures.heads.globalness import globalness
from otoscope.measures.heads.peak import profile_peak
from otoscope.measures.heads.sharpness import confidence, max_weight
from otoscope.measures.heads.verticality import verticality
from otoscope.measures.measure import Measure
from otoscope.models import load
from otoscope.speech.corpus import Corpus

Way = Callable[[], None]

LIMIT = 0.25
BATCHES = (1, 4)
OF_MAPS = (globalness, verticality, diagonality, centrality, mean_offset, max_weight, confidence, profile_peak)
"""The same metrics from whole maps; the others are these over constants."""


def head_metrics() -> list[Measure]:
    """All measures of the group "heads" that one pass gives and that read no labels."""
    makers = {entry.maker: entry.make for entry in CATALOGUE if entry.group == "heads" and entry.cost == ONE}
    measures = [make(Options()) for make in makers.values() if make is not None]
    return [measure for measure in measures if not measure.tiers and not measure.streams]


def plain(corpus: Corpus) -> Way:
    """The library's own forward pass, with fused attention."""
    model, waves = base_model(), _stacked(corpus)

    def run() -> None:
        with torch.inference_mode():
            model(waves)

    return run


def with_maps(corpus: Corpus) -> Way:
    """The library's own pass that keeps the maps, and the metrics of each."""
    model, waves = base_model(), _stacked(corpus)
    model.set_attn_implementation("eager")  # type: ignore[operator]

    def run() -> None:
        with torch.inference_mode():
            for maps in model(waves, output_attentions=True).attentions:
                for metric in OF_MAPS:
                    metric(maps)

    return run


def tapped(corpus: Corpus) -> Way:
    """Our pass with all head metrics."""
    model, measures = load(base_model()), head_metrics()
    for measure in measures:
        measure.prepare(model.anatomy, corpus, 0)
    reductions = list(dict.fromkeys(make for measure in measures for make in measure.reductions))

    def run() -> None:
        capture = model.capture(list(corpus), [one.read() for one in corpus], (), reductions)
        for measure in measures:
            measure.update(capture)

    return run


WAYS: dict[str, Callable[[Corpus], Way]] = {"plain": plain, "tapped": tapped, "maps kept": with_maps}


def _stacked(corpus: Corpus) -> torch.Tensor:
    return torch.stack([torch.from_numpy(one.read()) for one in corpus])


def peak(way: str, batch: int, seconds: float) -> float:
    """Peak resident memory of one way in a process of its own, in MB."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tap", way, str(batch), str(seconds)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout.split()[-1])


def child(way: str, batch: int, seconds: float) -> None:
    """Runs one way once, and prints this process's peak."""
    torch.set_num_threads(1)
    WAYS[way](labelled_noise(batch, seconds))()
    print(peak_memory())


def main(rounds: int = 5, seconds: float = 15.0) -> bool:
    """Prints CPU seconds, their ratios and memory; the ways take turns, on one thread."""
    torch.set_num_threads(1)
    kept = True
    for batch in BATCHES:
        corpus = labelled_noise(batch, seconds)
        ways = {name: make(corpus) for name, make in WAYS.items()}
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for k in range(rounds + 1):
            for name, run in ways.items():
                began = time.process_time()
                run()
                if k:  # the first round warms up
                    spent[name].append(time.process_time() - began)
        memory = {name: peak(name, batch, seconds) for name in ways}
        print(f"batch of {batch}, utterances of {seconds:g} s, one thread:")
        for name, times in spent.items():
            ratio = statistics.median(t / p for t, p in zip(times, spent["plain"], strict=True))
            print(
                f"  {name:10} {statistics.median(times):6.2f} CPU s, {ratio:.3f} of plain, peak {memory[name]:.0f} MB"
            )
            kept &= name != "tapped" or ratio <= 1 + LIMIT
    print(f"limit of the tapped pass: {1 + LIMIT:g} of plain, with {len(head_metrics())} measures")
    return kept


if __name__ == "__main__":
    if len(sys.argv) == 4:
        child(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
    else:
        raise SystemExit(not main())
