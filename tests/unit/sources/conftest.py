"""What the tests of the readers share: importlib mode keeps test folders off the path."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
