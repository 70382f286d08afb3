"""Views that write; the settings say whether each request is a transaction."""

from __future__ import annotations

from django.db import transaction
from django.http import HttpRequest, HttpResponse

from tests.warehouse.models import Label


def write(request: HttpRequest) -> HttpResponse:
    Label.objects.update(name="written")
    if request.GET.get("raises"):
        raise KeyError
    if request.GET.get("rolls_back"):
        transaction.set_rollback(True)
    return HttpResponse(status=int(request.GET.get("status", 200)))


non_atomic = transaction.non_atomic_requests(lambda request: write(request))
