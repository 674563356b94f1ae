"""``offload``: queries and calls in a worker, as if they were made here."""

from __future__ import annotations

import os
import time

import gevent
import pytest
from django.conf import settings as django_settings
from django.db import IntegrityError, connection, connections, transaction
from django.db.models import Count, Prefetch, Sum
from django.test import override_settings
from django_site.library import work
from django_site.library.models import Author, Book
from worlds import wait_until

import gtaskman
from gtaskman import default
from gtaskman.contrib.django import AtomicBlockError, Offloaded, offload
from gtaskman.testing import eager

ENDING = 30  # seconds, for whatever is on its way


@pytest.fixture
def apart():
    """Whoever asks for a connection in this process fails: all happens in workers."""

    def refuse(*_args):
        raise AssertionError("a query was run in this process")

    with connection.execute_wrapper(refuse):
        yield


@pytest.fixture
def shelf(books, apart):
    """The books, to which this process has no access but through workers."""
    return offload(books.objects)


# --- rows ----------------------------------------------------------------------------------------


def test_rows_of_a_query_set_are_instances_of_its_model(shelf):
    rows = offload(Book.objects.filter(lines__gt=1000).order_by("-lines"))
    assert [book.title for book in rows] == ["codes", "abacus"]
    assert {type(book) for book in rows} == {Book}
    assert [(book._state.db, book._state.adding) for book in rows] == [("default", False)] * 2
    assert (len(rows), bool(rows), rows[0].lines) == (2, True, 5000)
    assert rows[0] in rows
    assert [book.title for book in reversed(rows)] == ["abacus", "codes"]


@pytest.mark.parametrize(
    "target", [Book, Book.objects, Book.objects.all()], ids=["model", "manager", "all"]
)
def test_a_model_and_a_manager_will_do(shelf, target):
    assert len(offload(target)) == 3


def test_rows_are_fetched_once_and_only_when_they_are_needed(shelf):
    rows = shelf.filter(lines__lt=1000)
    assert "not fetched" in repr(rows)
    assert rows.rows() is rows.rows()
    assert repr(rows) == "<Offloaded library.Book, 1 rows>"
    assert [book.title for book in offload(rows)] == ["basics"]


def test_what_describes_a_query_runs_none(shelf):
    described = (
        shelf.all().exclude(lines=1).filter(author=None).order_by("pk").reverse().distinct()
        .select_related("author").only("title", "author").using("default")[:5]
    )  # fmt: skip
    assert isinstance(described, Offloaded)
    assert [book.title for book in described] == ["codes"]


@pytest.mark.parametrize(
    ("describe", "expected"),
    [
        (lambda books: books.values("title", "lines"), {"title": "abacus", "lines": 1200}),
        (lambda books: books.values_list("title", "lines"), ("abacus", 1200)),
        (lambda books: books.values_list("title", flat=True), "abacus"),
        (lambda books: books.annotate(twice=Sum("lines") * 2).values_list("twice"), (2400,)),
        (lambda books: books.values("author__name").annotate(Count("pk")).order_by("-pk__count"),
         {"author__name": "ada", "pk__count": 2}),
    ],
)  # fmt: skip
def test_rows_are_whatever_the_query_set_says(shelf, describe, expected):
    assert describe(shelf)[0] == expected
    assert next(iter(describe(shelf))) == expected
    assert offload(describe(Book.objects)).rows()[0] == expected


def test_named_rows(shelf):
    row = shelf.values_list("title", "lines", named=True).first()
    assert (row.title, row.lines) == ("abacus", 1200)


def test_relations_come_along_if_they_are_asked_for(shelf):
    assert shelf.select_related("author")[0].author.name == "ada"
    long = Prefetch("books", Book.objects.filter(lines__gt=1000), to_attr="long")
    (ada,) = offload(Author.objects.prefetch_related("books", long))
    assert [book.title for book in ada.books.all()] == ["abacus", "basics"]
    assert [book.title for book in ada.long] == ["abacus"]
    # The manager of a relation, and what it knows of the other side.
    rows = offload(ada.books).order_by("title")
    assert rows.count() == 2
    assert rows[1].author is not None
    # What its manager would fill in, a query set would not.
    with pytest.raises(gtaskman.TaskTravelError, match="Offload a function that calls it"):
        offload(ada.books).create(title="without an author")
    assert shelf.count() == 3


def test_items_and_slices(shelf):
    assert shelf[1].title == "basics"
    assert [book.title for book in shelf[1:]] == ["basics", "codes"]
    assert [book.title for book in shelf[::2]] == ["abacus", "codes"]
    with pytest.raises(IndexError):
        shelf[7]
    assert [book.title for book in shelf.iterator(chunk_size=1)] == ["abacus", "basics", "codes"]


def test_query_sets_combine(shelf):
    short, long = (
        shelf.order_by().filter(**each) for each in ({"lines__lt": 1000}, {"lines__gt": 3000})
    )
    assert {book.title for book in short | long} == {"basics", "codes"}
    assert list(short & long) == []
    assert short.union(long).count() == 2
    assert shelf.filter(pk__in=long).get().title == "codes"


# --- single answers ------------------------------------------------------------------------------


def test_single_answers(shelf):
    assert shelf.get(title="abacus").lines == 1200
    assert shelf.filter(lines__gt=1000).first().title == "abacus"
    assert shelf.last().title == "codes"
    assert shelf.earliest("lines").title == "basics"
    assert shelf.count() == 3
    assert shelf.filter(title="none").first() is None
    assert shelf.exists() is True
    assert shelf.filter(title="none").exists() is False
    assert shelf.aggregate(all=Sum("lines")) == {"all": 6500}
    assert {book.title for book in shelf.in_bulk().values()} == {"abacus", "basics", "codes"}
    assert shelf.contains(shelf.get(title="codes")) is True
    assert "library_book" in shelf.explain()


def test_methods_of_ones_own_run_in_a_worker(shelf):
    total, pid = shelf.total()
    assert total == 6500
    assert pid != os.getpid()
    rows = shelf.long()
    assert isinstance(rows, Offloaded)
    assert [book.title for book in rows.order_by("-title")] == ["codes", "abacus"]


def test_what_a_query_set_has_not(shelf):
    assert shelf.model is Book
    assert shelf.db == "default"
    for name in ("nonsense", "_private"):
        with pytest.raises(AttributeError):
            getattr(shelf, name)
    with pytest.raises(AttributeError, match="index"):
        shelf.index(1)


def test_raw_queries(shelf):
    rows = offload(Book.objects.raw("SELECT * FROM library_book WHERE lines > %s", [1000]))
    assert {book.title for book in rows} == {"abacus", "codes"}


def test_writes(shelf):
    dune = shelf.create(title="dune", lines=9)
    assert (dune.pk is not None, dune._state.db) == (True, "default")
    assert shelf.filter(lines__lt=10).update(lines=10) == 1
    assert shelf.get_or_create(title="dune") == (dune, False)
    assert shelf.update_or_create(title="dune", defaults={"lines": 11})[0].lines == 11
    assert len(shelf.bulk_create([Book(title="emma"), Book(title="faust")])) == 2
    assert shelf.filter(title__in=["dune", "emma", "faust"]).delete()[0] == 3
    assert shelf.count() == 3


# --- databases -----------------------------------------------------------------------------------


def test_each_database_is_itself(books):
    books.objects.using("other").create(title="elsewhere")
    elsewhere = offload(books.objects.using("other")).get()
    assert (elsewhere.title, elsewhere._state.db) == ("elsewhere", "other")
    assert offload(books).using("other").count() == 1
    assert offload(books).count() == 3
    assert offload(books.objects.db_manager("other")).create(title="more")._state.db == "other"


class Replica:
    """A router that reads elsewhere than it writes."""

    def db_for_read(self, _model, **_hints):
        return "other"

    def db_for_write(self, _model, **_hints):
        return "default"


def test_routers_decide_here(books):
    books.objects.using("other").create(title="copy")
    with override_settings(DATABASE_ROUTERS=[Replica()]):
        assert offload(books).get().title == "copy"
        assert offload(books).create(title="new")._state.db == "default"
        # A method of one's own asks the routers of its worker, of which there are none.
        assert offload(books).total()[0] == 6500
    assert offload(books).count() == 4


def test_workers_use_the_databases_of_a_test_run(books, tmp_path):
    known = connections.settings["default"]
    before = known["NAME"]
    assert offload(books).count() == 3
    connections["default"].close()
    known["NAME"] = str(tmp_path / "test.sqlite3")  # as Django's test runner does
    try:
        with connections["default"].schema_editor() as editor:
            editor.create_model(Author)
            editor.create_model(Book)
        assert offload(books).count() == 0
        offload(work.add, "for this test only")
        assert [book.title for book in books.objects.all()] == ["for this test only"]
    finally:
        connections["default"].close()
        known["NAME"] = before
    assert offload(books).count() == 3


def test_a_database_in_memory_is_refused(books):
    known = connections.settings["other"]
    before, known["NAME"] = known["NAME"], ":memory:"
    del connections["other"]
    try:
        with pytest.raises(gtaskman.ConfigurationError, match="in the memory of this process"):
            offload(books.objects.using("other")).count()
    finally:
        known["NAME"] = before
        del connections["other"]


# --- errors --------------------------------------------------------------------------------------


def test_errors_are_those_of_django(shelf):
    with pytest.raises(Book.DoesNotExist, match="matching query does not exist") as caught:
        shelf.get(title="none")
    assert "errands.py" in str(caught.value.__cause__)  # the worker's own traceback
    with pytest.raises(Book.MultipleObjectsReturned, match="it returned 3"):
        shelf.get()
    with pytest.raises(Author.DoesNotExist):
        offload(Author).get(name="nobody")
    with pytest.raises(IntegrityError, match="UNIQUE"):
        shelf.create(title="abacus")
    with pytest.raises(ValueError, match="Field names"):
        shelf.bulk_update([], [])


def test_mistakes_in_a_query_are_seen_here(shelf):
    from django.core.exceptions import FieldError

    with pytest.raises(FieldError, match="nonsense"):
        shelf.filter(nonsense=1)


@pytest.mark.parametrize(
    ("target", "args", "message"),
    [(Book.objects.all(), (1,), "no further arguments"), (7, (), "takes a query set")],
    ids=["arguments", "number"],
)
def test_what_cannot_be_offloaded_is_refused(target, args, message):
    with pytest.raises(gtaskman.TaskTravelError, match=message):
        offload(target, *args)


def test_a_worker_that_dies(shelf):
    with pytest.raises(gtaskman.WorkerCrashed, match="SIGKILL"):
        offload(work.die)
    assert shelf.count() == 3


# --- calls ---------------------------------------------------------------------------------------


def test_callables_run_in_a_worker(books):
    assert offload(os.getpid) != os.getpid()
    assert offload(work.add, "new", lines=7).lines == 7
    assert books.objects.get(title="new").lines == 7
    # Rows that a function has not fetched are fetched there.
    assert [book.title for book in offload(work.longest, 2)] == ["codes", "abacus"]
    assert offload(lambda: Book.objects.count()) == 4


def test_a_whole_transaction_goes_in_one_call(books):
    with pytest.raises(RuntimeError, match="half way"):
        offload(work.add_two_and_fail)
    assert books.objects.count() == 3


def test_inside_a_task_it_is_done_right_there(books):
    from django_site.library import tasks

    assert tasks.offloading.submit().get(ENDING) == [3, True]


# --- transactions --------------------------------------------------------------------------------


def test_inside_a_transaction_it_is_refused(books):
    with transaction.atomic():
        books.objects.create(title="uncommitted")
        for attempt in (
            lambda: offload(books).count(),
            lambda: list(offload(books)),
            lambda: offload(work.add, "x"),
            lambda: offload(books.objects.raw("SELECT * FROM library_book")),
        ):
            with pytest.raises(AtomicBlockError, match="in_atomic='inline'"):
                attempt()
        # What has been fetched before is there; and another database is another matter.
        assert offload(books.objects.using("other")).count() == 0


@pytest.mark.parametrize(("in_atomic", "count"), [("inline", 4), ("allow", 3)])
@pytest.mark.parametrize("said", ["in the call", "in the settings"])
def test_unless_it_is_told_otherwise(books, monkeypatch, in_atomic, count, said):
    told = {"in_atomic": in_atomic}
    if said == "in the settings":
        monkeypatch.setattr(django_settings, "GTASKMAN", told)
        told = {}
    with transaction.atomic():
        books.objects.create(title="uncommitted")
        assert offload(books, **told).count() == count
        assert len(offload(books.objects.all(), **told)) == count
        assert offload(work.count, **told) == count
        assert len(offload(books.objects.raw("SELECT * FROM library_book"), **told)) == count
        transaction.set_rollback(True)


def test_a_word_that_means_nothing(books):
    with pytest.raises(gtaskman.ConfigurationError, match="in_atomic takes 'error', 'inline'"):
        offload(books, in_atomic="maybe")


# --- waiting -------------------------------------------------------------------------------------


def test_the_hub_is_free_meanwhile(books):
    turns = []
    ticking = gevent.spawn(lambda: [(turns.append(1), gevent.sleep(0.01)) for _ in range(1000)])
    offload(time.sleep, 0.3)
    ticking.kill()
    assert len(turns) > 5


def test_a_caller_waits_no_longer_than_it_says(books, tmp_path):
    marker = tmp_path / "marker"
    with pytest.raises(TimeoutError, match=r"within 0.3 s, and is cancelled"):
        offload(work.mark_after, 60, str(marker), timeout=0.3)
    assert offload(books, timeout=ENDING).count() == 3
    with pytest.raises(TimeoutError):
        offload(books, timeout=1e-9).count()


def test_who_goes_away_leaves_nothing_running(books):
    manager = default.manager()

    def at_work() -> int:
        numbers = manager.stats()
        return numbers["pool"]["current_tasks"] + numbers["queue"]["current_tasks"]

    wait_until(lambda: not at_work(), ENDING)
    waiting = gevent.spawn(offload, work.forever)
    wait_until(at_work, ENDING)
    waiting.kill()
    assert isinstance(waiting.value, gevent.GreenletExit)
    wait_until(lambda: not at_work(), ENDING)


def test_with_an_eager_manager_all_is_done_here(fresh, books):
    with eager(), transaction.atomic():
        books.objects.create(title="uncommitted")
        assert offload(books).count() == len(offload(books)) == 4
        assert offload(os.getpid) == os.getpid()
        with pytest.raises(books.DoesNotExist):
            offload(books).get(title="none")


def test_with_tasks_on_a_server_queries_still_go_to_workers_of_this_process(fresh, books):
    default.prefer("redis://127.0.0.1:1", max_processes=1)
    assert offload(books).count() == 3
