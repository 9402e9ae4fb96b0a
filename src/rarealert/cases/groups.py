"""Union-find: what must stay together, directly or through a chain of others."""

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class DisjointSets(Generic[T]):
    """Sets that only ever merge (Tarjan 1975): near constant time a call."""

    def __init__(self) -> None:
        self._parent: dict[T, T] = {}
        self._size: dict[T, int] = {}

    def find(self, item: T) -> T:
        """The member that stands for the set of ``item``; a new item is a set of its own."""
        if item not in self._parent:
            self._parent[item] = item
            self._size[item] = 1
            return item
        root = item
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[item] != root:
            self._parent[item], item = root, self._parent[item]
        return root

    def union(self, items: Iterable[T]) -> None:
        """Merge the sets of all ``items``."""
        # first come, first: a set's order would change with the interpreter's hash seed
        found = dict.fromkeys(self.find(item) for item in items)
        roots = sorted(found, key=lambda root: -self._size[root])
        for root in roots[1:]:
            self._parent[root] = roots[0]
            self._size[roots[0]] += self._size[root]

    def sets(self) -> dict[T, list[T]]:
        """Members by the item that stands for them, in the order in which they came."""
        members: dict[T, list[T]] = {}
        for item in self._parent:
            members.setdefault(self.find(item), []).append(item)
        return members
