"""One command: renders the speech, trains the family, installs it in src/otoscope/embedded and examines it.

    python -m recipes.embedded

Needs espeak-ng and flite. Rendering takes a quarter of an hour on two cores; training two models about three hours each
on a core of its own. An interrupted run goes on where it stopped.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from otoscope.workflow import synthesise
from recipes.embedded.examination import write_outcome
from recipes.embedded.installing import EMBEDDED, install_models, install_speech
from recipes.embedded.stages import COMMON, FAMILY, train_one
from recipes.embedded.telling import tell
from recipes.embedded.voices import render_voices

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--hours", type=float, default=10.0, help="of speech for pre-training; 0.8 of it beside it for fine-tuning"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of the numbers of steps; above 1 where there is a GPU"
    )
    parser.add_argument("--work", type=Path, default=ROOT / "work" / "embedded", help="rendered speech, logs, models")
    parser.add_argument("--output", type=Path, default=EMBEDDED, help="examined only where it is the default")
    parser.add_argument("--only", choices=FAMILY, help="train this model alone, and install nothing")
    arguments = parser.parse_args()
    speech, common = arguments.work / "speech", arguments.work / "common"
    voices = arguments.work / "voices", arguments.work / "voices-more"
    if arguments.only:
        train_one(arguments.only, speech, common, voices, arguments.work, arguments.scale, arguments.seed)
        return
    synthesise(speech, arguments.hours, arguments.seed)
    synthesise(common, 0.8 * arguments.hours, arguments.seed, common=COMMON)
    for part, folder in enumerate(voices):
        render_voices(folder, common, COMMON, 24 * arguments.hours, arguments.seed + 1 + part)
    began = [_beside(name, arguments) for name in FAMILY]
    failed = [name for name, process in zip(FAMILY, began, strict=True) if process.wait()]
    if failed:
        raise SystemExit(f"Training {failed[0]} failed; see {arguments.work / failed[0]}.log")
    install_speech(common, arguments.output)
    install_models(arguments.work, arguments.scale, arguments.output)
    if arguments.output == EMBEDDED:
        tell(ROOT / "docs" / "embedded.md", write_outcome(EMBEDDED / "outcome.json"))
    print(f"Installed in {arguments.output}")


def _beside(name: str, arguments: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Trains a model in a process of its own, on one core, its log beside the speech."""
    command = [
        sys.executable, "-m", "recipes.embedded", "--only", name, "--work", str(arguments.work),
        "--scale", str(arguments.scale), "--seed", str(arguments.seed),
    ]  # fmt: skip
    with (arguments.work / f"{name}.log").open("a") as log:
        return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)


if __name__ == "__main__":
    main()
