"""One term for one thing: classes and files have names of their own; modules import one way."""

import ast
from collections import defaultdict
from pathlib import Path

import grimp
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

SOURCE = Path(__file__).parents[2] / "src"


def test_a_class_name_has_one_meaning() -> None:
    places = defaultdict(list)
    for file in SOURCE.rglob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(file.relative_to(SOURCE).as_posix())
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_a_file_name_has_one_meaning() -> None:
    places = defaultdict(list)
    for file in SOURCE.rglob("*.py"):
        if file.name != "__init__.py":
            places[file.name].append(file.relative_to(SOURCE).as_posix())
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_no_two_modules_import_each_other() -> None:
    # annotations may point both ways: they import nothing when the code runs
    graph = grimp.build_graph("rarealert", cache_dir=None, exclude_type_checking_imports=True)
    modules = sorted(graph.modules)
    place = {name: at for at, name in enumerate(modules)}
    edges = [(m, d) for m in modules for d in graph.find_modules_directly_imported_by(m)]
    rows, columns = zip(*((place[m], place[d]) for m, d in edges), strict=True)
    size = len(modules)
    links = csr_array(([1] * len(edges), (rows, columns)), shape=(size, size))
    _, group = connected_components(links, directed=True, connection="strong")
    circles = defaultdict(list)
    for name, number in zip(modules, group, strict=True):
        circles[number].append(name)
    assert [names for names in circles.values() if len(names) > 1] == []
