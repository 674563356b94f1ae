"""``manage.py load_books``: the standard library's sources become books."""

import sysconfig
from itertools import islice
from pathlib import Path

from django.core.management.base import BaseCommand

from books.models import Book

LIBRARY = Path(sysconfig.get_path("stdlib"))


class Command(BaseCommand):
    """Load them, the first ones in the order of the alphabet."""

    help = "Load the standard library's sources as books."

    def add_arguments(self, parser):
        parser.add_argument("--most", type=int, default=500, help="How many (500).")

    def handle(self, *_args, most, **_options):
        paths = islice(sorted(LIBRARY.glob("*.py")), most)
        books = [
            Book(title=path.name, text=path.read_text(encoding="utf-8", errors="replace"))
            for path in paths
        ]
        made = Book.objects.bulk_create(books, ignore_conflicts=True, batch_size=100)
        self.stdout.write(f"{len(made)} books")
