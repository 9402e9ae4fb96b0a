"""The layers hold, and nothing heavy is imported before it is needed."""

import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "mlflow", "great_expectations", "transformers", "sklearn", "pandas", "optuna")


def test_every_import_goes_down() -> None:
    from importlinter.cli import lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_help_answers_at_once_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['rarealert', '--help']\n"
        "from rarealert.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr.strip() == "[]"
    # Processor time: 0.3 s here. Wall time would measure how busy the machine is.
    assert after.ru_utime - before.ru_utime < 1.0
    assert "not a diagnosis" in " ".join(done.stdout.split())
