"""The fine-tunings that are compared: how many top layers begin anew, on how much speech, from which seed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from otoscope.embedded import embedded_model
from otoscope.errors import CheckpointError, TrainingError
from otoscope.training.subsets import seconds_of
from otoscope.treatments import Reinitialise


@dataclass(frozen=True)
class Cell:
    """One fine-tuning.

    Attributes:
        top: how many top layers begin anew.
        subset: how much transcribed speech it has, such as "10min".
        seed: of the subset, of what the layers begin with, of batches, masks and dropout.
    """

    top: int
    subset: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"top{self.top}-{self.subset}-{self.seed}"

    @classmethod
    def named(cls, name: str) -> "Cell":
        """The fine-tuning of a folder's name.

        Raises:
            TrainingError: no name of one.

        >>> Cell.named("top3-10min-1")
        Cell(top=3, subset='10min', seed=1)
        """
        top, _, rest = name.removeprefix("top").partition("-")
        subset, _, seed = rest.rpartition("-")
        if not (name.startswith("top") and top.isdecimal() and seed.isdecimal() and subset):
            raise TrainingError(f"There is no fine-tuning {name!r}", "Name one as top3-10min-1.")
        return cls(int(top), subset, int(seed))

    def treatments(self, layers: int) -> tuple[Reinitialise, ...]:
        """What is done before fine-tuning.

        Args:
            layers: of the model.
        """
        if not self.top:
            return ()
        first = layers - self.top + 1
        return (Reinitialise(f"layer.{first}" if first == layers else f"layer.{first}-{layers}", self.seed),)

    def words(self, layers: int | None) -> str:
        """The same in words.

        Args:
            layers: of the model; None where it is not known yet.
        """
        if not self.top:
            return "none"
        if layers is None:
            return f"reinitialise the last {self.top}"
        return ", ".join(map(str, self.treatments(layers)))


def grid(tops: Sequence[int], subsets: Sequence[str], seeds: int) -> list[Cell]:
    """All fine-tunings, first all of one seed, so that an interrupted recipe has whole comparisons."""
    return [Cell(top, subset, seed) for seed in range(seeds) for subset in subsets for top in tops]


def check_grid(tops: Sequence[int], subsets: Sequence[str], there: float, layers: int | None) -> None:
    """Refuses what cannot be compared.

    Args:
        tops: how many top layers begin anew, of which one must be 0.
        subsets: how much speech.
        there: seconds of speech that there are to train on.
        layers: of the model; None where it is not known yet.

    Raises:
        TrainingError: one is no number of layers or amount of speech, comes twice, or is more than there is.
    """
    for what, given in (("number of layers", tops), ("subset", subsets)):
        if len(set(given)) < len(given) or not given:
            raise TrainingError(f"{given} names a {what} twice, or none", "Name each once.")
    if 0 not in tops:
        raise TrainingError("There is nothing to compare with", "Have --top include 0.")
    wrong = next((one for one in tops if one < 0 or (layers is not None and one > layers)), None)
    if wrong is not None:
        raise TrainingError(f"{wrong} top layers of {layers or 'a model'} cannot begin anew", "Correct --top.")
    for one in subsets:
        if seconds_of(one) > there:
            raise TrainingError(
                f"A subset of {one} cannot be taken of {there / 3600:.2f} h of speech to train on",
                "Choose shorter subsets (--subsets), or more speech (--hours, --train).",
            )


def layers_of(model: str) -> int | None:
    """How many layers a model has, by its configuration; None for a name of the Hub, which nothing is fetched of.

    Raises:
        CheckpointError: there is no such folder.
        ModelError: there is no such embedded model.
    """
    folder = embedded_model(model) or Path(model)
    if (folder / "config.json").is_file():
        return int(json.loads((folder / "config.json").read_text())["num_hidden_layers"])
    if folder.exists() or model.count("/") != 1 or model.startswith(("/", ".")):
        raise CheckpointError(f"There is no model in {model}", "Name a folder, an embedded model, or OWNER/NAME.")
    return None
