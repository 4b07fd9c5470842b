"""Polygons and areas of class maps: what strips must not change, and what a file says."""

import csv
import json

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.features import shapes
from shapely.geometry import shape

from geomoe import GeomoeError
from geomoe.raster.vectors.polygons import polygons, write_polygons
from geomoe.raster.vectors.strips import open_map
from geomoe.raster.vectors.summary import write_summary

pyogrio = pytest.importorskip("pyogrio")

NAMES = {1: "water", 2: "trees", 3: "crops"}


def write_map(path, data, crs="EPSG:32618", transform=None):
    transform = rasterio.Affine(10, 0, 500000, 0, -10, 4500000) if transform is None else transform
    height, width = data.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=1, dtype="uint8", nodata=0, crs=crs,
        transform=transform,
    ) as file:  # fmt: skip
        file.write(data, 1)
        file.write_colormap(1, dict.fromkeys(range(4), (1, 2, 3, 255)))
        file.update_tags(GEOMOE_LEGEND=json.dumps({"classes": NAMES, "nodata": 0}))
    return path


def patches(side=40, seed=0):
    """Blobs, and noise of single pixels that touch at corners."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, (side // 8, side // 8)).repeat(8, 0).repeat(8, 1)
    noise = rng.integers(0, 4, (side, side))
    return np.where(rng.random((side, side)) < 0.3, noise, coarse).astype(np.uint8)


def drawn(source, values, rows):
    return [(value, rings.polygon()) for value, rings in polygons(source, values, rows)]


def key(found):
    return sorted((value, shapely.to_wkt(shapely.normalize(polygon))) for value, polygon in found)


def noise(side=40, seed=1):
    """Pixels of one class at about the share from which on they hang together, of many corners and lakes."""
    return (np.random.default_rng(seed).random((side, side)) < 0.6).astype(np.uint8)


def specks(side=40, seed=2):
    """One class with holes everywhere, some of them of several pixels."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random((side, side)) < 0.15, rng.integers(0, 4, (side, side)), 2).astype(np.uint8)


def spiral(side=41):
    """A path one pixel wide, and the path between its turns."""
    data, at, step = np.full((side, side), 2, np.uint8), (0, 0), (0, 1)
    for length in [side - 1, *(n for n in range(side - 1, 0, -2) for _ in range(2))]:
        for _ in range(length):
            data[at] = 1
            at = (at[0] + step[0], at[1] + step[1])
        step = (step[1], -step[0])
    return data


def rings(side=40):
    """Each around the next, of three classes in turn."""
    to_edge = np.minimum(np.arange(side), np.arange(side)[::-1])
    return (np.minimum(to_edge[:, None], to_edge) // 2 % 3 + 1).astype(np.uint8)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 100])
@pytest.mark.parametrize("made", [patches, noise, specks, spiral, rings])
def test_polygons_do_not_depend_on_strips(tmp_path, made, rows):
    data = made()
    whole = [(int(v), shape(g)) for g, v in shapes(data, data > 0, connectivity=4)]
    with open_map(write_map(tmp_path / "map.tif", data)) as source:
        found = drawn(source, [1, 2, 3], rows)
        assert source.number(rows) == len(list(source.strips(rows)))
    assert all(polygon.is_valid and polygon.geom_type == "Polygon" for _, polygon in found)
    assert key(found) == key(whole)


def test_a_ring_around_another_class_is_joined_over_strips(tmp_path):
    data = np.ones((9, 9), np.uint8)
    data[2:7, 2:7] = 2
    data[4, 4] = 0
    with open_map(write_map(tmp_path / "map.tif", data)) as source:
        found = dict(drawn(source, [1, 2], 2))
    assert {value: (polygon.area, len(polygon.interiors)) for value, polygon in found.items()} == {
        1: (56, 1),
        2: (24, 1),
    }
    assert len(found[1].exterior.coords) == 5  # no points are left where strips met


def test_what_is_united_is_once_what_reaches_a_seam(tmp_path, monkeypatch):
    data = np.ones((64, 64), np.uint8)
    data[2:62:4, 2:62:4] = 2  # 225 holes, none at a seam of every 4 rows
    united, real = [], shapely.union_all
    monkeypatch.setattr(
        shapely,
        "union_all",
        lambda shells: united.append(shapely.get_num_coordinates(shells).sum()) or real(shells),
    )
    with open_map(write_map(tmp_path / "map.tif", data)) as source:
        found = drawn(source, [1], 4)
    assert [len(polygon.interiors) for _, polygon in found] == [225]
    assert united == [16 * 5]


def test_polygons_are_all_written_however_many_at_a_time(tmp_path, monkeypatch):
    path = write_map(tmp_path / "map.tif", patches())
    counts = [write_polygons(path, tmp_path / "a.gpkg")]
    monkeypatch.setattr("geomoe.raster.vectors.polygons._BATCH", 20_000)
    counts.append(write_polygons(path, tmp_path / "b.gpkg"))
    first, second = (pyogrio.raw.read(tmp_path / f"{name}.gpkg") for name in "ab")
    assert counts == [len(first[2])] * 2
    assert (first[2] == second[2]).all()
    assert (first[3][2] == second[3][2]).all()


def test_a_geopackage_says_class_and_area_in_the_coordinates_of_the_map(tmp_path):
    data = patches()
    path, target = write_map(tmp_path / "map.tif", data), tmp_path / "map.gpkg"
    count = write_polygons(path, target)
    meta, _, found, columns = pyogrio.raw.read(target)
    fields = dict(zip(meta["fields"], columns, strict=True))
    assert (len(found), meta["geometry_type"]) == (count, "Polygon")
    assert rasterio.crs.CRS.from_user_input(meta["crs"]) == rasterio.crs.CRS.from_epsg(32618)
    for value, name in NAMES.items():
        mine = fields["value"] == value
        assert set(fields["name"][mine]) == {name}
        assert fields["pixels"][mine].sum() == (data == value).sum()
    assert np.allclose(fields["area"], shapely.area(shapely.from_wkb(found)))
    assert np.allclose(fields["area"], 100 * fields["pixels"])
    bounds = shapely.total_bounds(shapely.from_wkb(found))
    assert bounds.tolist() == [500000, 4499600, 500400, 4500000]
    some = write_polygons(path, target, ["trees"], least=4)
    _, _, found, columns = pyogrio.raw.read(target)
    assert 0 < some == len(found) == (fields["pixels"][fields["value"] == 2] >= 4).sum()
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def write_instances(path, data, **tags):
    height, width = data.shape
    at = tags.pop("transform", rasterio.Affine(10, 0, 500000, 0, -10, 4500000))
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=1, dtype="uint32", transform=at,
        crs="EPSG:32618",
    ) as file:  # fmt: skip
        file.write(data, 1)
        file.update_tags(**{"GEOMOE_LAYER": "instances", **tags})
    return path


@pytest.mark.parametrize("rows", [1, 4, 7, None])
def test_instances_part_what_touches_however_strips_are_cut(tmp_path, rows):
    data = patches()
    rng = np.random.default_rng(1)
    numbers = np.array([0, 1, 2**24 + 5, 2**32 - 1], np.uint32)[rng.integers(0, 4, (10, 10))]
    numbers = numbers.repeat(4, 0).repeat(4, 1) * (data == 2).astype(np.uint32)
    path, of = write_map(tmp_path / "map.tif", data), write_instances(tmp_path / "i.tif", numbers)
    count = write_polygons(path, tmp_path / "m.gpkg", rows=rows, instances=of)
    meta, _, found, columns = pyogrio.raw.read(tmp_path / "m.gpkg")
    fields = dict(zip(meta["fields"], columns, strict=True))
    assert list(meta["fields"]) == ["value", "name", "pixels", "area", "instance"]
    assert len(found) == count
    wanted = []
    for value in (1, 2, 3):
        for number in np.unique(numbers[data == value]):
            mask = (data == value) & (numbers == number)
            at = rasterio.Affine(10, 0, 500000, 0, -10, 4500000)
            wanted += [
                (value, number, shapely.to_wkt(shapely.normalize(shape(one))))
                for one, _ in shapes(mask.astype(np.uint8), mask, connectivity=4, transform=at)
            ]
    made = zip(fields["value"], fields["instance"], shapely.from_wkb(found), strict=True)
    assert sorted((v, i, shapely.to_wkt(shapely.normalize(one))) for v, i, one in made) == sorted(wanted)


def test_classes_of_high_values_have_instances(tmp_path, monkeypatch):
    monkeypatch.setitem(NAMES, 200, "houses")
    data = np.full((4, 6), 200, np.uint8)
    numbers = np.array([[7] * 3 + [9] * 3] * 4, np.uint32)
    path = write_map(tmp_path / "map.tif", data)
    assert (
        write_polygons(path, tmp_path / "m.gpkg", instances=write_instances(tmp_path / "i.tif", numbers)) == 2
    )
    columns = pyogrio.raw.read(tmp_path / "m.gpkg")[3]
    assert (columns[0].tolist(), columns[4].tolist()) == ([200, 200], [7, 9])


def test_instances_of_another_map_are_refused(tmp_path):
    path = write_map(tmp_path / "map.tif", patches())
    good = np.ones((40, 40), np.uint32)
    others = (
        write_instances(tmp_path / "a.tif", good, GEOMOE_LAYER="experts"),
        write_instances(tmp_path / "b.tif", good[:30]),
        write_instances(tmp_path / "c.tif", good, transform=rasterio.Affine(5, 0, 0, 0, -5, 0)),
    )
    for other in others:
        with pytest.raises(GeomoeError, match=f"{other.name} does not hold the instances of map.tif"):
            write_polygons(path, tmp_path / "m.gpkg", instances=other)
    assert not (tmp_path / "m.gpkg").exists()


def test_a_map_without_a_place_or_without_classes(tmp_path):
    data = np.zeros((4, 4), np.uint8)
    path = write_map(tmp_path / "map.tif", data, None, rasterio.Affine.identity())
    assert write_polygons(path, tmp_path / "none.gpkg") == 0
    assert len(pyogrio.raw.read(tmp_path / "none.gpkg")[2]) == 0
    data[1, 1:3] = 1
    path = write_map(tmp_path / "map.tif", data, None, rasterio.Affine.identity())
    assert write_polygons(path, tmp_path / "one.gpkg") == 1
    assert pyogrio.raw.read(tmp_path / "one.gpkg")[3][2].tolist() == [2]
    assert np.isnan(pyogrio.raw.read(tmp_path / "one.gpkg")[3][3]).all()


def test_what_cannot_be_drawn_is_one_line(tmp_path):
    path = write_map(tmp_path / "map.tif", patches())
    with pytest.raises(GeomoeError, match="has no class 'snow'; it has: water, trees, crops"):
        write_polygons(path, tmp_path / "a.gpkg", ["snow"])
    with pytest.raises(GeomoeError, match=r"must end in \.gpkg"):
        write_polygons(path, tmp_path / "a.shp")
    with rasterio.open(
        tmp_path / "other.tif", "w", driver="GTiff", width=4, height=4, count=1, dtype="uint8"
    ):
        pass
    with pytest.raises(GeomoeError, match="not a map of classes that geomoe wrote"):
        write_polygons(tmp_path / "other.tif", tmp_path / "a.gpkg")
    assert not list(tmp_path.glob("*.gpkg"))


def read(path):
    return list(csv.DictReader(path.open()))


def test_a_summary_counts_every_pixel(tmp_path):
    data = patches()
    path, target = write_map(tmp_path / "map.tif", data), tmp_path / "sums.csv"
    assert write_summary(path, target) == 3
    lines = read(target)
    assert [line["class"] for line in lines] == list(NAMES.values())
    assert [int(line["pixels"]) for line in lines] == [(data == value).sum() for value in NAMES]
    assert [float(line["area"]) for line in lines] == [100.0 * (data == value).sum() for value in NAMES]
    assert sum(float(line["share"]) for line in lines) == pytest.approx(1, abs=1e-5)


def test_zones_in_other_coordinates(tmp_path):
    data = patches()
    path = write_map(tmp_path / "map.tif", data)
    west, east = shapely.box(499000, 4499000, 500200, 4501000), shapely.box(500100, 4499700, 500400, 4499900)
    there = [
        shapely.geometry.shape(
            rasterio.warp.transform_geom("EPSG:32618", "EPSG:4326", shapely.geometry.mapping(zone))
        )
        for zone in (west, east)
    ]
    zones, target = tmp_path / "zones.geojson", tmp_path / "sums.csv"
    pyogrio.raw.write(
        zones, shapely.to_wkb(np.array(there)), [np.array(["west", "east"], object)], ["name"],
        geometry_type="Polygon", crs="EPSG:4326",
    )  # fmt: skip
    write_summary(path, target, zones)
    found = {(line["zone"], line["class"]): int(line["pixels"]) for line in read(target)}
    for value, name in NAMES.items():
        assert found[("west", name)] == (data[:, :20] == value).sum()
        assert found[("east", name)] == (data[10:30, 10:40] == value).sum()
    flat = write_map(tmp_path / "flat.tif", data, None, rasterio.Affine.identity())
    with pytest.raises(GeomoeError, match="does not say where it lies"):
        write_summary(flat, target, zones)


def test_a_zone_that_the_coordinates_of_the_map_do_not_reach_is_named(tmp_path):
    path, zones = write_map(tmp_path / "map.tif", patches()), tmp_path / "zones.geojson"
    metres = shapely.geometry.mapping(shapely.box(5e5, 4.4e6, 1.5e6, 5.4e6))  # said to be degrees
    zone = {"type": "Feature", "properties": {}, "geometry": metres}
    zones.write_text(json.dumps({"type": "FeatureCollection", "features": [zone]}))
    with pytest.raises(GeomoeError, match=r"zone 1 is not where map\.tif lies"):
        write_summary(path, tmp_path / "sums.csv", zones)
    assert not (tmp_path / "sums.csv").exists()


def test_polygons_for_a_folder_that_is_not_there_are_refused(tmp_path):
    path = write_map(tmp_path / "map.tif", patches())
    with pytest.raises(GeomoeError, match="does not exist"):
        write_polygons(path, tmp_path / "nowhere" / "v.gpkg")
