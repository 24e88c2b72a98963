"""`python -m cody.cli`: the same as `cody`."""

from cody.cli.app import main

if __name__ == "__main__":
    main()
