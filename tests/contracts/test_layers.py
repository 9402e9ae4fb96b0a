"""Rooms use only rooms below them, and nothing heavy is imported before it is needed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "mlflow", "great_expectations", "transformers", "sklearn", "pandas", "optuna")


def test_every_import_goes_down() -> None:
    from importlinter.cli import lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['rarealert', '--help']\n"
        "from rarealert.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "not a diagnosis" in " ".join(done.stdout.split())
