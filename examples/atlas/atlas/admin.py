from __future__ import annotations

from django.contrib import admin

from .models import City, Continent, ContinentName, Country, CountryName, Language, LanguageName


class ContinentNames(admin.TabularInline):
    model = ContinentName
    extra = 0


class CountryNames(admin.TabularInline):
    model = CountryName
    extra = 0


class LanguageNames(admin.TabularInline):
    model = LanguageName
    extra = 0


@admin.register(Continent)
class ContinentAdmin(admin.ModelAdmin):
    list_display = ["code", "name"]
    inlines = [ContinentNames]


@admin.register(Language)
class LanguageAdmin(admin.ModelAdmin):
    list_display = ["code", "name"]
    search_fields = ["name"]
    inlines = [LanguageNames]


@admin.register(Country)
class CountryAdmin(admin.ModelAdmin):
    list_display = ["code", "name", "continent", "population"]
    list_select_related = ["continent"]
    list_filter = ["continent"]
    search_fields = ["name", "code"]
    autocomplete_fields = ["languages", "neighbours"]
    inlines = [CountryNames]


@admin.register(City)
class CityAdmin(admin.ModelAdmin):
    list_display = ["name", "country", "population"]
    list_select_related = ["country"]
    search_fields = ["name"]
    autocomplete_fields = ["country"]
