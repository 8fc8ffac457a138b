"""A longer search for files that break a reader, guided by coverage. Any traceback is a bug.

    pip install atheris
    python tests/fuzz.py safetensors -max_total_time=600      (options of libFuzzer)
"""
import sys
import tempfile
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

with atheris.instrument_imports(include=["parity", "training"]):
    import jt_models  # noqa: F401
    from test_damaged import FORMATS, readable


def main() -> None:
    if sys.argv[1:2] == [] or sys.argv[1] not in FORMATS:
        sys.exit(f"{__doc__}\nFORMAT is one of: {', '.join(FORMATS)}")
    kind = FORMATS[sys.argv.pop(1)]
    with tempfile.TemporaryDirectory() as folder:
        start, place = Path(folder) / "start", Path(folder) / "work"
        start.mkdir()
        place.mkdir()
        (start / "good").write_bytes(kind.good)

        def one(data: bytes) -> None:
            (place / kind.name).write_bytes(data)
            readable(kind, place / kind.name, same=False)

        atheris.Setup([*sys.argv, str(start)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
