"""What canonical correlations cost once moments are there: one stream, all folds, the whole grid of ridges."""

import time
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from otoscope.measures.layers.held_out import Views, fold_scores
from otoscope.measures.layers.ridge import RIDGES
from otoscope.statistics import ClassMoments, Moments

FOLDS, WIDTH = 10, 768
LIMITS = {"mel, phones, words and a table": 8.0, "another stream": 30.0}


def moments(rows: int, targets: dict[str, int], seed: int) -> Moments:
    """Moments of rows that hold a little of each target."""
    draw = np.random.default_rng(seed)
    found = Moments(FOLDS, WIDTH, {name: n for t, n in targets.items() for name in (t, f"{t}-rolled")})
    mixing = {t: draw.standard_normal((n, WIDTH)) / n for t, n in targets.items()}
    for fold in range(FOLDS):
        y = {t: draw.standard_normal((rows // FOLDS, n)) for t, n in targets.items()}
        x = draw.standard_normal((rows // FOLDS, WIDTH)) + sum((y[t] @ mixing[t] for t in targets), np.zeros(WIDTH))
        found.update(fold, x, y | {f"{t}-rolled": np.roll(one, 7, axis=0) for t, one in y.items()})
    return found


def classes(rows: int, k: int, seed: int) -> tuple[Moments, ClassMoments, ClassMoments]:
    """Moments of rows whose class moves them a little, with the classes and with drawn ones."""
    draw = np.random.default_rng(seed)
    found, own, drawn = Moments(FOLDS, WIDTH), ClassMoments(FOLDS, k, WIDTH), ClassMoments(FOLDS, k, WIDTH)
    centres = draw.standard_normal((k, WIDTH)) / 3
    for fold in range(FOLDS):
        labels = draw.integers(0, k, rows // FOLDS)
        x = draw.standard_normal((len(labels), WIDTH)) + centres[labels]
        found.update(fold, x)
        own.update(fold, x, labels)
        drawn.update(fold, x, draw.permutation(labels))
    return found, own, drawn


def timed(pooled, views: Views, target: str | None):
    """Scores of all folds, and their CPU seconds."""
    began = time.process_time()
    found = fold_scores(pooled, list(range(FOLDS)), RIDGES, "y", views, "layer", target)
    return found, time.process_time() - began


def unanchored(pooled):
    """The same moments with a floor's target that does not vary, so that no floor is computed."""

    def both(folds):
        found = pooled(folds)[0]
        return found, replace(found, syy=np.zeros_like(found.syy), sxy=np.zeros_like(found.sxy))

    return both


def main() -> bool:
    """Prints CPU seconds of each target, with its floor and without."""
    frames = moments(20000, {"mel": 80, "stream": WIDTH}, 0)
    phones, words = classes(7800, 39, 1), classes(7500, 500, 2)
    table = np.random.default_rng(3).standard_normal((500, 300))

    def labelled(held, codes=None):
        return lambda folds: tuple(one.joined(held[0].pooled(folds), folds, codes) for one in held[1:])

    def continuous(name):
        def both(folds):
            found = frames.pooled(folds, name)
            return found, frames.pooled(folds, f"{name}-rolled", beside=found)

        return both

    views = [{"frame": Views(), "phone": Views(), "word": Views()} for _ in range(2)]
    jobs = {
        "mel": (continuous("mel"), "frame", None), "phones": (labelled(phones), "phone", "phone"),
        "words": (labelled(words), "word", "word"), "table": (labelled(words, table), "word", "table"),
        "stream": (continuous("stream"), "frame", "stream"),
    }  # fmt: skip
    spent: dict[str, float] = {}
    alone: dict[str, float] = {}
    with threadpool_limits(1, "blas"):
        for name, (pooled, span, target) in jobs.items():
            found, alone[name] = timed(unanchored(pooled), views[0][span], target)
            both, spent[name] = timed(pooled, views[1][span], target)
            score, floor = both.scores["pwcca"].mean(), both.floors["pwcca"].mean()
            assert np.array_equal(found.scores["pwcca"], both.scores["pwcca"])
            print(
                f"{name:7} {spent[name]:6.1f} CPU s, without the floor {alone[name]:4.1f}   "
                f"held-out PWCCA {score:.3f}, floor {floor:.3f}"
            )
    together = ("mel", "phones", "words", "table")
    print(f"mel, phones, words and a table with their floors: {sum(spent[n] for n in together):.1f} CPU s")
    took = dict(zip(LIMITS, (sum(alone[n] for n in together), alone["stream"]), strict=True))
    for name, seconds in took.items():
        print(f"{name}: {seconds:.1f} CPU s for {FOLDS} folds and {len(RIDGES)} ridges (limit {LIMITS[name]:g})")
    return all(took[name] <= LIMITS[name] for name in LIMITS)


if __name__ == "__main__":
    raise SystemExit(not main())
