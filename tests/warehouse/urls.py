from __future__ import annotations

from django.contrib import admin
from django.urls import path

from tests.warehouse import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("write/", views.write),
    path("non-atomic/", views.non_atomic),
]
