"""Opens a connection while it is imported, as some applications do."""

from django_site.library.models import Book

found = Book.objects.count()
