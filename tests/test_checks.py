from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from django.apps import AppConfig, apps
from django.core import checks
from django.core.cache.backends.base import BaseCache, default_key_func
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import CheckMessage
from django.db import models
from django.test import override_settings
from django.test.utils import isolate_apps

import caching.checks
from caching.base import CachingManager, CachingMixin
from tests.testapp.models import PublishedManager

BACKENDS = "django.core.cache.backends"
MEMCACHED = {"BACKEND": f"{BACKENDS}.memcached.PyMemcacheCache", "LOCATION": "127.0.0.1:11211"}
REDIS = {"BACKEND": f"{BACKENDS}.redis.RedisCache", "LOCATION": "redis://127.0.0.1:6379"}
LOCMEM = {"BACKEND": f"{BACKENDS}.locmem.LocMemCache"}
DUMMY = {"BACKEND": f"{BACKENDS}.dummy.DummyCache"}
FILES = {"BACKEND": f"{BACKENDS}.filebased.FileBasedCache", "LOCATION": "/nowhere/a,b"}
DATABASE = {"BACKEND": f"{BACKENDS}.db.DatabaseCache", "LOCATION": "a,b"}


class OwnFiles(FileBasedCache):
    """A subclass is no better."""

    incr = LocMemCache.incr


class Unknown(BaseCache):
    """Somebody's backend that counts by itself."""

    def __init__(self, location: object, params: dict[str, Any]) -> None:
        super().__init__(params)

    incr = LocMemCache.incr


class Counting(Unknown):
    """Somebody's backend that leaves the counting to Django's base class."""

    incr = BaseCache.incr


class Keyless(LocMemCache):
    """Somebody's backend that has no key function at all."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        del self.key_func


#: Stands for a function of the project's own; what it returns does not matter.
by_tenant = partial(default_key_func)


def found(
    cache_machine: object = None,
    default: dict[str, Any] = MEMCACHED,
    app_configs: Sequence[AppConfig] = (),
    others: dict[str, Any] | None = None,
    **settings: Any,
) -> list[CheckMessage]:
    """Return what the registered checks find of ours; no models are looked at unless given."""
    options = {} if cache_machine is None else cache_machine
    cleared = {"DEBUG": False, "CACHES": {"default": default} | (others or {}), "CACHE_MACHINE": options}
    with override_settings(**cleared | settings):
        every = checks.run_checks(app_configs=app_configs, tags=[checks.Tags.caches])
    return [message for message in every if message.id.startswith("caching.")]


def ids(*args: Any, **kwargs: Any) -> list[str]:
    return sorted(message.id for message in found(*args, **kwargs))


def only(*args: Any, **kwargs: Any) -> CheckMessage:
    (message,) = found(*args, **kwargs)
    return message


# The checks as a whole


def test_every_check_is_registered() -> None:
    named = {check for name, check in vars(caching.checks).items() if name.startswith("check_")}
    assert named == set(caching.checks.CHECKS)
    assert named <= set(checks.registry.registry.get_checks())


def test_registering_again_adds_nothing() -> None:
    before = len(checks.registry.registry.get_checks())
    caching.checks.register()
    assert len(checks.registry.registry.get_checks()) == before


def test_ids_are_unique_and_say_their_level() -> None:
    calls = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(caching.checks)))
        if isinstance(node, ast.Call) and any(keyword.arg == "id" for keyword in node.keywords)
    ]
    found = [
        (call.func.attr, keyword.value.value)  # type: ignore[attr-defined]
        for call in calls
        for keyword in call.keywords
        if keyword.arg == "id"
    ]
    assert len({identifier for _, identifier in found}) == len(found) == len(caching.checks.CHECKS)
    for level, identifier in found:
        assert re.fullmatch(rf"caching\.{level[0]}\d{{3}}", identifier)


def test_nothing_is_found_where_all_is_well() -> None:
    assert found() == []
    assert found(default=REDIS) == []
    assert (
        found({"CACHE": "default", "PREFIX": "shop:", "TABLES": ["legacy"], "REPLICAS": {"other": 1}}) == []
    )


# The settings


def test_settings_of_the_session_that_nothing_stands_for() -> None:
    message = only({"VARY_SETTINGS": ["app.tenant"]})
    assert (message.id, message.level) == ("caching.W004", checks.WARNING)
    assert "CACHE_MACHINE['VARY']" in message.msg
    assert found({"VARY_SETTINGS": ["app.tenant"], "VARY": by_tenant}) == []
    assert found({"VARY_SETTINGS": []}) == []


@pytest.mark.parametrize("value", ["default", ["CACHE"], 5])
def test_settings_that_are_no_dict(value: object) -> None:
    message = only(value)
    assert (message.id, message.level) == ("caching.E001", checks.ERROR)
    assert message.msg == f"CACHE_MACHINE is {value!r}."
    assert message.hint.startswith("It takes a dict with any of: CACHE, ")


def test_wrong_value() -> None:
    message = only({"TIMEOUT": "60"})
    assert (message.id, message.level) == ("caching.E001", checks.ERROR)
    assert message.msg == "CACHE_MACHINE['TIMEOUT'] is '60'."
    assert message.hint == "It takes 0 or more seconds as a number, None for no expiry, or NO_CACHE."


def test_wrong_values_are_all_told_and_once_each() -> None:
    messages = found({"CACHE": "third", "TIMEOUT": "60", "VARY": "nowhere.at_all"})
    assert {message.id for message in messages} == {"caching.E001"}
    assert sorted(message.msg.split(" is ")[0] for message in messages) == [
        "CACHE_MACHINE['CACHE']",
        "CACHE_MACHINE['TIMEOUT']",
        "CACHE_MACHINE['VARY']",
    ]


def test_wrong_value_under_a_name_of_old() -> None:
    assert only(CACHE_PREFIX="two words").msg == "CACHE_PREFIX is 'two words'."


def test_alias_of_no_cache_names_those_there_are() -> None:
    message = only({"FLUSH_LIST_CACHE": "third"}, others={"second": REDIS})
    assert message.id == "caching.E001"
    assert message.hint.endswith(": default, second.")


def test_unknown_name_with_the_nearest_allowed() -> None:
    message = only({"timout": 60})
    assert (message.id, message.level) == ("caching.E002", checks.ERROR)
    assert message.msg == "CACHE_MACHINE holds the unknown name 'timout'."
    assert message.hint.startswith("Did you mean 'TIMEOUT'? Allowed are: CACHE, FLUSH_LIST_CACHE, ")


@pytest.mark.parametrize("name", ["COLOUR_SCHEME", 5, None])
def test_unknown_name_like_no_other(name: object) -> None:
    assert only({name: 1}).hint.startswith("Allowed are: ")


def test_no_invalidation_cannot_be_had() -> None:
    message = only(CACHE_MACHINE_NO_INVALIDATION=True)
    assert (message.id, message.level) == ("caching.E003", checks.ERROR)
    assert "django.core.cache" in message.hint
    assert found(CACHE_MACHINE_NO_INVALIDATION=False) == []


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("CACHE_INVALIDATE_ON_CREATE", "a new row always flushes"),
        ("CACHE_MACHINE_USE_REDIS", "CACHE_MACHINE['CACHE']"),
        ("REDIS_BACKEND", "CACHE_MACHINE['CACHE']"),
        ("FETCH_BY_ID", "rows are stored"),
    ],
)
def test_setting_that_is_not_used_any_more(name: str, instead: str) -> None:
    message = only(**{name: None})
    assert (message.id, message.level) == ("caching.W001", checks.WARNING)
    assert message.msg == f"The setting {name} is not used any more."
    assert instead in message.hint


def test_settings_of_old_that_still_count_are_not_complained_of() -> None:
    assert found(CACHE_PREFIX="old:", CACHE_COUNT_TIMEOUT=60, CACHE_EMPTY_QUERYSETS=False) == []


# The caches


@pytest.mark.parametrize(
    ("cache", "reason"),
    [
        (FILES, "its get_many reads one key after the other"),
        (FILES | {"BACKEND": "tests.test_checks.OwnFiles"}, "its get_many reads one key after the other"),
        (DATABASE, "a rollback would undo a flush"),
        ({"BACKEND": "tests.test_checks.Counting"}, "two flushes may get the same"),
    ],
)
def test_cache_that_cannot_number_flushes(cache: dict[str, Any], reason: str) -> None:
    message = only(default=cache)
    assert (message.id, message.level) == ("caching.E004", checks.ERROR)
    assert message.msg.startswith(f"The cache 'default' is a {cache['BACKEND'].rpartition('.')[2]}, ")
    assert reason in message.msg
    assert "memcached or Redis" in message.hint


def test_cache_in_files_or_database_for_the_results_alone() -> None:
    options = {"CACHE": "results", "FLUSH_LIST_CACHE": "default"}
    assert ids(options, others={"results": FILES}) == ["caching.E004"]
    assert ids(options, others={"results": DATABASE}) == ["caching.E004"]


def test_results_need_no_counting() -> None:
    options = {"CACHE": "results", "FLUSH_LIST_CACHE": "default"}
    assert found(options, others={"results": {"BACKEND": "tests.test_checks.Counting"}}) == []


def test_caches_that_are_not_used_are_not_looked_at() -> None:
    assert found(others={"files": FILES, "local": LOCMEM}) == []


@pytest.mark.parametrize(
    "cache", [DUMMY, DUMMY | {"LOCATION": "a,b"}, {"BACKEND": "tests.test_checks.Unknown"}]
)
def test_cache_that_keeps_nothing_or_is_unknown_is_fine(cache: dict[str, Any]) -> None:
    assert found(default=cache) == []


@pytest.mark.parametrize(
    "cache",
    [
        MEMCACHED | {"LOCATION": ["a:11211", "b:11211"]},
        MEMCACHED | {"LOCATION": ("a:11211", "b:11211")},
        MEMCACHED | {"LOCATION": "a:11211;b:11211"},
        MEMCACHED | {"LOCATION": "a:11211,b:11211"},
        REDIS | {"LOCATION": ["redis://:secret@a", "redis://:secret@b"]},
        {"BACKEND": "tests.test_checks.Unknown", "LOCATION": ["a", "b"]},
    ],
)
def test_flush_list_on_several_servers(cache: dict[str, Any]) -> None:
    message = only(default=cache)
    assert (message.id, message.level) == ("caching.E005", checks.ERROR)
    assert message.msg == "The flush list lies in the cache 'default', whose LOCATION names 2 servers."
    assert "CACHE_MACHINE['FLUSH_LIST_CACHE']" in message.hint
    assert "secret" not in str(message)


def test_results_may_be_on_several_servers() -> None:
    several = MEMCACHED | {"LOCATION": ["a:11211", "b:11211"]}
    one = {"one": MEMCACHED | {"LOCATION": ["a:11211"]}}
    assert found({"FLUSH_LIST_CACHE": "one"}, default=several, others=one) == []


def test_local_memory_has_a_name_and_no_servers() -> None:
    assert found(default=LOCMEM | {"LOCATION": "a,b"}, DEBUG=True) == []


@pytest.mark.parametrize("function", ["tests.test_checks.by_tenant", by_tenant])
def test_flush_list_behind_a_key_function(function: object) -> None:
    message = only(default=MEMCACHED | {"KEY_FUNCTION": function})
    assert (message.id, message.level) == ("caching.E006", checks.ERROR)
    assert "CACHE_MACHINE['FLUSH_LIST_CACHE']" in message.hint
    assert "CACHE_MACHINE['VARY']" in message.hint


def test_results_may_be_behind_a_key_function() -> None:
    options = {"FLUSH_LIST_CACHE": "one"}
    assert found(options, default=MEMCACHED | {"KEY_FUNCTION": by_tenant}, others={"one": MEMCACHED}) == []


def test_key_function_of_django_and_none_at_all_are_fine() -> None:
    named = MEMCACHED | {"KEY_FUNCTION": f"{BACKENDS}.base.default_key_func"}
    assert found(default=named) == []
    assert found(default=LOCMEM | {"BACKEND": "tests.test_checks.Keyless"}, DEBUG=True) == []


def test_local_memory_outside_of_development() -> None:
    message = only(default=LOCMEM)
    assert (message.id, message.level) == ("caching.W002", checks.WARNING)
    assert message.msg == "The cache 'default' is local memory, and DEBUG is False."
    assert "MAX_ENTRIES" in message.hint
    assert found(default=LOCMEM, DEBUG=True) == []


def test_local_memory_for_the_flush_list_alone() -> None:
    assert "'local'" in only({"FLUSH_LIST_CACHE": "local"}, others={"local": LOCMEM}).msg


# The models


def of_testapp(**options: Any) -> set[tuple[str, str]]:
    messages = found(options, app_configs=[apps.get_app_config("testapp")])
    return {(message.id, message.obj._meta.object_name) for message in messages}


def test_models_of_the_other_tests() -> None:
    found = of_testapp()
    assert {("caching.I001", "Article"), ("caching.I002", "Report")} <= found
    assert not {"Author", "Book", "Paperback", "Shop", "Setting", "Log"} & {name for _, name in found}


def test_every_app_is_looked_at_unless_some_are_named() -> None:
    assert "caching.I001" in ids(app_configs=None)
    assert found(app_configs=[apps.get_app_config("auth")]) == []


def test_relations_to_a_manager_that_leaves_rows_out() -> None:
    (message,) = caching.checks.check_relations([apps.get_app_config("testapp")])
    assert message.level == checks.INFO
    assert "testapp.Article" in message.msg
    assert "Meta.base_manager_name" in message.hint


def test_relations_where_the_project_named_a_manager() -> None:
    with isolate_apps("tests.testapp") as isolated:

        class Named(CachingMixin, models.Model):
            objects = PublishedManager()
            everything = CachingManager()

            class Meta:
                app_label = "testapp"
                base_manager_name = "everything"

        class Unnamed(CachingMixin, models.Model):
            objects = PublishedManager()
            everything = CachingManager()

            class Meta:
                app_label = "testapp"

        (message,) = caching.checks.check_relations([isolated.get_app_config("testapp")])
        assert message.obj is Unnamed


def test_mixin_without_a_caching_manager() -> None:
    with isolate_apps("tests.testapp") as isolated:

        class Plain(CachingMixin, models.Model):
            class Meta:
                app_label = "testapp"

        class Second(CachingMixin, models.Model):
            objects = models.Manager()
            cached = CachingManager()

            class Meta:
                app_label = "testapp"

        class Neither(models.Model):
            class Meta:
                app_label = "testapp"

        (message,) = found(app_configs=[isolated.get_app_config("testapp")])
        assert (message.id, message.level, message.obj) == ("caching.W003", checks.WARNING, Plain)
        assert message.hint == "Give it one: objects = CachingManager()."


def test_unmanaged_model_until_its_table_is_declared() -> None:
    (message,) = caching.checks.check_unmanaged(app_configs=[apps.get_app_config("testapp")])
    assert message.level == checks.INFO
    assert "'testapp_report'" in message.msg
    assert "CACHE_MACHINE['TABLES']" in message.hint
    assert ("caching.I002", "Report") not in of_testapp(TABLES={"Testapp_Report": ["testapp_book"]})


def test_unmanaged_model_that_is_not_cached() -> None:
    with isolate_apps("tests.testapp") as isolated:

        class View(models.Model):
            class Meta:
                app_label = "testapp"
                managed = False

        assert found(app_configs=[isolated.get_app_config("testapp")]) == []
