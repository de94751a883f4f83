"""One command: renders the speech, trains the Conformers, examines them, and writes docs/conformers.md.

    python -m recipes.conformers

Needs espeak-ng. Training takes about three minutes a small model and six a large one, each on a core of its own; the
examination about a minute each. An interrupted run goes on where it stopped.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from otoscope.training.folders import replace_text, without_bars
from recipes.conformers.examination import Examination
from recipes.conformers.models import Conformer, comparison
from recipes.conformers.speech import read_commands, render_commands
from recipes.conformers.stages import SETTINGS, STEPS, train_one
from recipes.conformers.telling import tell

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=ROOT / "work" / "conformers", help="speech, models, logs and parts"
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "conformers.md", help="gets the tables")
    parser.add_argument("--seeds", type=int, default=3, help="of models that see both sides")
    parser.add_argument("--causal-seeds", type=int, default=2, help="of models that do not look ahead")
    parser.add_argument("--deep-seeds", type=int, default=1, help="of deep models")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--workers", type=int, default=2, help="models at a time, each on a core")
    parser.add_argument("--only", help="train and examine the model of this name alone, and write no page")
    arguments = parser.parse_args()
    if arguments.only:
        run_one(Conformer.named(arguments.only), arguments.work, arguments.steps)
        return
    render_commands(arguments.work / "speech")
    models = comparison(arguments.seeds, arguments.causal_seeds, arguments.deep_seeds)
    with ThreadPoolExecutor(arguments.workers) as pool:
        ends = list(pool.map(lambda one: _apart(one, arguments.work, arguments.steps), models))
    found = {
        one: run_one(one, arguments.work, arguments.steps) for one, end in zip(models, ends, strict=True) if not end
    }
    replace_text(
        arguments.work / "found.json", json.dumps({one.name: parts for one, parts in found.items()}, indent=1) + "\n"
    )
    tell(arguments.page, found)
    print(f"Written to {arguments.page}")
    failed = [one.name for one, end in zip(models, ends, strict=True) if end]
    if failed:
        raise SystemExit(f"These failed, see their logs in {arguments.work}: {', '.join(failed)}")


def run_one(one: Conformer, work: Path, steps: int = STEPS) -> dict[str, Any]:
    """Trains and examines one model; what is there already is read."""
    torch.set_num_threads(1)  # a second thread gains little at this size, and loses much where the machine is shared
    speech = read_commands(work / "speech")
    with without_bars():
        train_one(one, speech, work, replace(SETTINGS, steps=steps))
        return Examination(one, work, speech["exam"]).all()


def _apart(one: Conformer, work: Path, steps: int) -> int:
    """`run_one` in a process of its own, its log beside the models; its exit status."""
    command = [
        sys.executable, "-m", "recipes.conformers", "--only", one.name, "--work", str(work), "--steps", str(steps),
    ]  # fmt: skip
    with (work / f"{one.name}.log").open("a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False).returncode


if __name__ == "__main__":
    main()
