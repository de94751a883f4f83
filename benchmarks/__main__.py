"""All benchmarks; exit status 1 where a limit is passed."""

from benchmarks import correlations, memory, moments, pass_cost

if __name__ == "__main__":
    raise SystemExit(not all([pass_cost.main(), moments.main(), correlations.main(), memory.main()]))
