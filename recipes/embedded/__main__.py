"""One command: renders the speech, trains the model, examines it, and writes src/otoscope/embedded.

    python -m recipes.embedded

Needs espeak-ng and flite. About three minutes of rendering and an hour of training on one core.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from recipes.embedded.examination import examine
from recipes.embedded.installing import install_exam, install_model
from recipes.embedded.speech import render
from recipes.embedded.training import Settings, make_model, train

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    defaults = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--heads", type=int, default=defaults.heads)
    parser.add_argument("--layers", type=int, default=defaults.layers)
    parser.add_argument("--position-kernel", type=int, default=defaults.position_kernel)
    parser.add_argument("--mask", type=float, default=defaults.mask)
    parser.add_argument("--espeak-sentences", type=int, default=8000)
    parser.add_argument("--flite-sentences", type=int, default=2000)
    parser.add_argument("--exam-seconds", type=float, default=360)
    parser.add_argument("--work", type=Path, default=ROOT / "work" / "embedded", help="rendered speech, log, weights")
    parser.add_argument("--output", type=Path, default=ROOT / "src" / "otoscope" / "embedded")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a second thread gains little at this size, and loses much where the machine is shared
    settings = Settings(
        steps=arguments.steps, seed=arguments.seed, heads=arguments.heads, layers=arguments.layers,
        position_kernel=arguments.position_kernel, mask=arguments.mask,
    )  # fmt: skip
    splits = render(
        arguments.work,
        arguments.espeak_sentences,
        arguments.flite_sentences,
        arguments.exam_seconds,
        arguments.seed,
    )
    model = make_model(settings)
    arguments.output.mkdir(parents=True, exist_ok=True)
    print(f"{model.num_parameters() / 1e6:.2f} million parameters, {len(splits['train'])} sentences", flush=True)
    install_model(model, arguments.output / "initial")
    train(model, splits["train"], splits["dev"], settings, arguments.work / "log.jsonl")
    model = model.half().float()  # what is examined is what is stored
    outcome = {"settings": asdict(settings), **examine(model, splits)}
    install_model(model, arguments.output / "model")
    install_exam(splits["exam"], arguments.output / "exam")
    (arguments.output / "outcome.json").write_text(json.dumps(outcome, indent=1) + "\n")
    print(json.dumps(outcome, indent=1))


if __name__ == "__main__":
    main()
