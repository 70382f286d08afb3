"""Addresses. The language is part of them, so each page has one address in each language."""

from __future__ import annotations

from django.conf.urls.i18n import i18n_patterns
from django.contrib import admin
from django.urls import path

from . import views

urlpatterns = [
    path("admin/", admin.site.urls),
    *i18n_patterns(
        path("", views.continents, name="continents"),
        path("continent/<str:code>/", views.continent, name="continent"),
        path("country/<str:code>/", views.country, name="country"),
        path("city/<int:pk>/", views.city, name="city"),
        path("languages/", views.languages, name="languages"),
        path("language/<str:code>/", views.language, name="language"),
        path("search/", views.search, name="search"),
    ),
]
