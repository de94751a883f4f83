"""All benchmarks; exit status 1 where a limit is passed."""

from benchmarks import banded, correlations, federated, leave_one_out, memory, moments, pass_cost, resets, tap

if __name__ == "__main__":
    found = [
        one.main() for one in (pass_cost, moments, correlations, memory, tap, leave_one_out, resets, banded, federated)
    ]
    raise SystemExit(not all(found))
