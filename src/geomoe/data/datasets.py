"""Data sets that are known: what each is, whose, on what terms, and how a folder is seen to hold it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from geomoe.data.aid import aid_files, aid_folder
from geomoe.data.burns import make_burns
from geomoe.data.crowns import crowns_files, crowns_folder, make_crowns
from geomoe.data.dates import CHANGE
from geomoe.data.fields import FIELDS, make_fields
from geomoe.data.idtrees import idtrees_folder
from geomoe.data.land_cover import LAND_COVER, land_cover_folder, make_land_cover
from geomoe.data.legend import Legend
from geomoe.data.radar import LOUD, NOISY_TARGETS, RADARS, TARGETS, make_radar, radar_files
from geomoe.data.radar_optical import PATCH_SENSORS, make_radar_optical, radar_optical_files
from geomoe.data.split import Split
from geomoe.data.super_resolution.oli2msi import oli2msi_folder
from geomoe.data.ucmerced import ucmerced_files, ucmerced_folder

__all__ = ["DATA_SETS", "DataSet", "Kind", "find_data_set", "register"]

Kind = Literal["labels", "masks", "cube", "plots", "pairs", "dates"]


@dataclass(frozen=True)
class DataSet:
    """A published data set.

    Attributes:
        name: on cards and in configurations.
        title: for people.
        kind: ``labels``, images in a folder for each class; ``masks``, images with one each; a hyperspectral
            ``cube`` with labels; ``plots`` that two sensors measured, with crowns of trees; ``pairs``, images
            of one place that two sensors measured; ``dates``, images of one place at two dates, with what
            changed.
        source: what it is, and whose.
        terms: on which it may be used.
        find: where it lies, given a user's folder; None where that holds something else.
        files: images of a part; None where no split is published.
        split: the published one as training takes it, in words; None where there is none, or as usual.
        legend: of masks and of a cube's labels.
        sensor: that took the images; None where it is not one alone, or not known.
        gsd: ground sampling distance of the finest images, metres; None where it is not one alone.
        make: writes it into a new folder, where it is made and not measured; else None.
        sensors: whose bands its images stack, by name, with how many; empty where they are of one.
        make_of: writes it into a new folder, of a file or folder that is given, and may say in words what it
            wrote and left out.
    """

    name: str
    title: str
    kind: Kind
    source: str
    terms: str
    find: Callable[[Path], Path | None]
    files: Callable[[Path, Split], list[Path]] | None = None
    split: str | None = None
    legend: Legend | None = None
    sensor: str | None = None
    gsd: float | None = None
    make: Callable[[Path], None] | None = None
    sensors: Mapping[str, int] = field(default_factory=dict)
    make_of: Callable[[Path, Path], str | None] | None = None

    @property
    def published(self) -> bool:
        """Whether it comes with a split into parts to train on and to test on."""
        return self.files is not None or self.split is not None

    @property
    def said(self) -> str:
        """Source and terms, as cards have them."""
        return f"{self.source}; {self.terms}"


DATA_SETS: dict[str, DataSet] = {}
"""All that are known, by name."""


def register(found: DataSet) -> None:
    """Add a data set; a folder is the first one that finds itself in it."""
    DATA_SETS[found.name] = found


def find_data_set(root: Path, *kinds: Kind) -> DataSet | None:
    """The data set, of ``kinds`` if any are given, that ``root`` holds; None where none is known."""
    wanted = (one for one in DATA_SETS.values() if not kinds or one.kind in kinds)
    return next((one for one in wanted if one.find(root) is not None), None)


def _below(names: Sequence[str], held: Sequence[str]) -> Callable[[Path], Path | None]:
    """Finds the folder that holds all of ``held``: one of ``names`` below the given folder, or itself."""

    def find(root: Path) -> Path | None:
        folders = (*(root / name for name in names), root)
        return next((one for one in folders if all((one / name).exists() for name in held)), None)

    return find


def _sen2venus(root: Path) -> Path | None:
    return root if root.is_dir() and next(root.rglob("*_05m_b*.pt"), None) is not None else None


def _cube(name: str) -> Callable[[Path], Path | None]:
    def find(root: Path) -> Path | None:
        return next((path for path in (root, root / name) if path.name == name and path.is_file()), None)

    return find


_ASK = "see its publishers' terms"

register(
    DataSet(
        "ucmerced", "UCMerced", "labels",
        "UC Merced Land Use (Yang and Newsam 2010), from the USGS National Map Urban Area Imagery",
        "public domain", ucmerced_folder, ucmerced_files, "fit: 1512 of the 1575 training images",
        sensor="aerial", gsd=0.3,
    )
)  # fmt: skip
register(
    DataSet(
        "aid", "AID", "labels", "AID (Xia et al. 2017), images of Google Earth", _ASK, aid_folder, aid_files,
        "fit: 7910 of the 8000 training images",
    )
)  # fmt: skip
register(
    DataSet(
        "eurosat", "EuroSAT", "labels",
        "EuroSAT (Helber et al. 2019), RGB; contains modified Copernicus Sentinel data", "MIT",
        _below(("EuroSAT_RGB", "EuroSAT/2750", "2750"), ("AnnualCrop", "HerbaceousVegetation", "SeaLake")),
        sensor="sentinel-2", gsd=10.0,
    )
)  # fmt: skip
register(
    DataSet(
        "resisc45", "RESISC45", "labels", "NWPU-RESISC45 (Cheng et al. 2017), images of Google Earth", _ASK,
        _below(("NWPU-RESISC45",), ("airplane", "roundabout", "thermal_power_station")),
    )
)  # fmt: skip
register(
    DataSet(
        "radar_targets", "Radar targets", "labels",
        "made: six bodies of scatterers as three radars see them, one of which is noise in a fifth of them",
        "none, made by this program", _below((), TARGETS), radar_files, "2850 of the 3000 to train on",
        make=make_radar, sensors=RADARS,
    )
)  # fmt: skip
register(
    DataSet(
        "noisy_radar_targets", "Noisy radar targets", "labels",
        f"made: radar targets in {LOUD:g} times their noise, one of whose radars is noise in a fifth of them",
        "none, made by this program", _below((), NOISY_TARGETS), radar_files, "2850 of the 3000 to train on",
        make=partial(make_radar, targets=NOISY_TARGETS, loud=LOUD), sensors=RADARS,
    )
)  # fmt: skip
register(
    DataSet(
        "radar_optical", "Radar and optical patches", "labels",
        "patches of a pair of two dates that was given, radar before and optical after, by whether their "
        "middle changed",
        "those of the pair", _below((), ("changed/fit_0000.tif", "unchanged/test_0000.tif")),
        radar_optical_files, "blocks of the pair that are apart", sensors=PATCH_SENSORS,
        make_of=make_radar_optical,
    )
)  # fmt: skip
register(
    DataSet(
        "crowns", "Crowns", "labels",
        "crowns of trees, cut from the IDTReeS 2020 Competition Data (Graves and Marconi 2020), two sites of "
        "NEON seen from the air",
        "CC BY 4.0", crowns_folder, crowns_files, "of stands apart from those that are tested on",
        sensor="aerial", make_of=make_crowns,
    )
)  # fmt: skip
register(
    DataSet(
        "dubai", "Dubai", "masks",
        "Semantic segmentation of aerial imagery of Dubai (Humans in the Loop)", "CC0",
        _below((), [f"tile{k}/001_mask.png" for k in range(1, 9)]),
        legend=Legend(
            ("building", "land", "road", "vegetation", "water"),
            colours=("#3c1098", "#8429f6", "#6ec1e4", "#fedd3a", "#e2a929"),
        ),
    )
)  # fmt: skip
register(
    DataSet(
        "fields", "Made fields", "masks",
        "made: heads of cabbage in rows, weeds and shadows, at two stages of growth",
        "none, made by this program", _below((), [f"{name}/000_mask.png" for name in FIELDS]),
        legend=Legend(("soil", "cabbage"), (0, 1), ("#a08060", "#40a040"), ignored=None),
        make=make_fields,
    )
)  # fmt: skip
register(
    DataSet(
        "five_places", "Five places", "masks",
        "five examples of TerraMesh (IBM, ESA and partners): modified Copernicus Sentinel-1 and -2 data, the "
        "Copernicus elevation model, and ESRI's land cover",
        "CC BY-SA 4.0", _below((), ("S2L2A", "S1RTC", "DEM", "LULC")),
        legend=LAND_COVER,
        gsd=10.0,
        sensors={"optical": 12, "radar": 2, "elevation": 1},
    )
)  # fmt: skip
register(
    DataSet(
        "land_cover", "Land cover of two sensors", "masks",
        "five examples of TerraMesh (modified Copernicus Sentinel-2 data, ESRI's land cover) and tiles of "
        "BigEarthNet-Landsat (USGS) that show one class, as reflectances of the same bands",
        "CC BY-SA 4.0, the tiles MIT", land_cover_folder, legend=LAND_COVER, make_of=make_land_cover,
    )
)  # fmt: skip
register(
    DataSet(
        "indian_pines", "Indian Pines", "cube",
        "Indian Pines, AVIRIS, 12 June 1992 (Baumgardner, Biehl and Landgrebe 2015, Purdue University "
        "Research Repository), 200 bands without those of water vapour",
        "CC BY 3.0", _cube("indian_pines.npz"),
        legend=Legend(
            (
                "alfalfa", "corn, no till", "corn, minimum till", "corn", "grass, pasture", "grass, trees",
                "grass, pasture mowed", "hay, windrowed", "oats", "soybean, no till", "soybean, minimum till",
                "soybean, clean", "wheat", "woods", "buildings, grass, trees, drives", "stone, steel, towers",
            )
        ),
        gsd=20.0,
    )
)  # fmt: skip
register(
    DataSet(
        "idtrees", "IDTReeS", "plots",
        "IDTReeS 2020 Competition Data (Graves and Marconi 2020), two sites of NEON seen from the air",
        "CC BY 4.0", idtrees_folder, gsd=1.0,
    )
)  # fmt: skip
register(
    DataSet(
        "oli2msi", "OLI2MSI", "pairs",
        "OLI2MSI (Wang et al. 2021), Landsat-8 (USGS) and modified Copernicus Sentinel-2 data", _ASK,
        oli2msi_folder, split="training pairs, all but validation", sensor="landsat-8", gsd=10.0,
    )
)  # fmt: skip
register(
    DataSet(
        "sen2venus", "Sen2Venus", "pairs",
        "Sen2Venus (Michel et al. 2022), modified Copernicus Sentinel-2 data and Venus data of CNES", _ASK,
        _sen2venus, sensor="sentinel-2", gsd=5.0,
    )
)  # fmt: skip
register(
    DataSet(
        "change", "Change pairs", "dates",
        "pairs of the literature on change detection: radar and optical images of Shuguang, near-infrared "
        "and optical ones of Sardinia, radar ones of the Yellow River and of Ottawa",
        "no terms stated",
        _below((), [f"{name}_gt.png" for name in ("italy", "ottawa", "shuguang", "yellow_a", "yellow_d")]),
        legend=CHANGE,
    )
)  # fmt: skip
register(
    DataSet(
        "burns", "Made burns", "dates",
        "made: fires, harvested fields and shadows of clouds on a scene that was given",
        "those of the scene; what is made, none", _below((), ("burns_gt.png", "burns_1.tif", "burns_2.tif")),
        legend=CHANGE, make_of=make_burns, sensors={"before": 4, "after": 4},
    )
)  # fmt: skip
