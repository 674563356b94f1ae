"""Counting words: a task of whichever kind this Django has."""

import os
import re

from django import VERSION
from django.db import transaction

from books.models import Book
from gtaskman.contrib.django import submit_on_commit, task


def counted(number: int) -> int:
    """Count the words of a book, and write down how many there are."""
    with transaction.atomic():
        book = Book.objects.get(pk=number)
        book.words = len(re.findall(r"\w+", book.text))
        book.counted_by = os.getpid()
        book.save(update_fields=["words", "counted_by"])
    return book.words


if VERSION >= (6,):
    import django.tasks

    @django.tasks.task
    def count_words(number):
        """For ``django.tasks``."""
        return counted(number)

    def have_counted(number: int) -> str:
        """Have a book's words counted once the transaction has committed; gives the task's id."""
        return count_words.enqueue(number).id

else:

    @task(timeout=60)
    def count_words(number: int) -> int:
        """For gtaskman alone."""
        return counted(number)

    def have_counted(number: int) -> str:
        """Have a book's words counted once the transaction has committed; gives the task's id."""
        return submit_on_commit(count_words, number)
