"""All benchmarks; exit status 1 where a limit is passed."""

from benchmarks import memory, pass_cost

if __name__ == "__main__":
    raise SystemExit(not all([pass_cost.main(), memory.main()]))
