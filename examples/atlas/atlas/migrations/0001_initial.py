import django.db.models.deletion
from django.db import migrations, models

import caching.base


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Continent",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                ("code", models.CharField(max_length=2, unique=True)),
            ],
            options={
                "ordering": ["name", "pk"],
                "abstract": False,
            },
            bases=(caching.base.CachingMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Language",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                ("code", models.CharField(max_length=3, unique=True)),
            ],
            options={
                "ordering": ["name", "pk"],
                "abstract": False,
            },
            bases=(caching.base.CachingMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Country",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                ("code", models.CharField(max_length=2, unique=True)),
                ("capital", models.CharField(blank=True, max_length=100)),
                ("population", models.BigIntegerField()),
                ("area", models.BigIntegerField(help_text="in square kilometres")),
                ("currency", models.CharField(blank=True, max_length=50)),
                (
                    "continent",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="countries",
                        to="atlas.continent",
                    ),
                ),
                ("neighbours", models.ManyToManyField(blank=True, to="atlas.country")),
                (
                    "languages",
                    models.ManyToManyField(blank=True, related_name="countries", to="atlas.language"),
                ),
            ],
            options={
                "verbose_name_plural": "countries",
                "ordering": ["name", "pk"],
                "abstract": False,
            },
            bases=(caching.base.CachingMixin, models.Model),
        ),
        migrations.CreateModel(
            name="ContinentName",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("locale", models.CharField(max_length=10)),
                ("name", models.CharField(max_length=150)),
                (
                    "continent",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="names",
                        to="atlas.continent",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("continent", "locale"), name="one_continent_name")
                ],
            },
            bases=(caching.base.CachingMixin, models.Model),
        ),
        migrations.CreateModel(
            name="City",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(db_index=True, max_length=100)),
                ("population", models.BigIntegerField()),
                ("latitude", models.FloatField()),
                ("longitude", models.FloatField()),
                ("timezone", models.CharField(max_length=50)),
                (
                    "country",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="cities", to="atlas.country"
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "cities",
                "ordering": ["-population", "name", "pk"],
                "indexes": [models.Index(fields=["country", "-population"], name="largest_cities")],
            },
            bases=(caching.base.CachingMixin, models.Model),
        ),
        migrations.CreateModel(
            name="CountryName",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("locale", models.CharField(max_length=10)),
                ("name", models.CharField(max_length=150)),
                (
                    "country",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="names", to="atlas.country"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("country", "locale"), name="one_country_name")
                ],
            },
            bases=(caching.base.CachingMixin, models.Model),
        ),
        migrations.CreateModel(
            name="LanguageName",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("locale", models.CharField(max_length=10)),
                ("name", models.CharField(max_length=150)),
                (
                    "language",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="names", to="atlas.language"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("language", "locale"), name="one_language_name")
                ],
            },
            bases=(caching.base.CachingMixin, models.Model),
        ),
    ]
