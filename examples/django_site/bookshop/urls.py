"""What can be asked."""

from books import views
from django.urls import path

urlpatterns = [
    path("", views.index),
    path("search", views.search),
    path("search-inline", views.search_inline),
    path("books/<int:number>", views.book),
    path("books/<int:number>/count", views.count),
]
