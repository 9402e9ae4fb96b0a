import sys
from pathlib import Path

# importlib mode keeps test folders off the path; split_cases.py is shared by the tests here
sys.path.append(str(Path(__file__).parent))
