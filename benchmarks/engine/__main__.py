"""`python -m benchmarks.engine`: see compare.py."""

from .compare import main

if __name__ == "__main__":
    main()
