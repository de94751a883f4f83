"""The embedded models and speech: made by recipes/embedded, shipped with the package."""

from pathlib import Path

from otoscope.errors import ModelError

_HERE = Path(__file__).parent

# Speech by the name that commands take. Nothing is ever trained or tuned on "embedded", the examination.
SPEECH = {"embedded": _HERE / "speech" / "exam", "embedded:train": _HERE / "speech" / "train"}

# Models by the name that commands take: each as it began, along its pre-training, pre-trained, and trained for CTC.
MODELS = {
    f"embedded:{name}": _HERE / "models" / name
    for name in (
        "wav2vec2", "wav2vec2-initial", "wav2vec2-step-300", "wav2vec2-step-700", "wav2vec2-pretrained",
        "wavlm", "wavlm-initial", "wavlm-pretrained",
    )
}  # fmt: skip
MODELS["embedded"] = MODELS["embedded:wavlm"]


def embedded_model(name: str) -> Path | None:
    """The folder of an embedded model; None for any other name.

    Raises:
        ModelError: the name begins as those of embedded models do, and there is none of that name.

    >>> embedded_model("embedded:wavlm").name
    'wavlm'
    """
    if name not in MODELS and name.startswith("embedded:"):
        raise ModelError(f"There is no embedded model {name!r}", f"Choose one of {', '.join(sorted(MODELS))}.")
    return MODELS.get(name)
