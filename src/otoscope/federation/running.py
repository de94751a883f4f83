"""A federated training in its folder: begun or taken up, one round after another, ended with a true status."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from otoscope.errors import FederationError, OtoscopeError
from otoscope.evaluation.error_rates import CharacterErrorRate, WordErrorRate
from otoscope.evaluation.metric import recognise
from otoscope.federation.checkpoints import keep_latest, load_checkpoint, save_checkpoint
from otoscope.federation.result import FAILED, RESULT, FederationResult, RoundRow
from otoscope.federation.server import Reply, Server
from otoscope.models.frontends import write_frontend
from otoscope.models.recogniser import Recogniser
from otoscope.models.vocabulary import Vocabulary
from otoscope.speech.corpus import Corpus
from otoscope.speech.locking import alone_in
from otoscope.speech.utterance import Utterance
from otoscope.training.folders import INITIAL, RUN, SETTINGS, put_model, replace_text, without_bars
from otoscope.training.vocabulary import write_vocabulary
from otoscope.treatments.folders import has_record, save_treated

Report = Callable[[FederationResult, RoundRow], None]

ENGINE = "flower"  # folder within a run's, for what the engine writes
_FREE = ("tolerance", "timeout", "keep")  # settings that no number depends on
_UNTOLD = ("weights", "clients", "held_out", "privacy")  # hashes, speech, and what holds the seed of the noise


class Run:
    """A federated training that is under way; a context, on leaving which the result file tells how it ended.

    Args:
        server: before its first round.
        vocabulary: of the model's CTC head.
        held_out: speech that no client has; may be empty, and nothing is then evaluated.
        folder: gets the trained model, `federation.json`, `initial/` with the model that it began with, and `run/` with
            the states that an interrupted run is taken up from.
        speech: fingerprints of the clients' speech, by client.
        runner: "local", "ray" or "deploy".
        resume: go on with an interrupted run; the model, the speech of all clients, rates and settings must be the same,
            but for `tolerance`, `timeout` and `keep`.
        report: called with the result so far and each new row.
        asked: how the rates were come by, for the result.

    Attributes:
        server: as given.
        result: as it stands.
    """

    def __init__(
        self,
        server: Server,
        vocabulary: Vocabulary,
        held_out: Sequence[Utterance],
        folder: Path,
        speech: Mapping[str, str],
        runner: str = "local",
        resume: bool = False,
        report: Report | None = None,
        asked: Mapping[str, Any] | None = None,
    ) -> None:
        self.server, self._vocabulary, self._held_out, self._folder = server, vocabulary, held_out, folder
        self._speech, self._resume, self._report = speech, resume, report
        settings = server.settings.to_dict()
        if settings["privacy"] is not None:
            settings["privacy"]["seed"] = (
                None  # the result goes with the model, and who knows it can take the noise away
            )
        begun_with = server.model().fingerprint()
        self.result = FederationResult(
            server.name, server.clients, runner, server.rates, settings, asked=dict(asked or {}), fingerprint=begun_with
        )
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Run:
        """Opens the folder, takes up the latest state, and evaluates the model that the run begins with.

        Raises:
            FederationError: the folder holds a model, an interrupted run, another run or something else; or there is
                nothing to go on with; or another process is at work there.
        """
        with contextlib.ExitStack() as stack:
            check_run_folder(self._folder, self._resume)
            self._folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone(self._folder))
            self._same_settings()
            state = load_checkpoint(self._folder)
            if state is None:
                put_recogniser(self._recogniser(), self._folder / INITIAL)
                self.result = replace(self.result, initial=self._figures())
            else:
                done, tensors, facts = state
                self.server.restore(tensors, done)
                rows = tuple(RoundRow.from_dict(row) for row in facts["rows"])
                self.result = replace(self.result, initial=facts["initial"], rows=rows)
            self.result.save(self._folder)
            self._held = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._held:
            if self.result.status != "running":
                return
            self.result = self.result.ended(reason_of(error) or "it was left before the last round")
            # The disk may be full, and what went wrong first counts.
            with contextlib.suppress(FederationError):
                self.result.save(self._folder)

    def finish(
        self, round: int, replies: Sequence[Reply], failures: Mapping[str, str], seconds: float = 0.0
    ) -> RoundRow:
        """Ends a round: the server's step, figures on held-out speech, the state and the result on disk.

        Args:
            round: its number.
            replies: of clients.
            failures: why clients could not answer, by client.
            seconds: that the round took.

        Raises:
            FederationError: see `Server.receive`, or the state cannot be written.
        """
        settings = self.server.settings
        row = self.server.receive(round, replies, failures, seconds)
        if round % settings.evaluate_every == 0 or round == settings.rounds:
            row = replace(row, held_out=self._figures())
        self.result = self.result.with_row(row)
        facts = {"initial": dict(self.result.initial), "rows": [one.to_dict() for one in self.result.rows]}
        save_checkpoint(self._folder, round, self.server.tensors(), facts)
        keep_latest(self._folder, settings.keep)
        self.result.save(self._folder)
        if self._report is not None:
            self._report(self.result, row)
        return row

    def complete(self) -> FederationResult:
        """Stores the trained model, and ends the run.

        Raises:
            FederationError: rounds are left, or the model cannot be written.
        """
        left = self.server.settings.rounds - self.server.done
        if left:
            raise FederationError(f"{left} of {self.server.settings.rounds} rounds are left to train", "Train them.")
        try:
            put_recogniser(self._recogniser(), self._folder)
        except OSError as error:
            raise FederationError(
                f"The model cannot be written to {self._folder} ({error})", "Make room, and go on with --resume."
            ) from error
        self.result = self.result.ended()
        self.result.save(self._folder)
        for path in (self._folder / RUN).glob("round-*"):
            shutil.rmtree(path, ignore_errors=True)
        return self.result

    def _recogniser(self) -> Recogniser:
        return Recogniser(self.server.model(), self._vocabulary)

    def _figures(self) -> dict[str, float]:
        """WER and CER of greedy decoding; none where there is no speech to take them on."""
        if not self._held_out:
            return {}
        speech = Corpus("held out", tuple(self._held_out))
        found = recognise((WordErrorRate(), CharacterErrorRate()), self._recogniser(), speech)
        return {name: scores.value for name, scores in found.items()}

    def _same_settings(self) -> None:
        """Stores what the result depends on, or compares it with what the run was begun with.

        Raises:
            FederationError: it was begun with something else, or cannot be read or written.
        """
        server = self.server
        given: dict[str, Any] = {
            name: value for name, value in server.settings.to_dict().items() if name not in _FREE
        } | {
            "rates": server.rates,
            "clients": {name: self._speech.get(name, "") for name in server.clients},
            "vocabulary": list(self._vocabulary.tokens),
            "held_out": [[one.id, one.n_samples, one.transcript] for one in self._held_out],
            "weights": weights_fingerprint(server.state),
        }
        now, place = json.loads(json.dumps(given)), self._folder / RUN / SETTINGS
        try:
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                replace_text(place, json.dumps(now, indent=1) + "\n")
            before = dict(json.loads(place.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise FederationError(
                f"{place} cannot be read or written ({error})", "Begin anew in another folder."
            ) from error
        for name in sorted({*now, *before}, key=lambda one: (one in ("weights", "clients"), one)):
            if now.get(name) != before.get(name):
                shown = "" if name in _UNTOLD else _difference(before.get(name), now.get(name))
                raise FederationError(
                    f"The run in {self._folder} was begun with other {name}{shown}",
                    "Resume with what it was begun with, or choose another folder.",
                )


def reason_of(error: BaseException | None) -> str:
    """Why a run ended, in one line; empty where nothing was raised."""
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted"
    told = str(error) if isinstance(error, OtoscopeError) else f"{type(error).__name__}: {error}"
    return " ".join(told.split()) if error is not None else ""


def check_run_folder(folder: Path, resume: bool) -> None:
    """Makes sure that a run may be begun or gone on with in a folder; to be called before long work.

    A run whose model lies there, but whose states were not yet removed, was ended between the two: it may be gone on with.
    What a deployment leaves that failed before its first round is in nobody's way.

    Raises:
        FederationError: the folder holds a model, an interrupted run or something else, or nothing to go on with.
    """
    begun = (folder / RUN / SETTINGS).exists()
    unended = begun and resume and any((folder / RUN).glob("round-*"))
    if (folder / "config.json").exists() and (begun or not resume) and not unended:
        raise FederationError(f"{folder} holds a model already", "Choose another folder, or remove that one first.")
    if begun and not resume:
        raise FederationError(
            f"{folder} holds an interrupted federated training", "Go on with --resume, or remove the folder."
        )
    left = {ENGINE, RESULT} if _without_rounds(folder) else {ENGINE}
    if not begun and folder.exists() and (not folder.is_dir() or any(one.name not in left for one in folder.iterdir())):
        raise FederationError(f"{folder} is not empty and holds no federated training", "Choose another folder.")
    if not begun and resume:
        raise FederationError(f"{folder} holds no federated training to go on with", "Leave out --resume.")


def _without_rounds(folder: Path) -> bool:
    """Whether the result file of a folder tells of a run that failed, and of no round."""
    with contextlib.suppress(FederationError):
        result = FederationResult.load(folder)
        return result.status == FAILED and not result.rows
    return False


def _difference(before: Any, now: Any) -> str:
    """How a setting differs; of one with parts, the first that does.

    >>> _difference(3, 4), _difference({"a": 1, "b": 2}, {"a": 1, "b": 3})
    (' = 3, not 4', ': b = 2, not 3')
    """
    if isinstance(before, dict) and isinstance(now, dict):
        name = min(one for one in {*before, *now} if before.get(one) != now.get(one))
        return f": {name} = {before.get(name)!r}, not {now.get(name)!r}"
    return f" = {before!r}, not {now!r}"


def put_recogniser(recogniser: Recogniser, folder: Path) -> None:
    """Stores a recogniser in a folder, `config.json` last; `otoscope.load` reads it."""
    source = recogniser.model.source

    def write(place: Path) -> None:
        if has_record(source):
            save_treated(source, place, frontend=recogniser.model.frontend)
        else:
            source.save_pretrained(place)  # type: ignore[operator]
            write_frontend(recogniser.model.frontend, place)
        write_vocabulary(recogniser.vocabulary, place)

    with without_bars():
        put_model(write, folder)


def weights_fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """A hash of tensors, their names and shapes."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def alone(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keeps other trainings out of a folder.

    Raises:
        FederationError: another process trains there.
    """
    cure = "Wait until it is done, or choose another folder."
    return alone_in(folder, FederationError(f"Another process trains in {folder}", cure))
