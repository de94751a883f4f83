"""One command: renders the speech, diagnoses, prescribes, treats, fine-tunes, verifies, and writes docs/treated.md.

    python -m recipes.treated

Needs espeak-ng and flite. Takes some five hours on one core, of which each fine-tuning is about one and a
half (`--only treated-taught` makes one variant); an interrupted run goes on where it stopped.
"""

import argparse
from pathlib import Path

from recipes.treated.speech import render
from recipes.treated.stages import VARIANTS, examined, made, planned, verified
from recipes.treated.telling import tell
from recipes.trials.tables import days

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "work" / "treated", help="speech, models and outcomes")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "treated.md", help="gets the table")
    parser.add_argument("--hours", type=float, default=6.0, help="of speech for training")
    parser.add_argument("--margin", type=float, default=4.0, help="of the plan, in tolerances")
    parser.add_argument("--steps", type=int, default=4000, help="of fine-tuning")
    parser.add_argument("--only", help="make the variant of this name alone; the page tells which were not run")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    arguments = parser.parse_args()
    if arguments.dry_run:
        print(
            f"{arguments.hours:g} h of speech, a plan of margin {arguments.margin:g} and {arguments.steps} steps for:"
        )
        print("\n".join(f"  {one.name}: {one.words}" for one in VARIANTS))
        return
    render(arguments.work, arguments.hours)
    examined(arguments.work)
    plan = planned(arguments.work, arguments.margin)
    print(plan)
    for variant in [one for one in VARIANTS if arguments.only in (None, one.name)]:
        made(arguments.work, variant, plan, arguments.steps)
        print(f"{variant.name}\n{verified(arguments.work, variant)}", flush=True)
    there = [one for one in VARIANTS if (arguments.work / f"{one.name}.json").exists()]
    date = days(arguments.work / f"{one.name}.json" for one in there)
    tell(arguments.page, plan, {one: verified(arguments.work, one) for one in there}, date)
    print(f"Written to {arguments.page}")


if __name__ == "__main__":
    main()
