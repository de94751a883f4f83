"""The diagnosis that chooses n, and the fine-tunings; what is there already is left as it is."""

from pathlib import Path

import torch

from otoscope.diagnosis.result import Diagnosis
from otoscope.errors import TrainingError
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.plans.plan import Plan
from otoscope.speech.corpus import Corpus
from otoscope.surgery.units import Parts
from otoscope.training.ctc import CtcSettings
from otoscope.training.settings import TrainingSettings
from otoscope.training.vocabulary import vocabulary_of
from otoscope.workflow.diagnosing import diagnose
from otoscope.workflow.finetuning import finetune
from otoscope.workflow.prescribing import prescribe
from otoscope.workflow.treating import treat
from recipes.layerwise_finetuning.cells import Cell
from recipes.trials.comparing import finished
from recipes.trials.runs import one_thread, told
from recipes.trials.speech import Speech

RULE = "reinitialise-top"
CURVE = "cca-word"


def diagnosed(model: str, corpus: Corpus, work: Path) -> Diagnosis:
    """The layers of the pre-trained model: what they know of words, and how near they are to the spectrum."""
    folder = work / "diagnosis"
    if not (folder / "diagnosis.json").exists():
        print(f"Diagnosis of {model} ...", flush=True)
        diagnose(model, corpus, [CURVE, "cca-mel"]).save(folder)
    return Diagnosis.load(folder)


def prescribed(found: Diagnosis, most: int) -> Plan:
    """The plan for accuracy, with at most so many layers that begin anew; its notes tell of rules that did not act."""
    return prescribe(found, "accuracy", top=most)


def chosen_top(plan: Plan, layers: int) -> int:
    """How many top layers a plan re-initialises.

    Args:
        plan: by the rule `reinitialise-top`.
        layers: of the model.
    """
    units = [line.treatment.units for line in plan.lines if line.rule == RULE]
    tops = [n for n in range(1, layers + 1) for one in Cell(n, "", 0).treatments(layers) if one.units in units]
    return tops[0] if tops else 0


def begun(model: str, cell: Cell) -> SpeechModel:
    """The pre-trained model with its top layers anew.

    Raises:
        TrainingError: others than these have changed, or one of them has not.
    """
    before = load(model)
    treatments = cell.treatments(before.anatomy.n_layers)
    if not treatments:
        return before
    after = treat(before, treatments, name=before.name)
    check_begun(before, after, cell.top)
    return after


def check_begun(before: SpeechModel, after: SpeechModel, top: int) -> None:
    """Makes sure that the top layers are other ones, and nothing else is.

    Raises:
        TrainingError: it is not so.
    """
    olds, news = (Parts(one.encoder, one.family).layers for one in (before, after))
    changed = [number for number, pair in enumerate(zip(olds, news, strict=True), 1) if not _same(*pair)]
    wanted = list(range(len(olds) - top + 1, len(olds) + 1))
    if changed != wanted:
        raise TrainingError(
            f"Layers {wanted} were to begin anew, and {changed or 'none'} did", "Fine-tune a model of another family."
        )


def finetuned(cell: Cell, model: str, speech: Speech, work: Path, settings: TrainingSettings, ctc: CtcSettings) -> Path:
    """The folder of a fine-tuned model; an interrupted training is gone on with.

    All of them spell with the characters of all training transcripts, so that none lacks one that its subset has not.
    """
    folder = work / cell.name
    if finished(folder):
        return folder
    one_thread()
    finetune(
        begun(model, cell), speech.train, folder, settings=settings, ctc=ctc, subset=cell.subset, dev=speech.dev,
        vocabulary=vocabulary_of([*speech.train, *speech.dev]), resume=(folder / "run").exists(), report=told,
    )  # fmt: skip
    return folder


def _same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    here, there = one.state_dict(), other.state_dict()
    return here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)
