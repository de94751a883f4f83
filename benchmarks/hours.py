"""Whether peak memory is that of 10 minutes after 5 hours of speech; takes about half an hour."""

import subprocess
import sys

from benchmarks.memory import LIMIT

SECONDS = 5.0
LENGTHS = {"10 minutes": 600, "5 hours": 18_000}


def peak(seconds: float) -> float:
    """Peak resident memory of a process of its own, in MB."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.hours", str(int(seconds / SECONDS))],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def child(utterances: int) -> None:
    """Runs the pass, and prints this process's peak."""
    import tempfile
    from pathlib import Path

    import torch
    import transformers

    from benchmarks.material import peak_memory
    from otoscope.diagnosis import Observation
    from otoscope.models import load
    from otoscope.speech import read_corpus

    torch.set_num_threads(1)
    torch.manual_seed(0)
    # As many and as wide layers as wav2vec 2.0 Base has, so that states are as large; the rest is thin, to be quick.
    config = transformers.Wav2Vec2Config(intermediate_size=64, conv_dim=(32,) * 7, num_conv_pos_embedding_groups=64)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "speech"
        write = (
            "from benchmarks.material import labelled_noise\nfrom otoscope.speech import write_corpus\n"
            f"write_corpus(labelled_noise({utterances}, {SECONDS}), {str(place)!r}, format='wav')\n"
        )
        # In another process, so that what grows is not the benchmark's own samples.
        subprocess.run([sys.executable, "-c", write], check=True)
        corpus = read_corpus(place)
        observation = Observation.prepare(
            load(transformers.Wav2Vec2Model(config).eval()), corpus, "layers,heads,blocks"
        )
        observation.update(batch_seconds=4 * SECONDS)
        assert len(observation.seen) == utterances
    print(peak_memory())


def main() -> bool:
    """Prints both peaks and their ratio."""
    few, many = (peak(seconds) for seconds in LENGTHS.values())
    print(f"peak memory: 10 minutes {few:.0f} MB, 5 hours {many:.0f} MB, ratio {many / few:.3f} (limit {LIMIT})")
    return many / few <= LIMIT


if __name__ == "__main__":
    if len(sys.argv) == 2:
        child(int(sys.argv[1]))
    else:
        raise SystemExit(not main())
