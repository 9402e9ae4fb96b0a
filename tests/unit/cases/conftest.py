import sys
from pathlib import Path

# importlib mode keeps test folders off the path; published_files.py is shared by the tests here
sys.path.append(str(Path(__file__).parents[1] / "sources"))
