"""`python -m vlmbench.embedded`: draw the data, train a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlmbench.embedded import train


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m vlmbench.embedded", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("data", help="draw the validation and test splits again")
    teach = commands.add_parser(
        "train", help="train a checkpoint; most begin with another that ships"
    )
    teach.add_argument("name", choices=train.SCHOOLS)
    teach.add_argument("--work", type=Path, default=Path(".training"), help="states, to resume")
    options = parser.parse_args()
    if options.command == "data":
        from vlmbench.embedded import store

        store.write_all()
    else:
        train.run(options.name, options.work / options.name)


if __name__ == "__main__":
    main()
