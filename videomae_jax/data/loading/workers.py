"""Worker processes that read videos for a trainer; when one of them dies, whoever waits gets an error.

A worker knows no list. With each slot it is sent the video, the key of its draws and a place in a batch,
which lies in memory that all share; it writes there and says so. On the trainer's side one thread hands
slots to whoever has room, some batches ahead. There is no lock that a killed worker could keep: the end of a
worker, or of the trainer, is the end of a pipe.
"""

import pickle
import socket
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from selectors import EVENT_READ, DefaultSelector
from typing import Any, NamedTuple

from videomae_jax.data.clips.readers import Arrays, Key, Reader
from videomae_jax.data.loading.failures import Failure, read_patiently
from videomae_jax.data.loading.filling import ClipBatch, Filling
from videomae_jax.data.loading.order import Slots
from videomae_jax.data.loading.pages import Layout, Pages, layout_of, map_page
from videomae_jax.data.loading.process import Process, make_task, pickle_for_workers
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.video.frames import VideoError
from videomae_jax.errors import RunError

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_BEFORE_IT_IS_TOLD = 3
# Slots that a worker has at a time: one that it reads, and one that waits in its pipe.
_HELD = 2


class _NewReader(NamedTuple):
    """What a worker gets before the first slot for a reader."""

    number: int
    reader: bytes
    """Reader and layout, pickled."""


class _Job(NamedTuple):
    """What a worker gets for each slot."""

    reader: int
    page: int
    """Its offset in the shared memory."""
    place: int
    record: VideoRecord
    key: Key | None


class _Given(NamedTuple):
    """A slot that a worker has."""

    stream: "_Stream"
    filling: Filling
    page: int
    place: int
    record_id: int


class _Worker:
    """A process, and what it has to do."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.given: deque[_Given] = deque()
        self.readers: set[int] = set()

    def give(self, given: _Given) -> None:
        if not self.given:
            self.process.expect()
        self.given.append(given)


class _Stream:
    """Batches that somebody takes one after the other; some are on their way."""

    def __init__(self, slots: Slots, steps: range, layout: Layout, reader: int, ahead: int) -> None:
        self.reader = reader
        self.fillings: deque[Filling] = deque()
        self.problem: RunError | None = None
        """Why no slot is read any more."""
        self._slots, self._steps, self._layout, self._ahead = slots, steps, layout, ahead
        self._begun = self._place = 0
        self._page = -1
        self._again: deque[tuple[Filling, int, int]] = deque()

    def ready(self) -> bool:
        """Whether there is something to be read now."""
        if self.problem:
            return False
        inside = self.fillings and self._place < self.fillings[-1].places
        room = len(self.fillings) < self._ahead and self._begun < len(self._steps)
        return bool(self._again or inside or room)

    def due(self) -> bool:
        """Whether whoever takes the batches need not wait."""
        return bool(self.problem or (self.fillings and self.fillings[0].whole))

    def next_job(self, pages: Pages) -> tuple[_Job, _Given] | None:
        """The next slot that has a video, in order; None where all that is left of them stay empty."""
        try:
            while self.ready():
                filling, page, place = self._again.popleft() if self._again else self._next_place(pages)
                n = (filling.step - self._steps.start) * filling.places + place
                if request := self._slots.request(n, filling.failed[place]):
                    record_id, record, key = request
                    given = _Given(self, filling, page, place, record_id)
                    return _Job(self.reader, page, place, record, key), given
                filling.leave_empty(place)
        except RunError as error:
            self.problem = error
        return None

    def _next_place(self, pages: Pages) -> tuple[Filling, int, int]:
        if not self.fillings or self._place == self.fillings[-1].places:
            self._page, arrays = pages.take(self._layout)
            self.fillings.append(Filling(self._steps[self._begun], arrays))
            self._begun, self._place = self._begun + 1, 0
        self._place += 1
        return self.fillings[-1], self._page, self._place - 1

    def note(self, given: _Given, failure: Failure | None) -> None:
        """Note what a worker said of a slot."""
        if failure is None:
            given.filling.succeed(given.place, given.record_id)
        else:
            given.filling.failed[given.place][given.record_id] = failure
            self._again.append((given.filling, given.page, given.place))


class Workers:
    """Worker processes, from the first time that they are needed on; close them in any case."""

    def __init__(self, count: int) -> None:
        """So many; with 0, batches are read in this process."""
        self.count, self._pages = count, Pages()
        self._lock = threading.Condition()
        self._streams: list[_Stream] = []
        self._readers: dict[bytes, int] = {}
        self._broken: BaseException | None = None
        self._told = False
        """Whether somebody knows what has broken."""
        self._closing = False
        self._selector = DefaultSelector()
        self._bell, self._ear = socket.socketpair()
        self._ear.setblocking(False)
        self._selector.register(self._ear, EVENT_READ)
        self._workers: list[_Worker] = []
        self._thread = threading.Thread(target=self._serve, name="workers", daemon=True)

    def _start(self) -> None:
        try:
            task = make_task(_work, self._pages.fileno)
            for _ in range(self.count):
                self._workers.append(_Worker(Process(self._pages.fileno)))
            for worker in self._workers:
                self._selector.register(worker.process.pipe, EVENT_READ, worker)
                worker.process.begin(task)
            self._thread.start()
        except BaseException as error:
            self._broken = error
            raise

    def read(self, slots: Slots, read: Reader, steps: range, places: int) -> Generator[ClipBatch, None, None]:
        """The batches of these steps, of so many videos each.

        Close the iterator to end it early. Raises WorkerDied when a worker dies, and whatever `read` raises.
        """
        layout = layout_of(read.blank(), places)
        reader = pickle_for_workers((read, layout))
        ahead = 1 + max(1, -(-_HELD * self.count // places))
        if not self._workers:
            self._start()
        with self._pages.kept(layout):
            with self._lock:
                number = self._readers.setdefault(reader, len(self._readers))
                self._streams.append(stream := _Stream(slots, steps, layout, number, ahead))
            self._ring()
            try:
                for _ in steps:
                    yield self._take(stream).batch()
            finally:
                with self._lock:
                    self._streams.remove(stream)

    def close(self) -> None:
        """End them, whatever they do."""
        self._closing = True
        self._ring()
        for worker in self._workers:
            worker.process.kill()  # The thread may wait for one of them.
        if self._thread.is_alive():
            self._thread.join()
        for worker in self._workers:
            worker.process.close()
        self._selector.close()
        self._bell.close()
        self._ear.close()
        self._pages.close()

    def _take(self, stream: _Stream) -> Filling:
        """The next batch, once it is whole."""
        with self._lock:
            while True:
                if stream.fillings and stream.fillings[0].whole:
                    filling = stream.fillings.popleft()
                    break
                if problem := stream.problem or self._broken:
                    self._told = True
                    raise problem
                # Looked at again and again: an endless wait would miss a Ctrl-C that comes before it begins.
                self._lock.wait(_SECONDS_BETWEEN_LOOKS)
                for worker in self._workers:
                    if worker.given:
                        worker.process.say_if_silent()
        self._ring()
        return filling

    def _ring(self) -> None:
        """Wake the thread, which checks what there is to do."""
        with suppress(OSError):
            self._bell.send(b"1")

    def _serve(self) -> None:
        """Hand out slots, and note what comes back, until all is closed."""
        try:
            while not self._closing:
                with self._lock:
                    messages = list(self._give_out())
                    if any(stream.due() for stream in self._streams):
                        self._lock.notify_all()
                for worker, message in messages:
                    worker.process.send(message)
                unknown = self._broken if not self._told else None
                ready = self._selector.select(_SECONDS_BEFORE_IT_IS_TOLD if unknown else None)
                if unknown and not (ready or self._told):
                    self._tell(unknown)
                for key, _ in ready:
                    if key.data is None:
                        self._ear.recv(4096)
                    else:
                        self._hear(key.data)
        except BaseException as error:  # Whoever waits for batches has to know.
            with self._lock:
                self._broken = error
                self._lock.notify_all()

    def _tell(self, error: BaseException) -> None:
        """Say what nobody has asked for yet, as whoever is to know computes, or compiles for minutes."""
        print(f"videomae-jax: {error}. This ends with the next batch.", file=sys.stderr, flush=True)
        self._told = True

    def _give_out(self) -> Iterator[tuple[_Worker, Any]]:
        """What to send to which worker; those with least to do come first."""
        for held in range(0 if self._broken else _HELD):
            for worker in self._workers:
                if len(worker.given) == held:
                    yield from self._give(worker)

    def _give(self, worker: _Worker) -> Iterator[tuple[_Worker, Any]]:
        """The next slot for this worker, of whoever asked last."""
        for stream in reversed(self._streams):
            known = stream.reader in worker.readers
            if not known and worker.given and stream.ready():
                return  # Readers may be large: it gets this one once it has nothing to say before.
            if found := stream.next_job(self._pages):
                job, given = found
                if not known:
                    (pickled,) = (each for each, number in self._readers.items() if number == stream.reader)
                    worker.readers.add(stream.reader)
                    yield worker, _NewReader(stream.reader, pickled)
                worker.give(given)
                yield worker, job
                return

    def _hear(self, worker: _Worker) -> None:
        """Take what a worker says."""
        try:
            failure, repeats = worker.process.receive()
        except BaseException as error:
            self._selector.unregister(worker.process.pipe)
            with self._lock:
                self._broken = self._broken or error
                self._lock.notify_all()
            return
        with self._lock:
            given = worker.given.popleft()
            given.filling.repeats += repeats
            given.stream.note(given, failure)


def _work(pipe: Connection, memory: int) -> None:
    """Read what is asked for into its place."""
    readers: dict[int, tuple[Reader, Layout]] = {}
    pages: dict[tuple[int, int], Arrays] = {}
    while True:
        message = pipe.recv()
        if isinstance(message, _NewReader):
            readers[message.number] = pickle.loads(message.reader)
            continue
        read, layout = readers[message.reader]
        if (where := (message.reader, message.page)) not in pages:
            pages[where] = map_page(memory, message.page, layout)
        repeats: list[Failure] = []
        try:
            # What else it raises is raised at the trainer.
            arrays = read_patiently(read, message.record, message.key, repeats)
        except VideoError as error:
            pipe.send((Failure.of(error), repeats))
            continue
        for name, values in arrays.items():
            pages[where][name][message.place] = values
        pipe.send((None, repeats))
