"""`python -m tests.mutation [--modules framing,grammar] [--sample 40 --seed 1]`: do the engine's tests see a mistake?

One small mistake at a time is made in a module of `pop3core` (a *mutant*), and `tests/pop3core` is run against it. A
mutant that no test notices survives: either a test is missing, or the mistake changes nothing. Such ones stand in
`EQUIVALENT` below, each with its reason, and do not count.

Tools that mutate functions only would leave out what matters most here, the rows of the table; so this is our own:

- mutants are texts: the mistake replaces its piece of the source, so comments, and tests that read them, stay;
- each worker has a copy of the tree of its own, taken once, so the tree may be edited while this runs;
- tests named like the module run first, then the fast ones; Hypothesis is seeded, has few examples, and never shrinks.
"""

import argparse
import ast
import copy
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
MODULES = "table,grammar,framing,login,server,client"
MEMORY_MAX = 3 * 1024**3  # octets of address space for one run: some mutants never stop growing

LEFT_OUT = (".git", ".venv*", ".hypothesis", ".*_cache", "__pycache__", ".coverage*", "*.egg-info")

_FALSY = "the caller asks only whether it is true"
_FASTER = "only the speed: the branch spares work that would change nothing"
_FIRST = "set again before it is read; it is there so that the attribute has a type"
_MEMORY = "only memory: what is cleared is never read again"

# Mistakes that change nothing that can be seen: (module, the line as it stands, the mutation) and why.
EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        "framing",
        "self._data = self._data[self._position :] + data if self._position < len(self._data) else data",
        "self._position < len(self._data) -> (self._position <= len(self._data))",
    ): "an empty rest is put before the data",
    ("framing", 'if b"\\r" in data:', "b\"\\r\" -> (b'')"): _FASTER,
    (
        "framing",
        'added = data.count(b"\\n") - data.count(b"\\r\\n") if b"\\r" in data else data.count(b"\\n")',
        "b\"\\r\" -> (b'')",
    ): _FASTER,
    (
        "framing",
        'if b"." in data:  # memchr: base64 has no dot, and most of what is large is base64',
        "b\".\" -> (b'')",
    ): _FASTER,
    ("framing", "self._tail = seen[-3:]", "3 -> (4)"): "three octets are enough, more do no harm",
    ("framing", "data = data[: end + 2]", "2 -> (3)"): "the dot that is kept too much is taken off as stuffing",
    (
        "framing",
        'data = _UNSTUFF.sub(b"\\r\\n", data) if b"." in data else data',
        "b\".\" -> (b'')",
    ): _FASTER,
    (
        "framing",
        'return _UNSTUFF.sub(b"\\r\\n", data) if b"." in data else data',
        "b\".\" -> (b'')",
    ): _FASTER,
    ("client", "self._octets = 0  # of that content, or of what is announced", "self._octets = 0 -> pass"): _FIRST,
    ("client", "self._octets = 0  # of that content, or of what is announced", "0 -> (1)"): _FIRST,
    ("client", "self._octets = 0  # of that content, or of what is announced", "0 -> (-1)"): _FIRST,
    ("client", 'return b""', 'return b"" -> return None'): _FALSY,
    ("client", "return False", "return False -> return None"): _FALSY,
    ("client", "self._lines.clear()", "self._lines.clear() -> pass"): _MEMORY,
    (
        "client",
        "return hashlib.md5(timestamp.encode() + prepared(password), usedforsecurity=False).hexdigest()",
        "False -> (True)",
    ): "differs only where OpenSSL forbids MD5",
    ("server", "self._target = self._state  # where +OK to the command under way leads",
     "self._target = self._state -> pass"): _FIRST,
    ("login", 'self.named = ""', 'self.named = "" -> pass'): _FIRST,
    ("server", "self._marks = Marks(Listing())", "self._marks = Marks(Listing()) -> pass"): _FIRST,
    ("server", "self._listing = Listing()", "self._listing = Listing() -> pass"): _FIRST,
    ("server", "self._asked = False  # the question was put to the driver", "False -> (True)"): _FIRST,
    ("server", "self._flush_first = True  # before the question is put", "self._flush_first = True -> pass"): _FIRST,
    ("server", "self._flush_first = True  # before the question is put", "True -> (False)"): _FIRST,
    ("server", "self._output.clear()", "self._output.clear() -> pass"): _MEMORY,
    ("server", "return", "return -> pass"): "finish behind the end: the end is told before anything else",
    ("server", "self._lines.clear()", "self._lines.clear() -> pass"):
        "what waits is never read: the end is told first, and clear text behind STLS has ended the session before",
    ("server", 'data = self._output[0] if len(self._output) == 1 else b"".join(self._output)', "1 -> (0)"): _FASTER,
    ("server", 'data = self._output[0] if len(self._output) == 1 else b"".join(self._output)', "0 -> (-1)"):
        "the first of one is the last",
    ("login", 'digest = hashlib.md5(self.timestamp.encode() + (secret or b""), usedforsecurity=False).hexdigest()',
     "False -> (True)"): "differs only where OpenSSL forbids MD5",
    ("server", "self._question = None", "self._question = None -> pass"): "another question takes its place",
    ("server", "return False", "return False -> return None"): _FALSY,
    ("maildrop", "piece, octets = [], 0", "0 -> (1)"): "a piece of a list may be an octet shorter",
    ("server", "self._lines.clear()  # nothing is valid behind QUIT", "self._lines.clear() -> pass"): _MEMORY,
}  # fmt: skip

PROFILE = """
from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "mutation",
    max_examples={examples},
    phases=(Phase.explicit, Phase.generate),
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("mutation")
"""

LAUNCH = """
import ctypes, resource, runpy, signal, sys
if sys.platform == "linux":  # a mutant may go on for ever: it ends with who started it (PR_SET_PDEATHSIG)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
runpy.run_module("pytest", run_name="__main__", alter_sys=True)
"""


# --- mutants ---


@dataclass(frozen=True)
class Mutant:
    """One mistake: in ``module``'s source, ``old`` becomes ``new``."""

    module: str
    line: int
    text: str
    """The line that it begins in, stripped."""
    old: str
    new: str
    source: str
    """All of the module, with the mistake."""

    @property
    def mutation(self) -> str:
        return f"{_short(self.old)} -> {_short(self.new)}"

    @property
    def key(self) -> tuple[str, str, str]:
        return self.module, self.text, self.mutation


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:45]} ... {text[-10:]}"


_COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_BOUND = re.compile(r"(?<=[{,])\d+(?=[,}])")


def mutants(module: str, source: str) -> list[Mutant]:
    """All single mistakes that this file knows to make in ``source``."""
    tree = ast.parse(source)
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    octets = source.encode()
    same = ast.dump(tree)
    found = []
    for node, new in _mistakes(tree):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        mutated = (octets[:begin] + new.encode() + octets[end:]).decode()
        try:
            if ast.dump(ast.parse(mutated)) == same:
                continue
            compile(mutated, module, "exec")
        except (SyntaxError, ValueError):
            continue
        text = lines[node.lineno - 1].decode().strip()
        found.append(Mutant(module, node.lineno, text, octets[begin:end].decode(), new, mutated))
    return found


def _mistakes(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Nodes, and what to write in their place."""
    yield from _rows(tree)
    for node, in_function in _walk(tree, False):
        if isinstance(node, ast.expr):
            for new in _expressions(node):
                yield node, f"({new})"
        elif isinstance(node, ast.stmt) and in_function:
            for new in _statements(node):
                yield node, new
        if isinstance(node, ast.If | ast.While) and isinstance(node.test, ast.Name | ast.Attribute | ast.Call):
            yield node.test, f"not {ast.unparse(node.test)}"


def _walk(node: ast.AST, in_function: bool) -> Iterator[tuple[ast.AST, bool]]:
    """All that is executed and can be seen: no annotations, decorators, assertions, docstrings or texts."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.arguments):
            # what a default of an argument is, is mutated all the same
            if isinstance(child, ast.arguments):
                for default in (*child.defaults, *(value for value in child.kw_defaults if value is not None)):
                    yield default, in_function
                    yield from _walk(default, in_function)
            continue
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and (
            child in node.decorator_list or child is getattr(node, "returns", None)
        ):
            continue
        if isinstance(node, ast.AnnAssign) and child is node.annotation:
            continue
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
            continue  # it is for type checkers
        if isinstance(node, ast.Assign | ast.AnnAssign) and _names(node) & {"__all__", "__slots__", "__match_args__"}:
            continue
        yield child, in_function
        yield from _walk(child, in_function or isinstance(child, ast.FunctionDef))


def _names(node: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _rows(tree: ast.Module) -> Iterator[tuple[ast.expr, str]]:
    """Tables: where a tuple holds calls of one function, each cell becomes another one of its column."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Tuple) or len(node.elts) < 2:
            continue
        rows = [row for row in node.elts if isinstance(row, ast.Call)]
        if len(rows) < len(node.elts) or len({ast.dump(row.func) for row in rows}) > 1:
            continue
        for column in zip(*(row.args for row in rows), strict=False):
            values = sorted({ast.unparse(cell) for cell in column})
            for cell in column:
                if len(values) > 1 and not (isinstance(cell, ast.Constant) and isinstance(cell.value, str)):
                    yield cell, values[(values.index(ast.unparse(cell)) + 1) % len(values)]


def _expressions(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Compare():
            for index, operator in enumerate(node.ops):
                for other in _COMPARED[type(operator)]:
                    changed = copy.deepcopy(node)
                    changed.ops[index] = other()
                    yield ast.unparse(changed)
        case ast.BoolOp(operator, values):
            yield ast.unparse(ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values))
        case ast.UnaryOp(ast.Not(), operand):
            yield ast.unparse(operand)
        case ast.UnaryOp(ast.USub(), operand):
            yield ast.unparse(operand)
        case ast.IfExp(test, body, orelse):
            yield ast.unparse(ast.IfExp(ast.UnaryOp(ast.Not(), test), body, orelse))
        case ast.BinOp(left, ast.Mod()) if isinstance(left, ast.Constant) and isinstance(left.value, str | bytes):
            pass
        case ast.BinOp(left, ast.BitOr(), right):  # mostly of classes
            yield ast.unparse(left)
            yield ast.unparse(right)
        case ast.BinOp(left, operator, right) if type(operator) in _COMPUTED:
            yield ast.unparse(ast.BinOp(left, _COMPUTED[type(operator)](), right))
        case ast.Constant(bool() as value):
            yield str(not value)
        case ast.Constant(int() as value):
            yield str(value + 1)
            yield str(value - 1)
        case ast.Constant(bytes() as value) if value:
            yield repr(b"")
        case ast.Call(ast.Attribute(ast.Name("re"), "compile"), [ast.Constant(str() | bytes() as pattern), *_]):
            shown = pattern.decode("latin-1") if isinstance(pattern, bytes) else pattern
            for found in _BOUND.finditer(shown):
                for value in (int(found[0]) + 1, int(found[0]) - 1):
                    text = f"{shown[: found.start()]}{value}{shown[found.end() :]}"
                    call = copy.deepcopy(node)
                    call.args[0] = ast.Constant(text.encode("latin-1") if isinstance(pattern, bytes) else text)
                    if value >= 0:
                        yield ast.unparse(call)
        case _:
            pass


def _statements(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.Return(value) if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
            yield "return None"
        case ast.Expr(ast.Constant()):
            pass  # a docstring
        case ast.Expr(ast.Yield() | ast.YieldFrom()):
            pass  # without it the function is another kind of thing
        case ast.Expr() | ast.Raise() | ast.Continue() | ast.Break() | ast.Delete() | ast.Return(None):
            yield "pass"
        case ast.Assign(targets) if not all(isinstance(target, ast.Name) for target in targets):
            yield "pass"
        case ast.AugAssign(target, operator, value):
            yield "pass"
            if type(operator) in _COMPUTED:
                yield ast.unparse(ast.AugAssign(target, _COMPUTED[type(operator)](), value))
        case _:
            pass


# --- runs ---


class Copy:
    """A tree of its own, in which mutants are tried one after the other."""

    def __init__(self, folder: Path, tests: str, examples: int) -> None:
        self.folder = folder
        self.tests = tests
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        (folder / "hypothesis_profile_of_mutation.py").write_text(PROFILE.format(examples=examples))

    def path(self, module: str) -> Path:
        return self.folder / "pop3core" / f"{module}.py"

    def run(self, files: Iterable[str], timeout: float | None, *arguments: str, write_bytecode: bool = False) -> int:
        """pytest's exit code; -1000 when it took too long."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONHASHSEED": "0"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        if not write_bytecode:
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
        command = [sys.executable, "-c", LAUNCH.format(memory=MEMORY_MAX)]
        command += ["-x", "-q", "-p", "hypothesis_profile_of_mutation", "-p", "no:cacheprovider", "--tb=no"]
        command += [f"--confcutdir={self.tests}", *arguments, *files]
        # a session of its own, so that what a test has started ends with it
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return -1000

    def try_source(self, module: str, source: str, files: Iterable[str], timeout: float) -> int:
        """The exit code with ``source`` in the module's place."""
        path = self.path(module)
        original = path.read_bytes()
        # bytecode of the rest is kept; that of this module may look as new as a mutant of the same second and size
        for cached in (path.parent / "__pycache__").glob(f"{module}.*.pyc"):
            cached.unlink()
        path.write_text(source)
        try:
            return self.run(files, timeout)
        finally:
            path.write_bytes(original)


def baseline(tree: Copy) -> tuple[dict[str, float], float]:
    """The seconds each test file takes when nothing is wrong, and all together; the bytecode is there afterwards."""
    report = tree.folder / "report.xml"
    tree.run([tree.tests], None, write_bytecode=True)
    started = time.monotonic()
    code = tree.run([tree.tests], None, f"--junitxml={report}", write_bytecode=True)
    took = time.monotonic() - started
    if code:
        sys.exit(f"the tests fail before anything is mutated: python -m pytest -x {tree.tests}")
    seconds: dict[str, float] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        module = case.get("classname", "").split(".")
        while module and not (tree.folder / ("/".join(module) + ".py")).exists():
            module.pop()  # a class in it
        name = "/".join(module) + ".py"
        if module:
            seconds[name] = seconds.get(name, 0) + float(case.get("time", 0))
    return seconds, took


def in_order(module: str, seconds: dict[str, float]) -> list[str]:
    """The test files, those that will know the module's mistakes soonest first."""
    return sorted(seconds, key=lambda name: (f"test_{module}" not in name, seconds[name]))


def verdict(code: int) -> str:
    """What a run's exit code says of the mutant."""
    if code == 0:
        return "survived"
    if code == -1000:
        return "timeout"
    if code in (4, 5):
        raise RuntimeError(f"pytest could not run at all (exit code {code})")
    return "killed"  # a test failed, or the module could not be imported, or the interpreter gave up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", default=MODULES, help=f"of pop3core; default {MODULES}")
    parser.add_argument("--tests", default="tests/pop3core", help="the tests that are to notice")
    parser.add_argument("--sample", type=int, help="try so many, chosen at random, instead of all")
    parser.add_argument("--seed", type=int, default=1, help="of that choice")
    parser.add_argument("--examples", type=int, default=30, help="of each Hypothesis test")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--timeout", type=float, help="seconds for a mutant; default by how long the tests take")
    parser.add_argument("--fail-under", type=float, default=0, help="percent that must be killed")
    parser.add_argument("--list", action="store_true", help="show the mutants, run nothing")
    options = parser.parse_args()
    names = [name for name in options.modules.split(",") if name]
    for name in names:
        if not (ROOT / "pop3core" / f"{name}.py").is_file():
            parser.error(f"there is no module pop3core.{name}")
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        trees = [Copy(Path(folder) / "0", options.tests, options.examples)]
        chosen = [mutant for name in names for mutant in mutants(name, trees[0].path(name).read_text())]
        total = len(chosen)
        if options.sample is not None and options.sample < total:
            chosen = random.Random(options.seed).sample(chosen, options.sample)
        chosen.sort(key=lambda mutant: (names.index(mutant.module), mutant.line))
        if options.list:
            for mutant in chosen:
                print(f"pop3core/{mutant.module}.py:{mutant.line}: {mutant.mutation}")
            return
        seconds, took = baseline(trees[0])
        for number in range(1, max(1, options.jobs)):
            trees.append(Copy(Path(folder) / str(number), options.tests, options.examples))
            trees[-1].run([options.tests], None, write_bytecode=True)
        timeout = options.timeout or 20 + 8 * took
        if trees[0].try_source(names[0], "raise ImportError\n", in_order(names[0], seconds), timeout) == 0:
            sys.exit("the tests do not import the copy of pop3core that is mutated")
        print(f"{len(chosen)} of {total} mutants; the tests take {took:.1f} s; {len(trees)} at a time", flush=True)
        show(names, run_all(chosen, trees, seconds, timeout), options.fail_under)


def run_all(chosen: list[Mutant], trees: list[Copy], seconds: dict[str, float], timeout: float) -> dict[Mutant, str]:
    """What became of each mutant."""
    free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for tree in trees:
        free.put(tree)

    def one(mutant: Mutant) -> str:
        tree = free.get()
        try:
            files = in_order(mutant.module, seconds)
            return verdict(tree.try_source(mutant.module, mutant.source, files, timeout))
        finally:
            free.put(tree)

    results: dict[Mutant, str] = {}
    with ThreadPoolExecutor(len(trees)) as pool:
        runs = {pool.submit(one, mutant): mutant for mutant in chosen}
        try:
            for run in as_completed(runs):
                results[runs[run]] = run.result()
                if sys.stderr.isatty():
                    print(f"\r{len(results)} / {len(chosen)}", end="", file=sys.stderr, flush=True)
        finally:
            pool.shutdown(cancel_futures=True)
    return results


def show(names: list[str], results: dict[Mutant, str], fail_under: float) -> None:
    """Prints who survived, and the score of each module; ends with 1 when that is too low."""
    ordered = sorted(results, key=lambda mutant: (names.index(mutant.module), mutant.line))
    survivors = [mutant for mutant in ordered if results[mutant] == "survived"]
    for mutant in survivors:
        why = EQUIVALENT.get(mutant.key)
        print(f"\npop3core/{mutant.module}.py:{mutant.line}: {mutant.text}\n    {mutant.mutation}")
        if why:
            print(f"    equivalent: {why}")
    columns = ("mutants", "killed", "timeout", "survived", "equivalent", "score")
    print("\n" + "module".ljust(10) + "".join(column.rjust(11) for column in columns))
    low = False
    for name in [*names, "together"]:
        those = [mutant for mutant in ordered if name in (mutant.module, "together")]
        fates = [results[mutant] for mutant in those]
        same = sum(mutant in survivors and mutant.key in EQUIVALENT for mutant in those)
        killed, late = fates.count("killed"), fates.count("timeout")
        left = fates.count("survived") - same
        counted = killed + late + left
        score = 100 * (killed + late) / counted if counted else 100.0
        low = low or score < fail_under
        print(
            f"{name:10}"
            + "".join(f"{value:11}" for value in (len(those), killed, late, left, same))
            + f"{score:10.1f}%"
        )
    if low:
        sys.exit(f"less than {fail_under:g} % were killed")


if __name__ == "__main__":
    main()
