import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from service.domain.job import JobSpec, JobState
from service.store import migrations, tables
from service.store.database import open_engine
from service.store.errors import StoreError
from service.store.store import Store

HERE = Path(__file__).parent
ROWS: dict[str, list[dict[str, Any]]] = {
    "schema_version": [{"version": 1}],
    "states": [{"stream": "digits", "state": b"state"}, {"stream": "fraud", "state": b"other"}],
    "offsets": [{"topic": "events", "partition": 3, "next_offset": 2**40}],
    "partitions": [{"topic": "events", "partition": 3, "epoch": 17}],
    "actions": [
        {
            **{"sequence": 4, "id": "a-1", "stream": "digits", "incident_id": "inc-1"},
            **{"kind": "webhook:0", "payload": "{}", "state": "pending", "attempts": 2},
            **{"due_at": 1000.0, "detail": "down", "created_at": 900.0},
        }
    ],
    "jobs": [
        {
            **{"sequence": 7, "id": "j-1", "stream": "digits", "incident_id": "inc-1"},
            **{
                "kind": "fine_tune",
                "spec": '{"change_point": 205}',
                "state": "queued",
                "attempts": 0,
            },
            **{"result": "{}", "created_at": 900.0},
        }
    ],
    "champions": [
        {
            **{"stream": "digits", "sequence": n, "version": n, "reason": "trained"},
            **{"idx": 10 * n, "recorded_at": 800.0 + n},
        }
        for n in (1, 2)
    ],
    "samples": [
        {
            **{"stream": "digits", "idx": n, "id": f"e-{n}", "time": "", "kind": "features"},
            **{"content": b"{}", "label": "3" if n else None},
        }
        for n in range(3)
    ],
}


def make_old(url: str) -> None:
    """A database as the version before Alembic left it."""
    engine = sa.create_engine(url)
    script = (HERE / "schema_1" / f"{engine.dialect.name}.sql").read_text()
    with engine.begin() as connection:
        for statement in script.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
        for name, rows in ROWS.items():
            table = sa.table(name, *map(sa.column, rows[0]))
            connection.execute(table.insert(), rows)
    engine.dispose()


def _condition(index: Any) -> str | None:
    options = index.get("dialect_options", {})
    where = options.get("sqlite_where", options.get("postgresql_where"))
    return None if where is None else str(where)


def schema(url: str) -> dict[str, Any]:
    """Everything that the database knows of its tables."""
    engine = sa.create_engine(url)
    found = sa.inspect(engine)
    described = {
        name: {
            "columns": [
                (c["name"], str(c["type"]), c["nullable"], c["default"])
                for c in found.get_columns(name)
            ],
            "key": found.get_pk_constraint(name),
            "unique": found.get_unique_constraints(name),
            "indexes": [
                (i["name"], i["column_names"], bool(i["unique"]), _condition(i))
                for i in found.get_indexes(name)
            ],
        }
        for name in sorted(found.get_table_names())
        if name not in {"alembic_version", "schema_version"}
    }
    engine.dispose()
    return described


def created(url: str) -> dict[str, Any]:
    """The schema that `metadata` itself makes."""
    engine = sa.create_engine(url)
    tables.metadata.create_all(engine)
    described = schema(url)
    tables.metadata.drop_all(engine)
    engine.dispose()
    return described


@pytest.mark.parametrize("is_old", [False, True])
def test_the_revisions_make_what_the_metadata_describes(any_database: str, is_old: bool) -> None:
    described = created(any_database)
    if is_old:
        make_old(any_database)
    engine = open_engine(any_database)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, tables.metadata) == []
        assert context.get_current_revision() == migrations.newest()
    engine.dispose()
    # What Alembic does not compare too: keys, conditions of indexes, names, defaults.
    assert schema(any_database) == described


def test_the_first_revision_is_the_schema_before_alembic(
    any_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "newest", lambda: migrations.FIRST)
        open_engine(any_database).dispose()
    made = schema(any_database)
    engine = sa.create_engine(any_database)
    with engine.begin() as connection:
        found = sa.MetaData()
        found.reflect(connection)
        found.drop_all(connection)
    engine.dispose()
    make_old(any_database)
    assert schema(any_database) == made


def test_an_old_database_keeps_what_it_holds(any_database: str) -> None:
    make_old(any_database)
    store = Store(any_database, lambda: 1000.0)
    assert store.states(0) == {"digits": b"state", "fraud": b"other"}
    assert store.offsets() == {("events", 3): 2**40}
    assert [(s.index, s.label) for s in store.samples("digits")] == [(0, None), (1, "3"), (2, "3")]
    assert [c.version for c in store.champion_history("digits")] == [1, 2]
    (job,) = store.jobs(state=JobState.QUEUED)
    assert (job.id, job.spec) == ("j-1", JobSpec(change_point=205))
    (action,) = store.claim_actions(1000.0, 60.0)
    assert (action.id, action.attempts) == ("a-1", 2)
    assert store.claim(3) == 1
    store.close()


def test_opening_again_changes_nothing(any_database: str) -> None:
    make_old(any_database)
    open_engine(any_database).dispose()
    before = schema(any_database)
    open_engine(any_database).dispose()
    assert schema(any_database) == before


def test_an_upgrade_that_fails_leaves_the_old_database(
    any_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_old(any_database)
    before = schema(any_database)
    original = sa.Connection.execute

    def fail(self: sa.Connection, statement: Any, *args: Any, **kwargs: Any) -> Any:
        if "leased_until" in str(statement):  # the last revision
            raise sa.exc.OperationalError("x", {}, OSError("disk I/O error"))
        return original(self, statement, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(sa.Connection, "execute", fail)
        with pytest.raises(StoreError, match="disk I/O error"):
            open_engine(any_database)
    assert schema(any_database) == before
    store = Store(any_database, lambda: 1000.0)
    assert store.states(0) == {"digits": b"state", "fraud": b"other"}
    store.close()


def test_a_database_of_a_newer_version_is_refused(any_database: str) -> None:
    engine = open_engine(any_database)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0099'")
    engine.dispose()
    message = (
        f"has schema 0099, this version of Shiftwatch knows schemas up to {migrations.newest()}"
    )
    with pytest.raises(StoreError, match=message):
        open_engine(any_database)


def test_a_number_that_no_version_wrote_is_refused(any_database: str) -> None:
    make_old(any_database)
    engine = sa.create_engine(any_database)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE schema_version SET version = 99")
    engine.dispose()
    with pytest.raises(StoreError, match="has schema 99, this version of Shiftwatch knows"):
        open_engine(any_database)


@pytest.mark.parametrize("is_old", [False, True])
def test_processes_that_start_at_once_upgrade_once(any_database: str, is_old: bool) -> None:
    if is_old:
        make_old(any_database)
    program = (
        "import sys; from service.store.database import open_engine; print('ready', flush=True); "
        "sys.stdin.readline(); open_engine(sys.argv[1]).dispose()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, any_database],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    store = Store(any_database, lambda: 1000.0)
    assert len(store.states(0)) == (2 if is_old else 0)
    store.close()


def test_the_revisions_are_in_the_wheel() -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel")
    builder = wheel.WheelBuilder(str(HERE.parents[2]))
    shipped = {file.distribution_path for file in builder.recurse_included_files()}
    names = {path.name for path in Path(migrations.__file__).parent.glob("versions/*.py")}
    assert len(names) > 3
    assert {f"service/store/migrations/versions/{name}" for name in names} <= shipped
