"""The spool: what was said to be written is there, whatever happens in between."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.sources.source import SourceError
from service.sources.spool.file import DamageError, EntryReader, files_of
from service.sources.spool.source import SpoolSource
from service.sources.spool.spool import Appended, Drain, KeyReusedError, NotNow, Spool

AT = ("http", 0)


@contextmanager
def opened(path: Path, offset: int | None = None, **options: Any) -> Iterator[SpoolSource]:
    source = SpoolSource(Spool(path, **options))
    with closing(source):
        source.seek({} if offset is None else {AT: offset})
        yield source


def drain(source: SpoolSource, size: int = 7) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while batch := source.poll(size, 0.0):
        assert len(batch) <= size
        assert {(r.topic, r.partition, r.key) for r in batch} == {("http", 0, None)}
        found += [(r.offset, r.value) for r in batch]
    return found


def put(source: SpoolSource, *values: bytes, key: str = "") -> Appended:
    done = source.spool.append(values, key)
    assert isinstance(done, Appended), done
    return done


def numbered(n: int, start: int = 0) -> list[tuple[int, bytes]]:
    return [(k, b"%d" % k) for k in range(start, start + n)]


def put_numbers(source: SpoolSource, n: int, start: int = 0, key: str = "") -> None:
    assert put(source, *[v for _, v in numbered(n, start)], key=key) == Appended(start, n)


def newest(path: Path) -> Path:
    return files_of(path)[-1][1]


# -- order and offsets -------------------------------------------------------------------------


def test_what_is_appended_is_delivered_once_in_order(tmp_path: Path) -> None:
    with opened(tmp_path) as source:
        assert not source.poll(10, 0.0)
        put_numbers(source, 3)
        put_numbers(source, 20, 3)
        assert source.lag() == 23
        assert drain(source) == numbered(23)
        assert (source.lag(), source.exhausted) == (0, False)


def test_offsets_go_on_over_restarts_and_the_store_says_where(tmp_path: Path) -> None:
    with opened(tmp_path) as source:
        put_numbers(source, 5)
        drain(source)
    with opened(tmp_path, 3) as source:
        put_numbers(source, 2, 5)
        assert drain(source) == numbered(4, 3)
    with opened(tmp_path) as source:
        assert drain(source) == numbered(7)


def test_a_seek_goes_back_too(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=200) as source:
        for start in range(0, 40, 4):
            put_numbers(source, 4, start)
        for offset in (40, 0, 5, 39, 4, 17):
            source.seek({AT: offset, ("other", 0): 3})
            assert source.lag() == 40 - offset
            assert drain(source) == numbered(40 - offset, offset)


def test_a_poll_waits_for_a_record_and_no_longer(tmp_path: Path) -> None:
    with opened(tmp_path) as source:
        late = threading.Timer(0.05, put_numbers, (source, 1))
        late.start()
        assert [r.offset for r in source.poll(10, 60.0)] == [0]
        late.join()
        waiting = threading.Timer(0.05, source.spool.close)
        waiting.start()
        assert not source.poll(10, 60.0)
        waiting.join()


def test_large_records_are_polled_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sources.spool.source.MAX_POLL_BYTES", 1000)
    with opened(tmp_path) as source:
        put(source, *[b"x" * 600] * 5)
        assert [len(source.poll(500, 0.0)) for _ in range(4)] == [2, 2, 1, 0]


# -- files -------------------------------------------------------------------------------------


def test_files_whose_records_are_processed_go(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=200) as source:
        for start in range(0, 60, 3):
            put_numbers(source, 3, start)
        names = [first for first, _ in files_of(tmp_path)]
        assert len(names) > 4
        assert len(source.poll(names[2] + 1, 0.0)) == names[2] + 1
        source.commit({AT: names[2] + 1, ("other", 0): 1000})
        assert [first for first, _ in files_of(tmp_path)] == names[2:]
        drain(source)
        source.commit({AT: 60})
        assert [first for first, _ in files_of(tmp_path)] == names[-1:]
    with opened(tmp_path, 60) as source:
        put_numbers(source, 1, 60)
        assert drain(source) == numbered(1, 60)


def test_a_file_of_which_all_is_processed_goes_before_it_is_full(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=8000) as source:
        for n in range(20):
            put_numbers(source, 30, 30 * n)
            drain(source)
            source.commit({AT: 30 * (n + 1) - 1})
            assert [first for first, _ in files_of(tmp_path)] == [0]
        source.commit({AT: 600})
        assert [first for first, _ in files_of(tmp_path)] == [600]
        assert source.spool.backlog_bytes == 0
        put_numbers(source, 2, 600)
        assert drain(source) == numbered(2, 600)
    with opened(tmp_path, 600, segment_bytes=8000) as source:
        assert drain(source) == numbered(2, 600)


def test_a_store_older_than_the_spool_goes_on_at_the_oldest_record(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=100) as source:
        put_numbers(source, 10)
        put_numbers(source, 10, 10)
        drain(source)
        source.commit({AT: 20})
    oldest = files_of(tmp_path)[0][0]
    assert oldest > 0
    with opened(tmp_path, 4) as source:
        assert drain(source) == numbered(20 - oldest, oldest)


def test_a_spool_without_records_goes_on_where_the_store_is(tmp_path: Path) -> None:
    with opened(tmp_path, 41) as source:
        assert source.lag() == 0
        put_numbers(source, 2, 41)
        assert drain(source) == numbered(2, 41)
    with opened(tmp_path, 42) as source:
        assert drain(source) == numbered(1, 42)


def test_a_spool_that_ends_before_the_store_is_another_one(tmp_path: Path) -> None:
    with opened(tmp_path) as source:
        put_numbers(source, 5)
        with pytest.raises(SourceError, match=r"ends at 5, .* to read is 9; is it another"):
            source.seek({AT: 9})


def test_one_process_has_a_spool(tmp_path: Path) -> None:
    with opened(tmp_path):
        with pytest.raises(SourceError, match="another process has this spool"):
            Spool(tmp_path)
        program = "import sys; from service.sources.spool.spool import Spool; Spool(sys.argv[1])"
        other = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
            check=False,
        )
        assert "SourceError" in other.stderr
        assert "another process has this spool" in other.stderr
    Spool(tmp_path).close()


def test_a_place_that_is_no_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="file: cannot be used as a spool"):
        Spool(tmp_path / "file")


# -- cuts and damage ---------------------------------------------------------------------------


def test_a_write_that_was_cut_at_any_byte_is_as_if_it_had_not_been(tmp_path: Path) -> None:
    with opened(tmp_path) as source:
        put_numbers(source, 3, key="first")
        put(source, b"three", b"four", key="second")
    path = newest(tmp_path)
    whole = path.read_bytes()
    start = [e.start for e in entries(path)][-1]
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        with opened(tmp_path, 0) as source:
            assert path.read_bytes() == whole[:start]
            assert drain(source) == numbered(3)
            again = put(source, b"three", b"four", key="second")
            assert again == Appended(3, 2)
            assert put(source, b"0", b"1", b"2", key="first").is_repeat
            assert drain(source) == [(3, b"three"), (4, b"four")]
        assert path.read_bytes() == whole


def entries(path: Path) -> list[Any]:
    with closing(EntryReader(path)) as reader:
        found = []
        while entry := reader.next(path.stat().st_size):
            found.append(entry)
        return found


def test_room_that_a_file_system_made_and_did_not_fill_is_cut(tmp_path: Path) -> None:
    with opened(tmp_path) as source:
        put_numbers(source, 3)
    with newest(tmp_path).open("ab") as file:
        file.write(bytes(100_000))
    with opened(tmp_path) as source:
        put_numbers(source, 1, 3)
        assert drain(source) == numbered(4)


def test_every_changed_byte_before_the_last_entry_is_found(tmp_path: Path) -> None:
    with opened(tmp_path) as source:
        put_numbers(source, 2)
        put_numbers(source, 2, 2, key="k")
        put_numbers(source, 2, 4)
    path = newest(tmp_path)
    whole = path.read_bytes()
    last = entries(path)[-1].start
    for at in range(last):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DamageError, match=rf"{path.name}: damaged at byte \d+: "):
            Spool(tmp_path)
    path.write_bytes(whole)
    Spool(tmp_path).close()


def test_damage_in_an_older_file_is_found_when_it_is_read(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=10) as source:
        for start in range(0, 12, 3):
            put_numbers(source, 3, start)
    older = files_of(tmp_path)[0][1]
    text = older.read_bytes()
    older.write_bytes(text[:-2] + b"!" + text[-1:])
    with opened(tmp_path) as source, pytest.raises(SourceError, match="not those that were writ"):
        drain(source)
    older.unlink()
    middle = files_of(tmp_path)[1][1]
    middle.unlink()
    with opened(tmp_path) as source, pytest.raises(SourceError, match="begins with record"):
        drain(source)


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    import zlib

    Spool(tmp_path).close()
    header = b'{"spool":2,"at":0,"n":0,"bytes":0,"crc":0}'
    newest(tmp_path).write_bytes(b"%08x %s\n" % (zlib.crc32(header), header))
    with pytest.raises(DamageError, match="expected a spool of version 1, got 2"):
        Spool(tmp_path)


values = st.lists(
    st.binary(max_size=400).map(lambda b: b.replace(b"\n", b" ")), min_size=1, max_size=5
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.one_of(values, st.sampled_from(["reopen", "poll", "commit", "cut"])), max_size=30),
    st.randoms(use_true_random=False),
)
def test_whatever_happens_in_between_everything_comes_once(
    tmp_path_factory: pytest.TempPathFactory, story: list[Any], chance: random.Random
) -> None:
    path = tmp_path_factory.mktemp("spool")
    written: list[bytes] = []
    stored = 0
    source = SpoolSource(Spool(path, segment_bytes=500))
    for step in story:
        if isinstance(step, list):
            assert put(source, *step) == Appended(len(written), len(step))
            written += step
        elif step == "poll":
            for record in source.poll(chance.randint(1, 9), 0.0):
                assert (record.offset, record.value) == (stored, written[stored])
                stored += 1
        elif step == "commit":
            source.commit({AT: stored})
            files = files_of(path)
            assert len(files) == 1 or files[1][0] > stored
        else:
            source.close()
            if step == "cut":  # what a crash leaves of a write that was never answered
                torn = b"0badc0de {" if chance.random() < 0.5 else b"7"
                with newest(path).open("ab") as file:
                    file.write(torn)
            source = SpoolSource(Spool(path, segment_bytes=500))
            source.seek({AT: stored})
        assert source.lag() == len(written) - stored
        assert (source.spool.backlog_bytes == 0) <= (stored == len(written))
    assert [v for _, v in drain(source)] == written[stored:]
    source.close()


# -- keys --------------------------------------------------------------------------------------


def test_a_key_is_answered_as_the_first_time_and_nothing_is_written(tmp_path: Path) -> None:
    with opened(tmp_path) as source:
        put(source, b"a", b"b", key="k")
        assert put(source, b"a", b"b", key="k") == Appended(0, 2, is_repeat=True)
        assert put(source, b"a", b"b") == Appended(2, 2)
        with pytest.raises(KeyReusedError, match="key 'k' came before with other records"):
            put(source, b"a", b"c", key="k")
        assert source.lag() == 4


def test_keys_survive_restarts_and_the_end_of_their_file(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=100) as source:
        put(source, b"a", key='"quoted"')
        for n in range(1, 9):
            put(source, b"b", key=str(n))
        drain(source)
        source.commit({AT: 9})
        assert len(files_of(tmp_path)) == 1
    with opened(tmp_path, 9, segment_bytes=100) as source:
        assert put(source, b"a", key='"quoted"') == Appended(0, 1, is_repeat=True)
        assert put(source, b"b", key="8") == Appended(8, 1, is_repeat=True)
        assert source.lag() == 0


def test_keys_that_fill_a_file_do_not_make_every_batch_begin_another_one(tmp_path: Path) -> None:
    for restart in range(3):
        with opened(tmp_path, segment_bytes=2000) as source:
            for n in range(20):
                put(source, b"x", key=f"{'k' * 100}-{restart}-{n}")
    assert 2 <= len(files_of(tmp_path)) <= 8


def test_the_oldest_keys_are_forgotten(tmp_path: Path) -> None:
    for restart in (False, True):
        folder = tmp_path / str(restart)
        with opened(folder, max_keys=2) as source:
            for key in "abc":
                put(source, b"x", key=key)
        with opened(folder, max_keys=2) as source:
            assert put(source, b"x", key="c").is_repeat
            assert put(source, b"x", key="b").is_repeat
            assert not put(source, b"x", key="a").is_repeat
    with opened(tmp_path / "none", max_keys=0) as source:
        assert not put(source, b"x", key="a").is_repeat
        assert not put(source, b"x", key="a").is_repeat


def test_equal_keys_at_the_same_time_are_written_once(tmp_path: Path) -> None:
    with opened(tmp_path) as source:
        found: list[Any] = []
        threads = [
            threading.Thread(target=lambda: found.append(source.spool.append([b"x"], "k")))
            for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [f.first for f in found] == [0] * 16
        assert sum(not f.is_repeat for f in found) == 1
        assert drain(source) == [(0, b"x")]


# -- many at once ------------------------------------------------------------------------------


def test_many_writers_share_syncs_and_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = 0
    real = os.fsync

    def counted(fd: int) -> None:
        nonlocal syncs
        syncs += 1
        # As slow as a disk: what comes meanwhile waits for the next one.
        threading.Event().wait(0.002)
        real(fd)

    monkeypatch.setattr(os, "fsync", counted)
    seen: list[tuple[int, bytes]] = []
    with opened(tmp_path, segment_bytes=5000) as source:

        def write(who: int) -> None:
            for n in range(40):
                done = put(source, b"%d-%d" % (who, n), b"again")
                seen.append((done.first, b"%d-%d" % (who, n)))

        threads = [threading.Thread(target=write, args=(who,)) for who in range(8)]
        for thread in threads:
            thread.start()
        found: list[tuple[int, bytes]] = []
        while any(t.is_alive() for t in threads) or source.lag():
            found += [(r.offset, r.value) for r in source.poll(50, 0.01)]
            if found:
                source.commit({AT: found[-1][0] + 1})
        for thread in threads:
            thread.join()
    assert [offset for offset, _ in found] == list(range(640))
    assert sorted(seen) == found[::2]
    assert syncs < 320, "every request had a sync of its own"


# -- what cannot be taken ----------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_full_backlog_is_refused_with_the_time_that_it_needs(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, max_backlog_bytes=5000, clock=clock) as source:
        while not isinstance(done := source.spool.append([b"x" * 900]), NotNow):
            assert source.spool.backlog_bytes < 5000
        assert (done.cause, done.after_s) == ("backlog", 5)  # nothing was measured yet
        assert source.spool.is_full() is None  # a small one would be taken
        clock.now += 10.0
        source.poll(1, 0.0)
        source.commit({AT: 1})  # about 1000 bytes in 10 s
        assert isinstance(source.spool.append([b"x" * 900]), Appended)
        refused = source.spool.append([b"x" * 900])
        assert isinstance(refused, NotNow)
        assert refused.detail.endswith("bytes wait to be processed; at most 5000 may")
        assert 2 <= refused.after_s <= 10
        drain(source)
        source.commit({AT: 6})
        assert source.spool.backlog_bytes == 0
        assert isinstance(source.spool.append([b"x" * 9000]), Appended), "larger than the limit"
        assert source.spool.is_full() is not None


def test_the_backlog_is_known_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=300) as source:
        for start in range(0, 40, 4):
            put_numbers(source, 4, start)
        source.poll(22, 0.0)
        source.commit({AT: 22})
        before = source.spool.backlog_bytes
        assert before > 0
    with opened(tmp_path, 22, segment_bytes=300) as source:
        assert source.spool.backlog_bytes == before
    with opened(tmp_path, 40, segment_bytes=300) as source:
        assert source.spool.backlog_bytes == 0


def test_the_rate_is_measured_while_there_is_something_to_do() -> None:
    clock = Clock()
    rate = Drain(clock)
    assert rate.seconds(1000) == 5
    clock.now = 1000.0
    rate.begin()
    clock.now += 2.0
    rate.done(200, is_empty=True)
    clock.now += 5000.0  # idle, which says nothing about the rate
    assert rate.seconds(1000) == 10
    rate.begin()
    assert rate.seconds(10) == 1
    clock.now += 20.0  # busy, and nothing comes of it
    assert rate.seconds(1000) == 74
    clock.now += 1000.0
    assert rate.seconds(1000) == 120


def test_a_closed_spool_takes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as source:
        source.close()
        refused = source.spool.append([b"x"])
        assert isinstance(refused, NotNow)
        assert refused.cause == "closed"


FULL_DISK = """
import json, resource, sys
from service.sources.spool.spool import Spool, NotNow
from service.sources.spool.source import SpoolSource

source = SpoolSource(Spool(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
answers = [source.spool.append([b"%d" % n * 100], f"k{n}") for n in range(10)]
taken = [a for a in answers if not isinstance(a, NotNow)]
refused = {(a.cause, a.detail.split(": ")[-1]) for a in answers if isinstance(a, NotNow)}
small = source.spool.append([b"-"])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
last = source.spool.append([b"8" * 100], "k8")
found = [r.value[:1].decode() for r in source.poll(100, 0.0)]
source.close()
print(json.dumps([len(taken), sorted(refused), small.first, [last.first, last.is_repeat], found]))
"""


def test_a_full_disk_refuses_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    taken, refused, small, last, found = json.loads(done.stdout)
    assert 2 < taken < 8
    assert refused == [["disk", "File too large"]]
    assert small == taken
    assert last == [taken + 1, False]
    assert found == [*map(str, range(taken)), "-", "8"]
    with opened(tmp_path) as source:
        assert len(drain(source)) == taken + 2


@pytest.mark.parametrize("late", [False, True])
def test_what_could_not_be_synced_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    real, fails = os.fsync, True

    def broken(fd: int) -> None:
        if fails:
            raise OSError(5, "Input/output error")
        real(fd)

    with opened(tmp_path) as source:
        put(source, b"a", key="a")
        monkeypatch.setattr(os, "fsync", broken)
        for _ in range(2):
            refused = source.spool.append([b"b", b"c"], "b")
            assert isinstance(refused, NotNow)
            assert "cannot be written: Input/output error" in refused.detail
            assert source.lag() == 1
        fails = False
        if not late:
            assert put(source, b"b", b"c", key="b") == Appended(1, 2)
        assert put(source, b"a", key="a").is_repeat
        expected = [(0, b"a"), (1, b"b"), (2, b"c")][: 1 if late else 3]
        assert drain(source) == expected
    with opened(tmp_path) as source:
        assert drain(source) == expected


def test_a_file_that_cannot_be_followed_takes_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with opened(tmp_path, segment_bytes=100) as source:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", full)
            for start in range(0, 12, 3):
                put_numbers(source, 3, start)
        assert len(files_of(tmp_path)) == 1
        put_numbers(source, 3, 12)
        put_numbers(source, 3, 15)
        assert len(files_of(tmp_path)) > 1
        assert drain(source) == numbered(18)
    with opened(tmp_path) as source:
        assert drain(source) == numbered(18)
