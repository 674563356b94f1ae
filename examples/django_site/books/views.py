"""The views: none of them lets the hub wait for the database."""

import os

from django.http import Http404, HttpResponseBadRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from books.models import Book
from books.tasks import have_counted
from gtaskman.contrib.django import offload

PATIENCE = 30  # seconds


def index(_request):
    """Trivial: it takes as long as the hub lets it wait."""
    return JsonResponse({"answered_by": os.getpid()})


def search(request):
    """A query that computes for a while, in a worker."""
    pattern = request.GET.get("pattern")
    if not pattern:
        return HttpResponseBadRequest("pattern=...")
    return JsonResponse(offload(Book.objects, timeout=PATIENCE).found(pattern))


def search_inline(request):
    """The same in the hub, for comparison."""
    return JsonResponse(Book.objects.found(request.GET["pattern"]))


def book(_request, number):
    """One book, without its text."""
    try:
        found = offload(Book, timeout=PATIENCE).defer("text").get(pk=number)
    except Book.DoesNotExist:
        raise Http404(f"no book {number}") from None
    said = {"title": found.title, "words": found.words, "counted_by": found.counted_by}
    return JsonResponse(said)


@csrf_exempt
@require_POST
def count(_request, number):
    """Have its words counted; whoever asks for the book later sees them."""
    if not offload(Book, timeout=PATIENCE).filter(pk=number).exists():
        raise Http404(f"no book {number}")
    return JsonResponse({"task": have_counted(number)}, status=202)
