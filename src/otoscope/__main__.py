"""`python -m otoscope`: the command line."""

from otoscope.cli import main

if __name__ == "__main__":
    main()
