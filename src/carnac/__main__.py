"""`python -m carnac` is `carnac`."""

from carnac.cli import main

if __name__ == "__main__":
    main()
