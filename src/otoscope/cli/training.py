"""Commands that train: pretrain and finetune."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

from cyclopts import Parameter

from otoscope.cli.app import Flag, Json, Range, app, use_threads
from otoscope.cli.training_log import Log

Place = Annotated[Path, Parameter(name=["--output", "-o"])]


@Parameter(name="*")
@dataclass(frozen=True)
class Run:
    """How a training runs; the same for both commands.

    Parameters
    ----------
    steps
        Updates of the weights.
    batch_seconds
        Seconds of padded speech in a batch, on each process.
    accumulate
        Batches an update.
    learning_rate
        The highest; it rises at first and falls along a cosine at the end.
    seed
        Of weights, batches, masks and noise.
    precision
        float32, or bfloat16 or (on a GPU) float16 for mixed precision.
    keep
        Steps whose model is kept as well, as DIR/step-N, separated by commas; DIR/initial always is.
    save_every
        Steps between the states that an interrupted run is taken up from.
    evaluate_every
        Steps between looks at held-out speech.
    log_every
        Steps between lines of progress.
    plan
        A plan (TOML) that the model is treated by first.
    any_weights
        Take a plan that was made for a model of the same sizes and other weights.
    subset
        How much of the speech to train on: 10min, 1h, 10h and the like, or seconds. Chosen by the seed, balanced over
        speakers; a shorter subset is part of a longer one.
    dev
        Speech to watch the training with. Default: speakers of CORPUS are held out.
    hold_out
        Share of the speakers to hold out.
    noise
        Share of the utterances that noise is added to.
    telephone
        Share of the utterances that lose everything above 4 kHz.
    skip_bad
        Leave out utterances that cannot be used, and list them.
    resume
        Go on with an interrupted run.
    tensorboard
        Log for TensorBoard too, in DIR/run.
    threads
        Threads on the CPU; for small models, or beside other work, one is the quickest.
    as_json
        Print the outcome as JSON, and the log on stderr.
    """

    steps: int = 1000
    batch_seconds: float = 40.0
    accumulate: int = 1
    learning_rate: float = 1e-3
    seed: int = 0
    precision: str = "float32"
    keep: str = ""
    save_every: int = 200
    evaluate_every: int = 200
    log_every: int = 20
    plan: Path | None = None
    any_weights: Flag = False
    subset: str | None = None
    dev: str | None = None
    hold_out: float = 0.05
    noise: float = 0.0
    telephone: float = 0.0
    skip_bad: Flag = False
    resume: Flag = False
    tensorboard: Flag = False
    threads: int | None = None
    as_json: Json = False

    def settings(self, patience: int = 0) -> Any:
        """As `TrainingSettings`.

        Raises:
            TrainingError: a number is out of its range, or a kept step is none.
        """
        from otoscope.errors import TrainingError
        from otoscope.training.settings import TrainingSettings

        try:
            kept = tuple(int(step) for step in self.keep.split(",") if step.strip())
        except ValueError as error:
            raise TrainingError(
                f"--keep {self.keep!r} names no steps", "Write numbers, as in --keep 300,700."
            ) from error
        return TrainingSettings(
            steps=self.steps, batch_seconds=self.batch_seconds, accumulate=self.accumulate,
            learning_rate=self.learning_rate, seed=self.seed, precision=self.precision, keep=kept,
            save_every=self.save_every, evaluate_every=self.evaluate_every, log_every=self.log_every,
            tensorboard=self.tensorboard, patience=patience,
        )  # fmt: skip

    def augmentation(self, speed: tuple[float, float] = (1.0, 1.0)) -> Any:
        """As `Augmentation`."""
        from otoscope.training.augmentation import Augmentation

        return Augmentation(noise=self.noise, telephone=self.telephone, speed=speed)

    def common(self, patience: int = 0) -> dict[str, Any]:
        """Arguments of both verbs; the plan is read, so that a slip in it is told before anything else is read.

        Raises:
            PlanError: the plan cannot be read.
            TrainingError: see `settings`.
        """
        from otoscope.plans.plan import Plan

        use_threads(self.threads)
        plan = None if self.plan is None else Plan.load(self.plan)
        return {
            "settings": self.settings(patience), "plan": plan, "any_weights": self.any_weights,
            "subset": self.subset, "dev": self.dev, "hold_out": self.hold_out, "skip_bad": self.skip_bad,
            "resume": self.resume,
        }  # fmt: skip


_RUN = Run()


@app.command
def pretrain(
    model: str = "wav2vec2",
    corpus: str = "embedded:train",
    *,
    output: Place,
    objective: str | None = None,
    layers: int | None = None,
    heads: int | None = None,
    width: int | None = None,
    feed_forward: int | None = None,
    mask: float | None = None,
    mask_span: int | None = None,
    mask_run: int | None = None,
    filling: str | None = None,
    clusters: int = 100,
    targets: str = "mfcc",
    run: Run = _RUN,
) -> None:
    """Train a model on speech without labels.

    MODEL is wav2vec2, hubert, wavlm or mockingjay for a new small model, or a folder or Hub name (OWNER/NAME) to go on
    from. With several processes: torchrun --nproc-per-node 2 -m otoscope pretrain ...

    Examples:

        otoscope pretrain wav2vec2 speech/train -o pretrained --steps 2000 --keep 500,1000
        otoscope pretrain wavlm speech/train -o wavlm --noise 0.5
        otoscope pretrain hubert speech/train -o second --targets wavlm:layer.5 --clusters 200
        otoscope pretrain mockingjay speech/train -o M3 --mask-run 3 --filling zero
        otoscope pretrain wav2vec2 speech/train -o custom --plan plan.toml
        otoscope pretrain wav2vec2 speech/train -o pretrained --steps 2000 --keep 500,1000 --resume

    Parameters
    ----------
    model
        Family of a new model (wav2vec2, hubert, wavlm or mockingjay), a folder, or a Hub name with a slash.
    corpus
        Folder, manifest, or `embedded:train`.
    output
        Folder for the model, DIR/initial, DIR/step-N and DIR/run (log and states).
    objective
        contrastive (wav2vec 2.0), clusters (HuBERT, WavLM) or reconstruction (Mockingjay). Default: what the family was
        made for.
    layers
        Layers of a new model (8).
    heads
        Heads a layer of a new model (4).
    width
        Width of a new model (192).
    feed_forward
        Inner width of a new model's feed-forwards (four times its width).
    mask
        Share of frames under masks if these did not overlap (0.65; for reconstruction 0.15).
    mask_span
        Frames a mask (10); not for reconstruction.
    mask_run
        For reconstruction: stacked frames of 30 ms a mask (3).
    filling
        For reconstruction, what stands in masked frames: zero, or mixed (80 % zeros, 10 % other frames, 10 % the frames
        themselves; the default).
    clusters
        How many clusters are predicted.
    targets
        What is clustered: mfcc, or FOLDER:STREAM of an earlier model.
    """
    from otoscope.training.architectures import Size
    from otoscope.workflow import pretrain as verb

    wide = width or Size().width
    sizes = {"layers": layers, "heads": heads, "width": width, "feed_forward": feed_forward}
    given: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    size = Size(**{"feed_forward": 4 * wide, **given}) if given else None
    common = run.common()
    with Log(run.as_json, run.steps, output) as log:
        outcome = verb(
            model, corpus, output, objective=objective, size=size, augmentation=run.augmentation(), mask=mask,
            mask_span=mask_span, mask_run=mask_run, filling=filling, clusters=clusters, targets=targets, report=log.line,
            **common,
        )  # fmt: skip
    # A Mockingjay has no CTC model to be made of.
    following = "diagnose" if outcome.objective == "reconstruction" else "finetune"
    log.outcome(outcome, f"otoscope {following} {quote(str(output))} CORPUS -o DIR")


@app.command
def finetune(
    model: str,
    corpus: str = "embedded:train",
    *,
    output: Place,
    mask: float = 0.05,
    mask_span: int = 6,
    feature_mask: float = 0.0,
    feature_span: int = 10,
    train_convolutions: Flag = False,
    at_least: float | None = None,
    open_at: int = 0,
    patience: int = 0,
    vocabulary: str | None = None,
    phone_layer: int | None = None,
    teacher: str | None = None,
    teacher_outputs: float | None = None,
    teacher_layers: float | None = None,
    speed: Range = (1.0, 1.0),
    run: Run = _RUN,
) -> None:
    """Train a copy of a model with CTC over the characters of the transcripts, or over pieces of words.

    A model with a CTC head keeps it and its vocabulary; any other gets a fresh head. A treated model keeps its
    treatments. With several processes: torchrun --nproc-per-node 2 -m otoscope finetune ...

    Examples:

        otoscope finetune pretrained speech/train -o recogniser --dev speech/dev --steps 2000
        otoscope finetune pretrained speech/train -o recogniser --steps 2000 --precision bfloat16 --noise 0.6
        otoscope finetune pretrained speech/train -o recogniser --subset 10min --vocabulary bpe:200 --open-at 400 --patience 5
        otoscope finetune recogniser speech/train -o smaller --plan plan.toml --teacher recogniser --steps 60
        otoscope evaluate recogniser speech/exam

    Parameters
    ----------
    model
        Folder, Hub name, or `embedded`.
    corpus
        Folder or manifest with transcripts, or `embedded:train`.
    output
        Folder for the model, DIR/initial, DIR/step-N and DIR/run (log and states).
    mask
        Share of frames under SpecAugment's masks over time, if these did not overlap.
    mask_span
        Frames a mask.
    feature_mask
        Share of channels (for Parakeet, of mel bands) under masks, if these did not overlap.
    feature_span
        Channels or bands a mask.
    train_convolutions
        Train the convolutions over samples too; they are left as they are otherwise.
    at_least
        Seconds that an utterance to train on lasts at least; shorter ones are withheld, for clients to adapt the model to.
    open_at
        Steps in which the head alone is trained, before the encoder is too.
    patience
        Evaluations without a lower word error rate after which the training ends; the best weights are kept then. 0 trains
        for all steps and keeps the last weights.
    vocabulary
        Of a fresh head: characters, or bpe:SIZE for so many pieces of words. Default: what the model has, or characters.
    phone_layer
        A layer with a frame-wise phone loss beside CTC, where the corpus has phone times; its head is not kept.
    teacher
        A trained model with the same vocabulary that is followed beside the transcripts, such as the model before its
        treatment.
    teacher_outputs
        Weight of the divergence from the teacher's outputs (3).
    teacher_layers
        Weight of the distance from what its layers give (1); 0 follows the outputs alone.
    speed
        Slowest and fastest speed that utterances are heard at.
    """
    from otoscope.errors import TrainingError
    from otoscope.training.ctc import CtcSettings
    from otoscope.training.teacher import TeacherSettings
    from otoscope.workflow import finetune as verb

    settings = CtcSettings(mask, mask_span, not train_convolutions, phone_layer, feature_mask, feature_span, open_at)
    weights = {"outputs": teacher_outputs, "layers": teacher_layers}
    given = {name: value for name, value in weights.items() if value is not None}
    if given and teacher is None:
        raise TrainingError("There is no teacher to follow", "Name one (--teacher MODEL).")
    following = TeacherSettings(**given) if given else None
    common = run.common(patience)
    with Log(run.as_json, run.steps, output) as log:
        outcome = verb(
            model, corpus, output, ctc=settings, augmentation=run.augmentation(speed), vocabulary=vocabulary,
            at_least=at_least, teacher=teacher, following=following, report=log.line, **common,
        )  # fmt: skip
    log.outcome(outcome, f"otoscope evaluate {quote(str(output))} CORPUS")
