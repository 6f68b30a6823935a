"""`python -m benchmarks NAME [options]`: measures, and prints one JSON object as the last line.

`--list` names the benchmarks. Each is a module here with a function `main(argv) -> dict`. What is
measured is the domain as machine code (`infra.compiled`), which the first run takes a minute or two
to compile; where that cannot be, it is the interpreted one, and the result says so.
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
from pathlib import Path

from infra import compiled
from infra.maven import SetupError


def benchmarks() -> dict[str, str]:
    """Name and purpose of each."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        tree = ast.parse(file.read_text())
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        if "main" in names and file.name != Path(__file__).name:
            found[file.stem.replace("_", "-")] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def main() -> None:
    known = benchmarks()
    name, *options = sys.argv[1:] or ["--help"]
    if name == "--list":
        for each, purpose in known.items():
            print(f"{each:10}  {purpose}")
    elif name in known:
        result = {"compiled": _compiled()}
        result |= importlib.import_module(f"benchmarks.{name.replace('-', '_')}").main(options)
        print(json.dumps(result, sort_keys=False))
    else:
        print(__doc__, file=sys.stderr)
        sys.exit(f"benchmarks: {', '.join(known)}")


def _compiled() -> bool:
    try:
        compiled.build()
    except SetupError as error:
        print(error, file=sys.stderr)
    return compiled.use()


if __name__ == "__main__":
    main()
