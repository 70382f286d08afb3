"""What tells one query from another, without compiling it: where the parts of a query are leaned on.

Compiling is most of what a cached read would cost. Two queries of the same shape differ in the
values of their lookups only, so a shape needs to be compiled once. The shape holds everything
that decides the SQL, over a closed list of attributes, nodes and types; for anything else there
is none, and the query is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from django.db import models
from django.db.models import Count, Value
from django.db.models import lookups as plain
from django.db.models.expressions import Col
from django.db.models.fields import related_lookups as related
from django.db.models.sql import Query
from django.db.models.sql.datastructures import BaseTable, Join
from django.db.models.sql.where import WhereNode

#: A tuple of plain values, types and fields: equal, and hashed alike, only for queries whose SQL
#: is the same up to the values.
Shape = tuple[Any, ...]


class _NoShape(Exception):
    """Something is met that is not in the closed lists."""


#: Lookups whose right side is one value, that becomes a parameter as it is.
_SINGLE: Final = frozenset(
    {
        plain.Exact,
        plain.GreaterThan,
        plain.GreaterThanOrEqual,
        plain.LessThan,
        plain.LessThanOrEqual,
        plain.IntegerFieldExact,
        plain.IntegerGreaterThan,
        plain.IntegerGreaterThanOrEqual,
        plain.IntegerLessThan,
        plain.IntegerLessThanOrEqual,
        related.RelatedExact,
        related.RelatedGreaterThan,
        related.RelatedGreaterThanOrEqual,
        related.RelatedLessThan,
        related.RelatedLessThanOrEqual,
    }
)
_SEVERAL: Final = frozenset({plain.In, related.RelatedIn})
_NULL: Final = frozenset({plain.IsNull, related.RelatedIsNull})
_LOOKUPS: Final = _SINGLE | _SEVERAL | _NULL
#: What else an instance of a lookup may hold, beside its two sides: what was computed from them.
_COMPUTED: Final = frozenset(
    "lhs rhs bilateral_transforms _constructor_args output_field contains_aggregate contains_over_clause "
    "contains_column_references identity _output_field_or_none convert_value".split()
)

#: Of the fields whose values become parameters as they are: the largest that is no overflow.
_LARGEST: Final[dict[type[Any], int]] = {
    models.AutoField: 2**31 - 1,
    models.BigAutoField: 2**63 - 1,
    models.SmallAutoField: 2**15 - 1,
    models.IntegerField: 2**31 - 1,
    models.BigIntegerField: 2**63 - 1,
    models.SmallIntegerField: 2**15 - 1,
    models.PositiveIntegerField: 2**31 - 1,
    models.PositiveBigIntegerField: 2**63 - 1,
    models.PositiveSmallIntegerField: 2**15 - 1,
}
_TEXT: Final = frozenset({models.CharField, models.TextField, models.SlugField})


def fingerprint(query: Query) -> tuple[Shape, list[Any]] | None:
    """Return the shape of ``query`` and the values of its lookups, in the order of its SQL.

    None for a query that holds anything outside the closed lists.
    """
    if type(query) is not Query:
        return None
    values: list[Any] = []
    shape: list[Any] = []
    try:
        for name, value in query.__dict__.items():
            freeze = _ATTRIBUTES[name]
            if freeze is not None:
                shape.append(name)
                freeze(value, shape, values)
    except (_NoShape, KeyError, RuntimeError):  # the last: another thread is at work on the query
        return None
    return tuple(shape), values


class Condition(NamedTuple):
    """A condition with a single value that can be put into a query, and for which values."""

    field: Any
    lookup: type[Any]
    accepts: Callable[[Any], bool]

    @property
    def holds(self) -> bool:
        """Whether the name of the lookup still means this one: lookups may be registered at any time."""
        return self.field.get_lookup(self.lookup.lookup_name) is self.lookup


def last_condition(query: Query) -> Condition | None:
    """Return the last condition of ``query``, if it has a single value."""
    last: Any = query.where.children[-1] if query.where.children else None
    if type(last) not in _SINGLE or type(last.lhs) is not Col:
        return None
    field = last.lhs.output_field
    return Condition(field, type(last), _acceptor(field))


def is_closed(query: Query, select: Sequence[Any]) -> bool:
    """Whether nothing outside the closed lists had a part in how ``query`` was compiled.

    Compiling adds what its shape only names: the columns of the model and of what is ordered by
    or loaded with it. Their fields may have a say in the SQL, and it may change from time to time:
    that of a generic relation holds the key of a content type.
    """
    return all(
        type(table) is BaseTable
        or (type(table) is Join and type(table.join_field) in _JOINS and table.filtered_relation is None)
        for table in query.alias_map.values()
    ) and all(
        type(column) in (Count, Value)
        or (type(column) is Col and type(column.target).select_format is models.Field.select_format)
        for column, *_ in select
    )


_JOINS: Final = frozenset({models.ForeignKey, models.OneToOneField, models.ManyToOneRel, models.OneToOneRel})


def _as_it_is(value: Any, shape: list[Any], values: list[Any]) -> None:
    if type(value) not in _PLAIN and value is not None:
        raise _NoShape
    shape.append(type(value))
    shape.append(value)


_PLAIN: Final = frozenset({bool, int, str})


def _strings(value: Any, shape: list[Any], values: list[Any]) -> None:
    for item in value:
        if type(item) is not str:
            raise _NoShape
    shape.append(tuple(value))


def _nothing(value: Any, shape: list[Any], values: list[Any]) -> None:
    if value:
        raise _NoShape


def _none(value: Any, shape: list[Any], values: list[Any]) -> None:
    if value is not None:
        raise _NoShape


def _model(value: Any, shape: list[Any], values: list[Any]) -> None:
    options = value._meta
    # A field may be added to a model that has been asked already.
    shape += (value, options.db_table, tuple(options.ordering or ()), len(options.concrete_fields))


def _deferred(value: Any, shape: list[Any], values: list[Any]) -> None:
    names, defer = value
    shape.append((frozenset(names), defer))


def _tree(value: Any, shape: list[Any], values: list[Any]) -> None:
    """Freeze ``select_related``: a truth or nested dicts of names."""
    shape.append(_frozen(value))


def _frozen(value: Any) -> Any:
    if type(value) is bool:
        return value
    if type(value) is not dict:
        raise _NoShape
    return tuple([(name, _frozen(below)) for name, below in value.items()])


def _selected(value: Any, shape: list[Any], values: list[Any]) -> None:
    if value is None:
        shape.append(None)
        return
    for name, place in value.items():
        if type(place) not in _PLAIN:
            raise _NoShape
        shape.append((name, type(place), place))


def _select(value: Any, shape: list[Any], values: list[Any]) -> None:
    shape.append(len(value))
    for column in value:
        _column(column, shape)


def _counts(value: Any, shape: list[Any], values: list[Any]) -> None:
    shape.append(tuple(value.items()))


def _aliases(value: Any, shape: list[Any], values: list[Any]) -> None:
    # The first of each table. The lists are shared by all that were derived from one query, and
    # grow with each join that any of them makes; of the others, those in use are in the joins.
    shape.append(tuple([(table, *aliases[:1]) for table, aliases in value.items()]))


def _joins(value: Any, shape: list[Any], values: list[Any]) -> None:
    shape.append(len(value))
    for alias, table in value.items():
        kind = type(table)
        shape.append(alias)
        if kind is BaseTable:
            shape.append(table.table_name)
            shape.append(table.table_alias)
        elif kind is Join and table.filtered_relation is None:
            shape += (
                table.table_name,
                table.parent_alias,
                table.table_alias,
                table.join_type,
                table.join_field,
                table.nullable,
            )
        else:
            raise _NoShape


def _where(node: Any, shape: list[Any], values: list[Any]) -> None:
    if type(node) is not WhereNode:
        raise _NoShape
    shape.append(node.connector)
    shape.append(node.negated)
    shape.append(len(node.children))
    for child in node.children:
        kind = type(child)
        shape.append(kind)
        if kind is WhereNode:
            _where(child, shape, values)
        else:
            _lookup(kind, child, shape, values)


def _lookup(kind: type[Any], lookup: Any, shape: list[Any], values: list[Any]) -> None:
    if kind not in _LOOKUPS or lookup.bilateral_transforms or not lookup.__dict__.keys() <= _COMPUTED:
        raise _NoShape
    column, value = lookup.lhs, lookup.rhs
    if kind in _SINGLE:
        accepts = _column(column, shape)
        if type(value) is bool and accepts is _accepts_truth:
            shape.append(value)  # it decides the SQL
        elif accepts(value):
            values.append(value)
        else:
            raise _NoShape
    elif kind in _SEVERAL and type(value) in (list, tuple):
        accepts = _column(column, shape)
        if accepts is _accepts_truth or not value or len(value) > 100 or not all(map(accepts, value)):
            raise _NoShape
        if len(set(value)) != len(value):  # what is accepted has a hash
            raise _NoShape
        shape.append(len(value))
        values += value
    elif kind in _NULL and type(value) is bool:
        _column(column, shape)
        shape.append(value)
    else:
        raise _NoShape


def _column(column: Any, shape: list[Any]) -> Callable[[Any], bool]:
    """Add a column to the shape, and return what accepts its values."""
    if type(column) is not Col:
        raise _NoShape
    shape += (column.alias, column.target, column.output_field)
    return _acceptor(column.output_field)


@lru_cache(maxsize=4096)
def _acceptor(field: Any) -> Callable[[Any], bool]:
    for _ in range(10):
        if type(field) not in (models.ForeignKey, models.OneToOneField):
            break
        field = field.target_field
    if type(field) is models.BooleanField:
        return _accepts_truth
    if type(field) in _TEXT:
        return _accepts_text
    largest = _LARGEST.get(type(field))
    if largest is None:
        return _accepts_nothing
    return lambda value: type(value) is int and 0 <= value <= largest


def _accepts_truth(value: Any) -> bool:
    return type(value) is bool


def _accepts_text(value: Any) -> bool:
    return type(value) is str


def _accepts_nothing(value: Any) -> bool:
    return False


#: All that an instance of ``Query`` may hold, and how it is frozen; None for what does not decide
#: the SQL. An attribute of another name, of a newer Django say, leaves the query without a shape.
_ATTRIBUTES: Final[dict[str, Callable[[Any, list[Any], list[Any]], None] | None]] = {
    "model": _model,
    "alias_refcount": _counts,
    "alias_map": _joins,
    "alias_cols": _as_it_is,
    "external_aliases": _nothing,
    "table_map": _aliases,
    # Which joins the next filter() uses again: what it makes of them is in the joins.
    "used_aliases": None,
    "where": _where,
    "annotations": _nothing,
    "extra": _nothing,
    "_filtered_relations": _nothing,
    # Whether the next filter() keeps ``used_aliases``.
    "filter_is_sticky": None,
    "default_cols": _as_it_is,
    "default_ordering": _as_it_is,
    "standard_ordering": _as_it_is,
    "subquery": _nothing,
    "contains_subquery": _nothing,
    "select": _select,
    "group_by": _none,
    "order_by": _strings,
    "low_mark": _as_it_is,
    "high_mark": _as_it_is,
    "distinct": _as_it_is,
    "distinct_fields": _strings,
    "select_for_update": _nothing,
    "select_related": _tree,
    "max_depth": _as_it_is,
    "values_select": _strings,
    "selected": _selected,
    "annotation_select_mask": _nothing,
    "_annotation_select_cache": _nothing,
    "combinator": _nothing,
    "combined_queries": _nothing,
    "extra_select_mask": _nothing,
    "_extra_select_cache": _nothing,
    # The joins of the last lookup; exclude() looks at them while it makes a subquery.
    "_lookup_joins": None,
    "extra_tables": _nothing,
    "extra_order_by": _nothing,
    "deferred_loading": _deferred,
    "explain_info": _nothing,
    # A cached property: the first of the joins.
    "base_table": None,
}
