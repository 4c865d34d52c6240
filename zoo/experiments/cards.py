"""GPUs lent to runs by what each needs of a card's memory, in turn; what does not fit waits.

The ledger is a folder of the store. A loan is a file in it that says how many bytes of which cards it takes, locked by the run
that has it: the kernel ends a loan with the last process that holds its lock, and another command that uses the same home sees
it. What a card has to lend is what was free on it when nothing of it was lent.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Event

from zoo.store import locked, open_lock, write_atomic
from zoo.targets import SHARE, free_gpu_bytes, gpu_uuids, only_gpus

POLL_SECONDS = 0.2
CAPACITY, TURN, LOAN = "capacity.json", "turn", ".loan"
COUNTED = 1 << 20  # a capacity up to it is a number of runs, not bytes
FILLED = COUNTED + 1  # bytes of a card that has no more or less: never none, or a run would wait for room that cannot come


@dataclass(frozen=True)
class Need:
    """What a run asks for: so many GPUs, and bytes of each.

    Without `bytes` they are not known, and it gets an even part of a card. `elastic`: bytes are the least, and an even part is
    of use where that is more.
    """

    gpus: int = 1
    bytes: int | None = None
    elastic: bool = False


@dataclass(frozen=True)
class Loan:
    """GPUs that a run may use.

    `environment`: what to set for the run. `whole`: nobody else has anything of them. `lock`: a descriptor that it keeps open
    to its end, -1 where there is none.
    """

    environment: Mapping[str, str]
    whole: bool
    lock: int = -1


class Cards:
    """The GPUs of this process, lent to the runs of all commands that use the same store.

    `jobs`: runs at a time, by which a card is divided for those whose need is not known. Where the driver does not tell a
    card's memory (of a part of a card, say), runs are counted and not bytes.
    """

    def __init__(self, names: Sequence[str], jobs: int, store: Path) -> None:
        self.names, self.parts = tuple(names), -(-jobs // max(1, len(names)))
        self._store, self._folder = store, store / ".locks" / "cards"
        self._waiting: deque[object] = deque()
        self._changed = Condition()
        if self.names:
            self._folder.mkdir(parents=True, exist_ok=True)
            uuids = gpu_uuids()
            self._keys = {name: uuids.get(name, name) for name in self.names}  # another command may call them otherwise

    @contextmanager
    def lent(self, need: Need, *, alone: bool = False, stopped: Event | None = None) -> Iterator[Loan]:
        """GPUs for one run, once there is room on them.

        `alone`: once nobody else has anything of them. First come, first served, whatever the need: nobody waits for ever. A
        run that asks for more GPUs than there are gets all of them and says itself what it lacks; one that needs more than a
        card has gets the card for itself. Once `stopped` is set nobody waits any longer, and what is lent is nothing.
        """
        if not self.names:
            yield Loan({}, whole=True)
            return
        with self._turn():
            loan = self._wait(need, alone, stopped or Event())
        try:
            yield loan
        finally:
            if loan.lock >= 0:
                os.close(loan.lock)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Be the one of this process that waits for room.

        The others stand behind, in the order in which they came.
        """
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket)
        try:
            yield
        finally:
            with self._changed:
                self._waiting.popleft()
                self._changed.notify_all()

    def _wait(self, need: Need, alone: bool, stopped: Event) -> Loan:
        """A loan, once it is this process's turn among all commands.

        Without turns small runs of one would pass by another's large one for ever.
        """
        turn = open_lock(self._folder / TURN)
        try:
            mine = False
            while not stopped.is_set():
                mine = mine or _try_lock(turn)
                if mine and (loan := self._take(need, alone)):
                    return loan
                stopped.wait(POLL_SECONDS)
            return Loan({}, whole=False)
        finally:
            os.close(turn)

    def _take(self, need: Need, alone: bool) -> Loan | None:
        """A loan as things stand; None where there is no room."""
        with locked(self._store, "cards"):
            lent = self._lent()
            capacity = self._capacity(lent)
            wanted = {name: self._part(need, capacity[key], alone) for name, key in self._keys.items()}
            left = {name: capacity[key] - lent.get(key, 0) for name, key in self._keys.items()}
            count = min(need.gpus, len(self.names))
            able = self._able(need, capacity, count)
            roomy = sorted((name for name in able if wanted[name] <= left[name]), key=lambda name: -left[name])
            if len(roomy) < count:
                return None
            taken = sorted(roomy[:count], key=self.names.index)
            lock = self._note({self._keys[name]: wanted[name] for name in taken})
        whole = all(wanted[name] == capacity[self._keys[name]] for name in taken)
        least = min(wanted[name] for name in taken)
        return Loan(only_gpus(taken) | ({SHARE: str(least)} if not whole and least > COUNTED else {}), whole, lock)

    def _able(self, need: Need, capacity: Mapping[str, int], count: int) -> Sequence[str]:
        """The GPUs that have what a run needs, if they are enough for it; else more, and it says itself what it lacks.

        Nobody is sent to a card that another program has filled while there are others.
        """
        sizes = {name: capacity[key] for name, key in self._keys.items()}
        fits = [name for name, size in sizes.items() if size <= COUNTED or size >= max(need.bytes or 0, FILLED + 1)]
        usable = [name for name, size in sizes.items() if size != FILLED]
        return next((names for names in (fits, usable) if len(names) >= count), self.names)

    def _part(self, need: Need, capacity: int, alone: bool) -> int:
        """What a run takes of a card: all of it at most."""
        even = max(1, capacity // self.parts)
        if alone:
            return capacity
        if need.bytes is None or capacity <= COUNTED:
            return even
        return min(capacity, max(need.bytes, even) if need.elastic else need.bytes)

    def _note(self, sizes: Mapping[str, int]) -> int:
        """Write a loan down; the descriptor of its lock."""
        lock = open_lock(self._folder / f"{secrets.token_hex(8)}{LOAN}")
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(lock, json.dumps(sizes).encode())
        return lock

    def _lent(self) -> dict[str, int]:
        """Bytes of each GPU that runs have; what ended runs left behind is removed."""
        total: Counter[str] = Counter()
        for path in sorted(self._folder.glob(f"*{LOAN}")):
            lock = open_lock(path)
            try:
                if _try_lock(lock):
                    path.unlink()
                else:
                    total.update(json.loads(os.read(lock, 1 << 16)))
            finally:
                os.close(lock)
        return dict(total)

    def _capacity(self, lent: Mapping[str, int]) -> dict[str, int]:
        """What each GPU has to lend, measured while nothing of it is lent.

        What runs use is free no more, and lent already. A number of runs where the driver tells nothing.
        """
        path = self._folder / CAPACITY
        try:
            known: dict[str, int] = json.loads(path.read_text())
        except (OSError, ValueError):
            known = {}
        keys = self._keys.values()
        if stale := [key for key in keys if not lent.get(key) or key not in known]:
            free = free_gpu_bytes()
            known |= {key: max(free[key], FILLED) if key in free else self.parts for key in stale}
            write_atomic(path, json.dumps(known))
        return {key: known[key] for key in keys}


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
