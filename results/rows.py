"""Tables with one row for each net, in a JSON file."""
from __future__ import annotations

import json
from pathlib import Path

from training.files import write_json


def renew(path: Path, nets: list[str], make, tell) -> None:
    """Make the rows of `nets` anew in the table at `path`, sorted by net, each saved as it is done.

    Args:
        make: function of a net that gives its row, with "net".
        tell: function of a row that gives the words to print of it, after the net.
    """
    for net in nets:
        made = make(net)
        rows = {row["net"]: row for row in json.loads(path.read_text())} if path.is_file() else {}
        rows[net] = made
        write_json(path, [rows[name] for name in sorted(rows)])
        print(f"{net}: {tell(made)}", flush=True)
