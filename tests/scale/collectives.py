"""Read an optimised HLO module: the collectives of each of its loops, and their sizes."""

import math
import re
from typing import NamedTuple

COLLECTIVE = re.compile(
    r"= (.*?) (all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute"
    r"|reduce-scatter|ragged-all-to-all)(?:-start)?\("
)
LOOP = re.compile(r" while\(.*?condition=%?([\w.\-]+), body=%?([\w.\-]+)")
CALLED = re.compile(r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


class Loop(NamedTuple):
    """The collectives of one loop's body, without those of the loops inside it.

    Both sides of a branch count, so that the counts are bounds.
    """

    collectives: list[tuple[str, int]]  # the kind, and the entries of the largest array
    inner: list["Loop"]

    def count(self, kind):
        return sum(1 for found, _ in self.collectives if found == kind)

    def all(self):
        """This loop and all inside it."""
        return [self, *(loop for inner in self.inner for loop in inner.all())]


def loops_of(text):
    """The program as a loop that runs once, of the text of its optimised HLO module."""
    bodies, entry = computations(text)

    def read(name):
        loop = Loop([], [])
        for line in lines(bodies, name):
            found = COLLECTIVE.search(line)
            if found:
                loop.collectives.append((found[2], largest(found[1])))
                continue
            repeated = LOOP.search(line)
            if repeated:
                condition, body = (read(part) for part in repeated.groups())
                body.collectives.extend(condition.collectives)
                loop.inner.append(body)
        return loop

    return read(entry)


def computations(text):
    """The lines of each computation, and the name of the one that starts."""
    bodies, entry, current = {}, None, None
    for line in text.splitlines():
        opened = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if opened:
            current = bodies.setdefault(opened[2], [])
            entry = opened[2] if opened[1] else entry
        elif current is not None and line.startswith(" "):
            current.append(line)
    return bodies, entry


def lines(bodies, name):
    """The lines of a computation and of all that it calls, but for the bodies of loops."""
    for line in bodies[name]:
        yield line
        if LOOP.search(line) or COLLECTIVE.search(line):
            continue
        called = CALLED.findall(line)
        for branches in BRANCHES.findall(line):
            called += [branch.strip().lstrip("%") for branch in branches.split(",")]
        for other in called:
            yield from lines(bodies, other)


def largest(result):
    """Entries of the largest array in the type of a result, as in (f64[3,3], f64[3]{0})."""
    shapes = re.findall(r"\w+\[([\d,]*)\]", result)
    return max(math.prod(int(d) for d in shape.split(",") if d) for shape in shapes)
