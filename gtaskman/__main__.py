"""``python -m gtaskman``: the same as the command ``gtaskman``."""

from gtaskman.cli.main import main

if __name__ == "__main__":
    main(prog_name="gtaskman")
