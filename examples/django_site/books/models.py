"""A book is one source file."""

import os

from django.db import models


class BookQuerySet(models.QuerySet):
    """How books are looked for."""

    def matching(self, pattern):
        """Those in which this regular expression is found: SQLite asks Python about each text."""
        return self.filter(text__regex=pattern).order_by("title")

    def found(self, pattern):
        """Their titles, and who has looked."""
        titles = list(self.matching(pattern).values_list("title", flat=True))
        return {"titles": titles, "by": os.getpid()}


class Book(models.Model):
    """Its title, its text, and how many words that has, once they are counted, and by whom."""

    title = models.CharField(max_length=200, unique=True)
    text = models.TextField()
    words = models.IntegerField(null=True)
    counted_by = models.IntegerField(null=True)

    objects = BookQuerySet.as_manager()
