from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import F

from tests.warehouse.models import Item, Label, Order


class OrderInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Order
    extra = 0
    fields = ("customer", "amount", "price")


@admin.register(Item)
class ItemAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("code", "amount")
    list_editable = ("amount",)
    inlines = (OrderInline,)
    actions = ("restock",)

    def restock(self, request: Any, queryset: Any) -> None:
        queryset.update(amount=F("amount") + 1)


admin.site.register(Label)
