"""Whether peak memory grows with the number of utterances."""

import subprocess
import sys

LIMIT = 1.05


def peak(utterances: int, seconds: float) -> float:
    """Peak resident memory of a process of its own, in MB."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", str(utterances), str(seconds)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout.split()[-1])


def child(utterances: int, seconds: float) -> None:
    """Runs the pass, and prints this process's peak."""
    import tempfile
    from pathlib import Path

    import torch

    from benchmarks.material import base_model, peak_memory
    from otoscope.diagnosis import Observation
    from otoscope.models import load
    from otoscope.speech import read_corpus

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        # On disk, as real speech is: what grows must not be the benchmark's own samples.
        place = Path(folder) / "speech"
        if subprocess.run(
            [sys.executable, "-c", _WRITE.format(utterances, seconds, str(place))], check=False
        ).returncode:
            raise SystemExit("the speech cannot be written")
        corpus = read_corpus(place)
        observation = Observation.prepare(load(base_model()), corpus)
        observation.update(batch_seconds=seconds)
        assert len(observation.seen) == utterances
    print(peak_memory())


_WRITE = (
    "from benchmarks.material import labelled_noise\n"
    "from otoscope.speech import write_corpus\n"
    "write_corpus(labelled_noise({}, {}), {!r}, format='wav')\n"
)


def main(seconds: float = 5.0) -> bool:
    """Prints both peaks and their ratio."""
    few, many = peak(10, seconds), peak(100, seconds)
    print(
        f"peak memory: 10 utterances {few:.0f} MB, 100 utterances {many:.0f} MB, ratio {many / few:.3f} (limit {LIMIT})"
    )
    return many / few <= LIMIT


if __name__ == "__main__":
    if len(sys.argv) == 3:
        child(int(sys.argv[1]), float(sys.argv[2]))
    else:
        raise SystemExit(not main())
