"""One command: pre-trains M3, M6 and M9, examines them, and writes what was found into docs/mockingjay.md.

    python -m recipes.mockingjay

Pre-training takes about ten minutes a model on one core, the examination about as long. An interrupted run goes on
where it stopped.
"""

import argparse
import json
from pathlib import Path

from otoscope.training.folders import replace_text
from recipes.mockingjay.examination import Examination
from recipes.mockingjay.stages import MODELS, pretrain_one
from recipes.mockingjay.telling import tell

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "work" / "mockingjay", help="models, logs and parts")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "mockingjay.md", help="gets the tables")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of steps")
    parser.add_argument("--seconds", type=float, default=600.0, help="of the examination speech at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=MODELS, help="pre-train and examine this model alone, and write no page")
    parser.add_argument("--pretrain-only", action="store_true", help="examine nothing")
    arguments = parser.parse_args()
    found = {}
    for name in [arguments.only] if arguments.only else MODELS:
        folder = pretrain_one(name, arguments.work, arguments.scale, arguments.seed)
        if not arguments.pretrain_only:
            store = arguments.work / f"{name}-found"
            found[name] = Examination(folder, store, arguments.seed, arguments.seconds).all()
    if arguments.only or arguments.pretrain_only:
        return
    replace_text(arguments.work / "found.json", json.dumps(found, indent=1) + "\n")
    tell(arguments.page, found)
    print(f"Written to {arguments.page}")


if __name__ == "__main__":
    main()
