"""Tables of what was measured, for the page on the embedded family."""

from pathlib import Path
from typing import Any

START, END = "<!-- measured: written by recipes/embedded -->", "<!-- end of what was measured -->"


def tell(page: Path, outcome: dict[str, Any]) -> None:
    """Puts the tables between the page's marks."""
    before, _, rest = page.read_text().partition(START)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{START}\n{tables(outcome)}{END}{after}")


def tables(outcome: dict[str, Any]) -> str:
    """All tables, as Markdown."""
    return "\n".join([_recognition(outcome), _voices(outcome), _pretext(outcome), _heads(outcome), _left_out(outcome)])


def _percent(estimate: list[float]) -> str:
    value, low, high = (100 * one for one in estimate)
    # A single speaker has no interval.
    return f"{value:.1f} %" if low != low else f"{value:.1f} % ({low:.1f} to {high:.1f})"


def _plain(estimate: list[float]) -> str:
    return f"{estimate[0]:.3f} ({estimate[1]:.3f} to {estimate[2]:.3f})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _recognition(outcome: dict[str, Any]) -> str:
    rows = []
    for name, told in outcome["recognition"].items():
        rows.append([
            f"`{name}`", _percent(told["wer_espeak"]), _percent(told["wer_flite"]), _percent(told["wer_all"]),
            _percent(told["cer_all"]), _plain(told["ctc_loss_all"]), f"{100 * told['wer_espeak_without_attention']:.1f} %",
        ])  # fmt: skip
    head = [
        "model", "WER, eight espeak-ng voices", "WER, the flite voice", "WER, all", "CER, all", "CTC loss, nats a token",
        "WER (espeak-ng) with all attention silenced",
    ]  # fmt: skip
    return _table(head, rows)


def _voices(outcome: dict[str, Any]) -> str:
    told = {name: found["wer_by_voice"] for name, found in outcome["recognition"].items()}
    voices = sorted(next(iter(told.values())))
    rows = [[voice, *(f"{100 * found[voice]:.1f} %" for found in told.values())] for voice in voices]
    return _table(["voice", *(f"WER of `{name}`" for name in told)], rows)


def _pretext(outcome: dict[str, Any]) -> str:
    rows = []
    for name, told in outcome["self_supervised"].items():
        (loss, loss_value), (_, accuracy) = told.items()
        rows.append([f"`{name}`", loss.removesuffix("-loss").replace("-", " "), _plain(loss_value), _percent(accuracy)])
    return _table(["model", "task", "loss, nats a masked frame", "accuracy"], rows)


def _heads(outcome: dict[str, Any]) -> str:
    rows = [
        [
            f"`{name}`",
            str(told["heads"]),
            f"{told['high']} ({told['surely_high']})",
            f"{told['low']} ({told['surely_low']})",
        ]
        for name, told in outcome["heads"].items()
    ]
    return _table(["model", "heads", "I > 0.5 nat (interval too)", "I < 0.1 nat (interval too)"], rows)


def _left_out(outcome: dict[str, Any]) -> str:
    rows = []
    for name, told in outcome["heads_left_out"].items():
        value, low, high = told["costs"][told["worst"]]
        rows.append([
            f"`{name}`", f"{100 * told['wer']:.1f} %", told["worst"], f"{value:.1f} ({low:.1f} to {high:.1f})",
            f"{told['cheap']} of {told['heads']}",
        ])  # fmt: skip
    head = [
        "model",
        "WER with all heads",
        "worst head to leave out",
        "its cost in points",
        "heads that cost less than 0.5 points",
    ]
    return _table(head, rows)
