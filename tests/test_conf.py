from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.exceptions import ImproperlyConfigured
from django.test import TestCase, override_settings

from caching.conf import NO_CACHE, OPTIONS, WrongSetting, check_timeout, conf, fold
from tests.testapp.models import Author

LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
TWO_CACHES = {"default": LOCMEM, "second": LOCMEM}

not_callable = 5


class Router:
    """Has no opinion."""


def tenant(alias: str) -> str:
    return f"tenant of {alias}"


@contextmanager
def options(**given: Any) -> Iterator[None]:
    with override_settings(CACHE_MACHINE=given, CACHES=TWO_CACHES):
        yield


DEFAULTS = {
    "CACHE": "default",
    "FLUSH_LIST_CACHE": "default",
    "PREFIX": "",
    "TIMEOUT": DEFAULT_TIMEOUT,
    "COUNT_TIMEOUT": DEFAULT_TIMEOUT,
    "LOCALE": True,
    "CACHE_EMPTY": True,
    "TABLES": {},
    "FUNCTIONS": frozenset(),
    "REPLICAS": {},
    "VARY": None,
    "VARY_SETTINGS": frozenset(),
    "KIN": True,
    "MAX_BYTES": 1_000_000,
    "NEAR_CACHE_BYTES": 32_000_000,
    "DIRECT_CLIENTS": True,
    "ENABLED": True,
}

GIVEN = [
    ("CACHE", "second", "second"),
    ("FLUSH_LIST_CACHE", "second", "second"),
    ("PREFIX", "shop:", "shop:"),
    ("PREFIX", "é" * 50, "é" * 50),
    ("TIMEOUT", 60, 60),
    ("TIMEOUT", 0.5, 0.5),
    ("TIMEOUT", 0, 0),
    ("TIMEOUT", None, None),
    ("TIMEOUT", NO_CACHE, NO_CACHE),
    ("COUNT_TIMEOUT", 5, 5),
    ("COUNT_TIMEOUT", None, None),
    ("LOCALE", False, False),
    ("CACHE_EMPTY", False, False),
    ("TABLES", ['"Public"."Legacy"', "other"], {"legacy": frozenset(), "other": frozenset()}),
    ("TABLES", {"View": ["One", "two"]}, {"view": frozenset({"one", "two"})}),
    ("FUNCTIONS", ("Slug",), frozenset({"SLUG"})),
    ("REPLICAS", {"other": 2.5}, {"other": 2.5}),
    ("REPLICAS", {"other": 0}, {"other": 0}),
    ("VARY", tenant, tenant),
    ("VARY", "tests.test_conf.tenant", tenant),
    ("VARY_SETTINGS", ["App.Tenant"], frozenset({"app.tenant"})),
    ("KIN", False, False),
    ("MAX_BYTES", 1, 1),
    ("NEAR_CACHE_BYTES", 1000, 1000),
    ("NEAR_CACHE_BYTES", 0, 0),
    ("DIRECT_CLIENTS", False, False),
    ("ENABLED", False, False),
]

WRONG = [
    ("CACHE", "third"),
    ("CACHE", None),
    ("CACHE", ["default"]),
    ("FLUSH_LIST_CACHE", "third"),
    ("FLUSH_LIST_CACHE", ""),
    ("PREFIX", 5),
    ("PREFIX", "two words"),
    ("PREFIX", "line\n"),
    ("PREFIX", "\x7f"),
    ("PREFIX", "p" * 101),
    ("PREFIX", "é" * 51),
    ("TIMEOUT", "60"),
    ("TIMEOUT", -2),
    ("TIMEOUT", True),
    ("TIMEOUT", float("inf")),
    ("TIMEOUT", float("nan")),
    ("COUNT_TIMEOUT", "60"),
    ("LOCALE", "no"),
    ("CACHE_EMPTY", 0),
    ("TABLES", "legacy"),
    ("TABLES", [5]),
    ("TABLES", {"view": "legacy"}),
    ("TABLES", {5: ["legacy"]}),
    ("FUNCTIONS", "slug"),
    ("FUNCTIONS", [len]),
    ("FUNCTIONS", ["public.slug"]),
    ("FUNCTIONS", ["slug()"]),
    ("FUNCTIONS", [""]),
    ("REPLICAS", ["other"]),
    ("REPLICAS", {"elsewhere": 1}),
    ("REPLICAS", {"other": -1}),
    ("REPLICAS", {"other": "1"}),
    ("REPLICAS", {"other": True}),
    ("REPLICAS", {"other": float("inf")}),
    ("VARY", 5),
    ("VARY", "tests.test_conf.nowhere"),
    ("VARY", "tests.test_conf.not_callable"),
    ("VARY", "tenant"),
    ("VARY_SETTINGS", "role"),
    ("KIN", 1),
    ("MAX_BYTES", 0),
    ("MAX_BYTES", 1.5),
    ("MAX_BYTES", True),
    ("NEAR_CACHE_BYTES", -1),
    ("NEAR_CACHE_BYTES", None),
    ("DIRECT_CLIENTS", 1),
    ("ENABLED", None),
]

INHERITED = [
    ("PREFIX", "CACHE_PREFIX", "old:", "new:"),
    ("COUNT_TIMEOUT", "CACHE_COUNT_TIMEOUT", 60, 5),
    ("COUNT_TIMEOUT", "CACHE_COUNT_TIMEOUT", None, 5),
    ("CACHE_EMPTY", "CACHE_EMPTY_QUERYSETS", False, True),
]


def read(option: str) -> Any:
    return getattr(conf, option.lower())


def test_the_tables_of_this_module_name_every_option() -> None:
    assert set(DEFAULTS) == set(OPTIONS)
    assert {option for option, *_ in GIVEN} == set(OPTIONS)
    assert {option for option, _ in WRONG} == set(OPTIONS)
    assert {(option, name) for option, name, *_ in INHERITED} == {
        (option, OPTIONS[option].inherited) for option in OPTIONS if OPTIONS[option].inherited
    }


@pytest.mark.parametrize("option", DEFAULTS)
def test_default(option: str) -> None:
    with options():
        assert read(option) == DEFAULTS[option]


@pytest.mark.parametrize(("option", "value", "expected"), GIVEN)
def test_given(option: str, value: object, expected: object) -> None:
    with options(**{option: value}):
        assert read(option) == expected


@pytest.mark.parametrize(("option", "value"), WRONG)
def test_wrong_value_says_what_was_given_and_what_is_allowed(option: str, value: object) -> None:
    with options(**{option: value}), pytest.raises(WrongSetting) as caught:
        read(option)
    assert caught.value.problem.startswith(f"CACHE_MACHINE[{option!r}] is {value!r}")
    assert caught.value.repair.startswith("It takes ")
    assert str(caught.value) == f"{caught.value.problem} {caught.value.repair}"


def test_wrong_alias_names_the_aliases_there_are() -> None:
    with options(CACHE="third"), pytest.raises(WrongSetting, match="default, second"):
        conf.cache
    with options(REPLICAS={"third": 1}), pytest.raises(WrongSetting, match="default, other"):
        conf.replicas


@pytest.mark.parametrize(("option", "name", "value", "newer"), INHERITED)
def test_inherited_name_counts_until_the_option_is_given(
    option: str, name: str, value: object, newer: object
) -> None:
    with override_settings(**{name: value}):
        with options(TIMEOUT=300):
            assert read(option) == value
        with options(TIMEOUT=300, **{option: newer}):
            assert read(option) == newer


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        ("PREFIX", "CACHE_PREFIX", None),
        ("COUNT_TIMEOUT", "CACHE_COUNT_TIMEOUT", "60"),
        ("CACHE_EMPTY", "CACHE_EMPTY_QUERYSETS", "no"),
    ],
)
def test_wrong_value_under_an_inherited_name_names_it(option: str, name: str, value: object) -> None:
    with options(), override_settings(**{name: value}), pytest.raises(WrongSetting, match=f"^{name} is "):
        read(option)


@pytest.mark.parametrize("value", [None, "default", ["CACHE"]])
def test_settings_that_are_no_dict_say_so(value: object) -> None:
    with override_settings(CACHE_MACHINE=value), pytest.raises(WrongSetting, match="It takes a dict"):
        conf.enabled


def test_no_settings_at_all_are_fine() -> None:
    with override_settings():
        from django.conf import settings

        del settings.CACHE_MACHINE
        assert conf.given == {}
        assert conf.enabled


def test_settings_are_read_on_each_access() -> None:
    with options(PREFIX="one"):
        assert conf.prefix == "one"
        with options(PREFIX="two"):
            assert conf.prefix == "two"
        assert conf.prefix == "one"


def test_results_go_to_the_alias_cache_machine_where_there_is_one() -> None:
    with override_settings(CACHE_MACHINE={}, CACHES={"default": LOCMEM, "cache_machine": LOCMEM}):
        assert conf.cache == "cache_machine"
        assert conf.flush_list_cache == "cache_machine"


def test_flush_list_lies_with_the_results_unless_it_has_its_own_alias() -> None:
    with options(CACHE="second"):
        assert conf.flush_list_cache == "second"
    with options(CACHE="second", FLUSH_LIST_CACHE="default"):
        assert (conf.cache, conf.flush_list_cache) == ("second", "default")


def test_counts_live_as_long_as_other_results_unless_told_otherwise() -> None:
    with options(TIMEOUT=60):
        assert conf.count_timeout == 60


def test_vary_is_given_the_alias_of_the_database() -> None:
    with options(VARY="tests.test_conf.tenant"):
        assert conf.vary is not None
        assert conf.vary("other") == "tenant of other"


def test_vary_that_cannot_be_imported_says_why() -> None:
    with options(VARY="tests.test_conf.nowhere"), pytest.raises(WrongSetting, match="nowhere") as caught:
        conf.vary
    assert isinstance(caught.value.__cause__, ImportError)


@pytest.mark.parametrize("value", [True, False])
def test_flags_of_django(value: bool) -> None:
    routers = ["tests.test_conf.Router"] if value else []
    with override_settings(DEBUG=value, USE_TZ=value, DATABASE_ROUTERS=routers):
        assert conf.debug is value
        assert conf.use_tz is value
        assert conf.routed is value


def test_settings_of_the_project_by_name() -> None:
    with override_settings(SOMETHING=0):
        assert conf.has("SOMETHING")
        assert not conf.is_true("SOMETHING")
    with override_settings(SOMETHING=1):
        assert conf.is_true("SOMETHING")
    assert not conf.has("SOMETHING")
    assert not conf.is_true("SOMETHING")


@pytest.mark.parametrize("timeout", [0, 1, 2.5, None, DEFAULT_TIMEOUT, NO_CACHE])
def test_timeout(timeout: object) -> None:
    assert check_timeout(timeout) is timeout


@pytest.mark.parametrize("timeout", ["60", True, [60], object()])
def test_timeout_of_another_type(timeout: object) -> None:
    with pytest.raises(TypeError, match="give seconds as a number"):
        check_timeout(timeout)


@pytest.mark.parametrize("timeout", [-2, -0.5, float("nan"), float("inf")])
def test_timeout_out_of_range(timeout: float) -> None:
    with pytest.raises(ValueError, match="give 0 or more seconds"):
        check_timeout(timeout)


def test_table_names_are_compared_without_quotes_schema_and_case() -> None:
    assert fold('"Public"."Addon"') == fold("`addon`") == fold("ADDON") == "addon"


class RunTimeTests(TestCase):
    def test_reading_with_a_wrong_setting_names_it(self) -> None:
        for name, value in {"TIMEOUT": "60", "CACHE": "third", "VARY": "nowhere.at_all"}.items():
            with (
                self.subTest(name),
                override_settings(CACHE_MACHINE={name: value}),
                self.assertRaisesMessage(ImproperlyConfigured, f"CACHE_MACHINE[{name!r}] is {value!r}"),
            ):
                list(Author.objects.all())
