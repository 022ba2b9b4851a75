"""Change one thing in a module at a time, and see whether its tests notice.

    python tests/mutants.py --each 4

makes seeded mutants of the modules below (a comparison turned, a sum for a difference, a
condition denied, a constant moved, a returned value left out), runs the tests named beside each
in a copy of the repository, and prints which were caught. A mutant that survives is printed with
its place: either a test is missing, or the change makes no difference.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Module -> tests that are of it; all quick, none loads TensorFlow for long.
MODULES = {
    "data/triplet_tables": "test_triplet_columns test_triplet_tables",
    "data/text_files": "test_text_files test_triplets",
    "data/outputs": "test_outputs test_unfinished",
    "data/splits/image_draws": "test_image_split",
    "evaluation/answers": "test_answers test_answer_checks",
    "evaluation/scoring": "test_scoring",
    "evaluation/intervals": "test_intervals",
    "evaluation/compare": "test_compare",
    "data/pair_graph": "test_pair_graph",
    "data/votes": "test_votes",
    "data/labels": "test_labels",
    "data/label_triplets": "test_label_triplets",
    "features/store_checksums": "test_store",
    "collecting/choosing": "test_choosing",
    "search/exact": "test_neighbors test_search_parts",
}
# The slowest of them take 15 s; a mutant that loops for ever is caught too.
_MAX_S = 120
_TURNED = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--each", type=int, default=4, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modules", nargs="+", default=list(MODULES), metavar="ROOM/MODULE")
    options = parser.parse_args()
    n_caught = n_all = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "repository"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "_build", "__pycache__"))
        for module in options.modules:
            path = copy / "tripletkit" / f"{module}.py"
            whole = path.read_text(encoding="utf-8")
            if not pass_tests(copy, module):
                sys.exit(f"{module}: its tests fail without a mutant")
            rng = random.Random(f"{options.seed} {module}")
            mutants = list(make_mutants(whole))
            for what, text in rng.sample(mutants, min(options.each, len(mutants))):
                path.write_text(text, encoding="utf-8")
                is_caught = not pass_tests(copy, module)
                n_caught, n_all = n_caught + is_caught, n_all + 1
                print(f"{'caught  ' if is_caught else 'SURVIVED'}  {module}:{what}", flush=True)
            path.write_text(whole, encoding="utf-8")
    print(f"{n_caught} of {n_all} caught")


def make_mutants(text: str) -> Iterator[tuple[str, str]]:
    """Give what was changed, as `line: from -> to`, and the module with that one change."""
    n_nodes = len(list(ast.walk(ast.parse(text))))
    for index in range(n_nodes):
        tree = ast.parse(text)
        node = list(ast.walk(tree))[index]
        if isinstance(node, ast.stmt | ast.expr):
            before = unparse_first_line(node)
            if mutate(node) and before != unparse_first_line(node):
                what = f"{node.lineno}: {before} -> {unparse_first_line(node)}"
                yield what, ast.unparse(tree)


def unparse_first_line(node: ast.AST) -> str:
    """Give a node as text; of a condition, without what hangs on it."""
    return ast.unparse(node).partition("\n")[0]


def mutate(node: ast.AST) -> bool:
    """Change a node in place; return whether there is anything to change."""
    if isinstance(node, ast.Compare):
        node.ops[0] = _TURNED[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in _TURNED:
        node.op = _TURNED[type(node.op)]()
    elif isinstance(node, ast.If):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.Return) and node.value is not None:
        node.value = ast.Constant(None)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        node.value += 1
    else:
        return False
    return True


def pass_tests(copy: Path, module: str) -> bool:
    """Return whether the tests of a module pass in the copy; those that never end do not."""
    tests = [f"tests/{name}.py" for name in MODULES[module].split()]
    tests.append(f"tripletkit/{module}.py")  # its examples
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=_MAX_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    # 1: a test failed; 2: a module could not be imported; others: pytest itself was called wrongly
    if done.returncode not in (0, 1, 2):
        sys.exit(f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


if __name__ == "__main__":
    main()
