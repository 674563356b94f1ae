"""Books and their authors."""

import os

from django.db import models


class Author(models.Model):
    name = models.CharField(max_length=100, unique=True)


class BookQuerySet(models.QuerySet):
    def long(self):
        return self.filter(lines__gte=1000)

    def total(self):
        """The sum of all lines, and who has made it."""
        return sum(self.values_list("lines", flat=True)), os.getpid()


class Book(models.Model):
    title = models.CharField(max_length=100, unique=True)
    lines = models.IntegerField(default=0)
    author = models.ForeignKey(Author, models.CASCADE, null=True, related_name="books")

    objects = BookQuerySet.as_manager()

    class Meta:
        ordering = ["title"]

    def __str__(self):
        return self.title
