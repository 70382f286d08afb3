"""The compiled form of a shape of queries, kept in the memory of the process.

A plan gives the statement and the parameters that the compiler would give, without asking it.
It is learned from a query that was compiled, and only where each parameter is plainly one of
the query's values.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from django.db.models import Q
from django.db.models.sql import Query

from . import tables
from .builders import Builder, ValuesBuilder, builder
from .fingerprints import Condition, fingerprint, is_closed, last_condition

#: So many plans are kept; with more, all are learned anew.
PLANS: Final = 2048


class Plan(NamedTuple):
    """What the compiler made of the queries of one shape."""

    sql: str
    #: The parameters that are the same for all of them; they come first.
    constants: tuple[Any, ...]
    #: The type of each of the other parameters.
    types: tuple[type[Any], ...]
    tables: frozenset[str]
    builder: Builder | ValuesBuilder | None
    #: What compiling left on the compiler, for those who read it there.
    compiled: dict[str, Any]

    def params(self, values: list[Any]) -> tuple[Any, ...]:
        """Return the parameters of the query with these values."""
        pairs = zip(values, self.types, strict=True)
        return (*self.constants, *[value if type(value) is kind else kind(value) for value, kind in pairs])


class Sketch(NamedTuple):
    """A query that has a shape, and its plan where one is known."""

    place: tuple[Any, ...]
    values: list[Any]
    plan: Plan | None


class Extension(NamedTuple):
    """The plan of a shape with one more condition."""

    #: Where that plan is kept.
    place: tuple[Any, ...]
    plan: Plan
    condition: Condition

    def accepts(self, value: Any) -> bool:
        """Whether the plan is that of the condition with this value."""
        return self.condition.accepts(value) and self.condition.holds


_plans: dict[tuple[Any, ...], Plan] = {}
#: By the place of a query and the name of a lookup; False where it was tried in vain.
_extensions: dict[tuple[Any, ...], Extension | bool] = {}
#: By model and name of a lookup; False where it was tried in vain.
_conditions: dict[tuple[Any, str], Condition | bool] = {}

#: What a compiler holds that is of its own query, and not of the shape.
_OWN: Final = frozenset(
    "query connection using elide_empty quote_cache compiled where having qualify".split()
)


def sketch(query: Any, connection: Any, purpose: str) -> Sketch | None:
    """Return the sketch of what is asked of ``query``; None if that has no shape."""
    found = fingerprint(query)
    if found is None:
        return None
    shape, values = found
    place = (purpose, connection.alias, connection.vendor, *shape)
    try:
        return Sketch(place, values, _plans.get(place))
    except TypeError:  # something in it has no hash
        return None


def learn(drawn: Sketch, compiler: Any, sql: str, params: Any, names: frozenset[str]) -> None:
    """Keep what the compiler made of the query that was drawn."""
    values = drawn.values
    split = len(params) - len(values)
    if split < 0 or compiler.has_extra_select or not is_closed(compiler.query, compiler.select):
        return
    constants, given = tuple(params[:split]), tuple(params[split:])
    if constants not in ((), (1,)):  # the 1 that exists() selects
        return
    if len({*values, *constants}) != len(values) + len(constants):
        return  # which of the equal ones is which parameter could not be checked
    types = tuple(map(type, given))
    if not all(issubclass(kind, type(value)) for kind, value in zip(types, values, strict=True)):
        return
    compiled = {name: value for name, value in compiler.__dict__.items() if name not in _OWN}
    plan = Plan(sql, constants, types, names, builder(compiler), compiled)
    if plan.params(values) == tuple(params):
        if len(_plans) >= PLANS:
            _plans.clear()
        _plans[drawn.place] = plan


def extension(drawn: Sketch, name: str) -> Extension | bool:
    """Return the plan of what was drawn with one more condition.

    False where there is none, True where that was not tried yet.
    """
    return _extensions.get((drawn.place, name), True)


def extend(drawn: Sketch, name: str, value: Any, query: Any, found: Sketch | None) -> None:
    """Learn what becomes of the query that was drawn when ``name=value`` is added: ``query``.

    ``found`` is the sketch of that.
    """
    if len(_extensions) >= PLANS:
        _extensions.clear()
    condition = last_condition(query)
    learned: Extension | bool = False
    if (
        found is not None
        and found.plan is not None
        and condition is not None
        and condition.accepts(value)
        and found.values == [*drawn.values, value]
    ):
        learned = Extension(found.place, found.plan, condition)
    _extensions[drawn.place, name] = learned


def condition_of(model: Any, name: str) -> Condition | bool:
    """Return the condition that ``name=value`` is, if it is a plain one.

    False where it is not, True where that was not tried yet.
    """
    return _conditions.get((model, name), True)


def learn_condition(model: Any, name: str, value: Any) -> None:
    """Learn what ``name=value`` is, which was accepted as a condition on ``model``."""
    if type(value) not in (int, str):
        return  # other values may make something else of it
    if len(_conditions) >= PLANS:
        _conditions.clear()
    query = Query(model)
    query.add_q(Q((name, value)))
    condition = last_condition(query)
    if condition is None or condition.accepts(value):
        _conditions[model, name] = condition or False


def forget() -> None:
    """Learn all plans anew: the models or the settings have changed."""
    _plans.clear()
    _extensions.clear()
    _conditions.clear()


tables.on_forget(forget)
