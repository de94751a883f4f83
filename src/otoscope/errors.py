"""Every error that otoscope raises on purpose: a cause, a place and a cure, in one small hierarchy."""


class OtoscopeError(ValueError):
    """What all of otoscope's errors have in common.

    Args:
        problem: what is wrong and where (path, shape, name).
        cure: what the user can do about it, a full sentence.
    """

    def __init__(self, problem: str, cure: str = "") -> None:
        self.problem = problem.rstrip(".")
        self.cure = cure
        super().__init__(f"{self.problem}. {cure}".strip() if cure else self.problem)


class SpeechError(OtoscopeError):
    """Speech that cannot be used: see the subclasses."""


class AudioError(SpeechError):
    """A recording is missing, unreadable, empty, too short or not finite."""


class TranscriptError(SpeechError):
    """A transcript is missing, or stands without its recording."""


class AlignmentError(SpeechError):
    """Timed labels overlap, run past the end, or cannot be read."""


class CorpusError(SpeechError):
    """A corpus cannot be read as a whole: no recordings, no manifest, an absent tier."""


class TableError(SpeechError):
    """A table of words or of pairs of words cannot be read: a wrong width, no number, no vocabulary."""


class ModelError(OtoscopeError):
    """A model cannot be loaded or examined."""


class UnknownFamilyError(ModelError):
    """The model belongs to no family that otoscope has a table for."""


class CheckpointError(ModelError):
    """A checkpoint is incomplete, unreachable or does not fit its configuration."""


class CaptureError(ModelError):
    """What a forward pass gave is not what the anatomy promises."""


class HeadError(ModelError):
    """A model lacks the head that is asked for."""


class VocabularyError(ModelError):
    """A CTC head has no vocabulary, one that does not fit it, or none for a character of a transcript."""


class SurgeryError(ModelError):
    """An edit names nothing that the model has, does not fit it, or would change nothing."""


class TreatmentError(ModelError):
    """A treatment does not fit the model, or another treatment; or a treated folder is not what was written."""


class PlanError(OtoscopeError):
    """A plan cannot be read, or does not belong to the model."""


class EvaluationError(OtoscopeError):
    """An evaluation cannot give a number here that would be right."""


class NotFiniteError(CaptureError, EvaluationError):
    """A model gives, or a metric would count, a value that is not finite."""


class MeasureError(OtoscopeError):
    """A measure cannot give a number here that would be right."""


class StateError(OtoscopeError):
    """Two states cannot be merged, or a saved state cannot be read."""


class ResultError(OtoscopeError):
    """A saved diagnosis cannot be read or written."""


class TrainingError(OtoscopeError):
    """A training cannot start, go on or store its result."""


class StorageError(TrainingError):
    """What a training makes cannot be stored: the disk is full, or is not to be written to."""


class FederationError(OtoscopeError):
    """A federated training cannot start, go on or store its result."""


class MissingPackageError(OtoscopeError, ImportError):
    """A system package or an optional extra is absent."""
