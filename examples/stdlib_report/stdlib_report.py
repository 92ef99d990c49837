"""The functions of the stdlib-report workflow: plain Python, nothing but the standard library, nothing of Node Flow."""

import ast
import sysconfig
import tokenize
from collections import Counter
from pathlib import Path
from typing import TypedDict

LIBRARY = Path(sysconfig.get_path("stdlib"))
NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
TOP = 10

BLOCKS = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Try,
    ast.TryStar,
    ast.Match,
)


class Module(TypedDict):
    """What was measured of a module."""

    module: str
    lines: int
    functions: int
    classes: int
    nesting: int
    deepest_line: int
    imports: list[str]


class Importers(TypedDict):
    """How many modules import a module."""

    module: str
    importers: int


class Report(TypedDict):
    """Everything, of all modules."""

    python: str
    modules: list[Module]
    imported: list[Importers]


class Summary(TypedDict):
    """The heads of the tables."""

    modules: int
    lines: int
    functions: int
    classes: int
    largest: list[Module]
    deepest: list[Module]
    most_imported: list[Importers]


def discover() -> list[str]:
    """Return the paths of all modules, relative to the library, sorted; tests and installed packages left out."""
    found = (path.relative_to(LIBRARY) for path in LIBRARY.rglob("*.py"))
    return sorted(str(path) for path in found if not NOT_LIBRARY.intersection(path.parts))


def analyse(path: str) -> Module:
    """Measure one module."""
    # tokenize.open heeds the encoding that a file declares.
    with tokenize.open(LIBRARY / path) as file:
        source = file.read()
    tree = ast.parse(source, filename=path)
    nodes = list(ast.walk(tree))
    nesting, line = deepest(tree)
    return Module(
        module=module_name(path),
        lines=source.count("\n"),
        functions=sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes),
        classes=sum(isinstance(node, ast.ClassDef) for node in nodes),
        nesting=nesting,
        deepest_line=line,
        imports=sorted(imports(nodes)),
    )


def report(modules: list[Module]) -> Report:
    """Put all modules together; large enough to become an artifact by itself."""
    counted = Counter(name for module in modules for name in module["imports"])
    return Report(
        python=sysconfig.get_python_version(),
        modules=sorted(modules, key=lambda module: module["module"]),
        imported=[Importers(module=name, importers=count) for name, count in counted.most_common()],
    )


def summary(report: Report) -> Summary:
    """Return the totals and the heads of the tables."""
    modules = report["modules"]
    return Summary(
        modules=len(modules),
        lines=sum(module["lines"] for module in modules),
        functions=sum(module["functions"] for module in modules),
        classes=sum(module["classes"] for module in modules),
        largest=sorted(modules, key=lambda module: -module["lines"])[:TOP],
        deepest=sorted(modules, key=lambda module: -module["nesting"])[:TOP],
        most_imported=report["imported"][:TOP],
    )


def module_name(path: str) -> str:
    """Return the dotted name of a module file."""
    parts = Path(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(nodes: list[ast.AST]) -> set[str]:
    """Return the top-level packages that a module imports by name."""
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in found}


def deepest(tree: ast.Module) -> tuple[int, int]:
    """Return how deep blocks are nested, and the line where that is."""
    best = (0, 1)
    stack: list[tuple[ast.AST, int]] = [(tree, 0)]
    while stack:
        node, depth = stack.pop()
        for child in ast.iter_child_nodes(node):
            # An elif is written beside its if, although the tree has it inside.
            is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
            inner = depth + (isinstance(child, BLOCKS) and not is_elif)
            if inner > best[0]:
                best = (inner, getattr(child, "lineno", 1))
            stack.append((child, inner))
    return best
