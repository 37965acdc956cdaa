"""FITS files, opened with care: damage, foreign formats and arrays without bound become one sentence each."""

from __future__ import annotations

import bz2
import gzip
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError, check_file, is_number, shortened
from lensphys.fits.archive import archive
from lensphys.fits.names import MASK, NOISE, Meaning, meaning, meaning_of_uncertainty, role_by_class

Array = NDArray[Any]

MOST_PIXELS = 2**26  # of an array: 8192 x 8192, far above any cut-out of a lens
MOST_UNPACKED = 2**29  # bytes that a packed file may grow to: 512 MiB
_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open}
PICTURE = "a picture, whose values are no fluxes: take the FITS file that it was made of"
ASDF = "an ASDF file: save its data, err and dq as SCI, ERR and DQ of a FITS file"
_PAGE = "a web page, as archives send where a login is asked for: download it again"
_OTHERS = {  # how files begin that are taken for FITS, in small letters
    b"\x89png": PICTURE,
    b"\xff\xd8\xff": PICTURE,
    b"<html": _PAGE,
    b"<!doct": _PAGE,
    b"#asdf": ASDF,
    b"\x89hdf": "an HDF5 file: name it *.h5",
    b"\x93numpy": "an .npy file: name it so",
}
_NO_START = ": it does not begin with SIMPLE"
# the place on the sky, and the letter of an alternate description
SKY = re.compile(
    r"(?:WCSAXES|WCSNAME|CTYPE\d|CRPIX\d|CRVAL\d|CDELT\d|CUNIT\d|CROTA\d|CD\d_\d|PC\d_\d|P[VS]\d_\d+|LONPOLE"
    r"|LATPOLE|[AB]P?_(?:ORDER|\d_\d))([A-Z]?)"
)
_KEYWORD = re.compile(r"[A-Z0-9_-]{0,8}")
# CTYPE of an axis along which no lenses lie, but channels or polarisations
_NO_LENSES = ("FREQ", "ENER", "WAVN", "VRAD", "WAVE", "VOPT", "ZOPT", "AWAV", "VELO", "FELO", "BETA", "STOKES")
_PIECE, _ONES = 1 << 20, (1 << 32) - 1  # bytes that are summed at a time, and what FITS checksums are counted modulo
_SHOWN = 60  # characters of somebody else's text that a message repeats


@dataclass(frozen=True)
class Hdu:
    """An array of a FITS file, not read yet, or a table.

    Args:
        name: EXTNAME (or EXTTYPE), else PRIMARY or the number of the extension.
        version: EXTVER.
        number: of the extension, 0 for the primary one.
        header: its cards that can be read; none of a WCS of which one cannot be.
        lost: keywords of those that cannot be read.
        shape: of the array as (H, W) or (N, H, W), leading ones taken off; empty for a table.
        meaning: what name and header say that it is.
    """

    name: str
    version: int
    number: int
    header: fits.Header
    lost: tuple[str, ...]
    shape: tuple[int, ...]
    meaning: Meaning
    _file: FitsFile
    _hdu: Any

    @property
    def where(self) -> str:
        """The file and the extension, for messages."""
        return f"{self._file.path}[{self.label}]"

    @property
    def label(self) -> str:
        """What it is called: its name, and its version if that is not the first."""
        return shown(self.name) + (f",{self.version}" if self.version > 1 else "")

    def array(self) -> Array:
        """Return the array in the machine's byte order, of ``shape``: leading axes of one are taken off.

        Raises:
            LensphysError: if it, or a tile of it, is larger than `MOST_PIXELS`, or damaged.
        """
        self._check_size(tuple(self._hdu.shape))
        with self._file.guarded():
            array = self._without_blanks(np.asarray(self._hdu.data))
            return np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(self.shape)

    def planes(self, rows: Array, kind: Any = np.float32) -> Array:
        """Return some planes of a cube, (n, H, W): no other is read; of an image (H, W) itself.

        Args:
            rows: their numbers, (n,).
            kind: of what they hold; None for that of the file, of whose bits float32 would lose some.

        Raises:
            LensphysError: if a plane, or a tile of it, is larger than `MOST_PIXELS`, or damaged.
        """
        if len(self.shape) == 2:
            with np.errstate(over="ignore"):
                return np.asarray(self.array(), kind)
        self._check_size(self.shape[1:])
        with self._file.guarded(), np.errstate(over="ignore"):
            # an .npz is in memory, and has no sections
            section = self._hdu.section if self._file.stream is not None else np.asarray(self._hdu.data)
            before, after = (0,) * self._axis, (0,) * (len(self._hdu.shape) - 3 - self._axis)
            read = (self._without_blanks(np.asarray(section[(*before, int(row), *after)])) for row in rows)
            return np.stack([np.asarray(plane, kind).reshape(self.shape[1:]) for plane in read])

    def _check_size(self, shape: tuple[int, ...]) -> None:
        """Raise before more is read than a cut-out of a lens needs; tiles of a compressed array are unpacked whole."""
        tiles = tuple(int(n) for n in getattr(self._hdu, "tile_shape", None) or ())
        if math.prod(shape) > MOST_PIXELS:
            raise LensphysError(
                f"{self.where} has the shape {shape}, more than {MOST_PIXELS} pixels: cut the lens out of it"
            )
        if math.prod(tiles) > MOST_PIXELS:
            raise LensphysError(
                f"{self.where} is compressed in tiles of {tiles}, more than {MOST_PIXELS} pixels: unpack it (funpack), "
                "or cut the lens out of it"
            )

    def _without_blanks(self, array: Array) -> Array:
        """An array with NaN where an unsigned one has BLANK: astropy heeds that in signed ones."""
        blank, zero = self.header.get("BLANK"), self.header.get("BZERO", 0)
        if array.dtype.kind != "u" or not isinstance(blank, int):
            return array
        return np.where(array == int(blank + zero), np.nan, array)

    @property
    def stack(self) -> bool:
        """Whether it is a stack of images by its shape, (N, 1, H, W), and its header says of N nothing else."""
        if len(self.shape) != 3 or self._axis > len(self._hdu.shape) - 4:
            return False
        what = str(self.header.get(f"CTYPE{len(self._hdu.shape) - self._axis}", ""))
        return what.strip().upper().split("-")[0] not in _NO_LENSES

    @property
    def _axis(self) -> int:
        """The axis along which the planes of a cube lie, counted from 0."""
        return next(axis for axis, size in enumerate(self._hdu.shape) if size != 1)

    def image(self) -> Array:
        """Return the array, (H, W) or (N, H, W), as float32; what overflows is infinite, to be masked or refused."""
        with np.errstate(over="ignore"):
            return self.array().astype(np.float32)

    def column(self, name: str) -> Array:
        """Return a column (rows, ...) of a table, in the unit of the file.

        Raises:
            LensphysError: if there is none, or it is damaged.
        """
        with self._file.guarded():
            return np.asarray(self._hdu.data[name], dtype=np.float64)

    def texts(self, name: str) -> list[str]:
        """Return a column of texts of a table, one a row.

        Raises:
            LensphysError: if there is none, or it is damaged.
        """
        with self._file.guarded():
            return [str(text) for text in self._hdu.data[name]]

    @property
    def columns(self) -> list[str]:
        """The names of a table's columns."""
        return list(self._hdu.columns.names)


class FitsFile:
    """The arrays and tables of an open FITS file.

    Args:
        name: what the file is called in messages.
        path: the file.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self.stream: BinaryIO | None = None  # its bytes, unpacked
        self.hdus: list[Hdu] = []
        self.raw: list[Any] = []  # as astropy has them
        self.primary = fits.Header()  # what holds for all extensions
        self.lost: tuple[str, ...] = ()  # keywords of its cards that cannot be read

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn whatever astropy meets into one sentence.

        Raises:
            LensphysError: in place of what astropy raised in the block.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # astropy would go on with the extensions before the damage, and with changed pixels
                warnings.filterwarnings("error", message="(?s).*(truncated|corrupt|verification failed)")
                yield
        except (LensphysError, KeyboardInterrupt):
            raise
        except Exception as error:  # damage makes astropy raise errors of any type
            if "verification failed" in str(error):
                raise LensphysError(
                    f"{self.name} {self.path} does not match its own checksum ({shown(error)}): copy it again, or "
                    "remove CHECKSUM and DATASUM if you changed it"
                ) from None
            raise LensphysError(
                f"{self.name} {self.path} is not a whole FITS file (cut short, damaged or another format): "
                f"{shown(error)}"
            ) from None

    def verify(self) -> None:
        """Compare all checksums with what the file holds, a piece at a time.

        Raises:
            LensphysError: if one does not match.
        """
        if any(isinstance(hdu, fits.CompImageHDU) for hdu in self.raw):
            with opened(self.name, self.path):  # the sums are of the table that holds the tiles: astropy reads it
                return
        if self.stream is None:
            return
        for hdu in self.raw:
            with self.guarded():
                known = hdu.fileinfo()
                sums = {"DATASUM": known["datLoc"], "CHECKSUM": known["hdrLoc"]}
                end = known["datLoc"] + known["datSpan"]
                for key, start in sums.items():
                    told = 0 if key == "CHECKSUM" else int(hdu.header.get(key, 0))
                    if key in hdu.header and _sum(self.stream, start, end) % _ONES != told % _ONES:
                        raise ValueError(f"{key} verification failed")

    @property
    def arrays(self) -> list[Hdu]:
        """What holds numbers in an array."""
        return [hdu for hdu in self.hdus if hdu.shape]

    def arrays_of(self, *roles: str | None) -> list[Hdu]:
        """Return the arrays of some roles, as `lensphys.fits.names` has them; None for those of no known one."""
        return [hdu for hdu in self.arrays if hdu.meaning.role in roles]

    @property
    def contents(self) -> str:
        """What the file holds, for messages."""
        held = [f"{shown(hdu.name)} {hdu.shape if hdu.shape else '(a table)'}" for hdu in self.hdus[:12]]
        return ", ".join(held) + (", ..." if len(self.hdus) > 12 else "") if held else "nothing"


@contextmanager
def opened(name: str, path: Path, verified: bool = False) -> Iterator[FitsFile]:
    """Yield a FITS file, packed by gzip or bzip2 or not; an .npz of named arrays as if it were one.

    Args:
        name: what the file is called in messages.
        path: the file.
        verified: whether its checksums are known to match.

    Raises:
        LensphysError: if it is missing, cut short, damaged, not FITS, or unpacks to more than `MOST_UNPACKED`.
    """
    check_file(name, path)
    file = FitsFile(name, path)
    if path.suffix.lower() == ".npz":
        _hold(file, archive(name, path))
        yield file
        return
    with file.guarded():
        file.stream = _stream(name, path)
    with file.stream as stream:
        with file.guarded():
            _hold(file, fits.open(stream, checksum=not verified, lazy_load_hdus=False, memmap=False))
        yield file


def _hold(file: FitsFile, hdus: fits.HDUList) -> None:
    file.raw = list(hdus)
    file.hdus = [_hdu(file, number, hdu) for number, hdu in enumerate(map(_unfolded, hdus)) if _holds(hdu)]
    file.primary, file.lost = _readable(hdus[0].header)


def shown(text: object) -> str:
    """Return the start of somebody else's text on one line, for a message."""
    return shortened(str(text), _SHOWN)


def _stream(name: str, path: Path) -> BinaryIO:
    """The file's bytes, unpacked: astropy would unpack any amount, and take the end of a cut archive for the end."""
    with path.open("rb") as file:
        start = file.read(8)
    unpack = next((opener for magic, opener in _PACKED.items() if start.startswith(magic)), None)
    if unpack is None:
        if not start.startswith(b"SIMPLE"):
            what = next((f"but {what}" for magic, what in _OTHERS.items() if start.lower().startswith(magic)), None)
            raise LensphysError(f"{name} {path} is not a FITS file{f', {what}' if what else _NO_START}")
        return path.open("rb")
    with unpack(path) as packed:
        data = packed.read(MOST_UNPACKED + 1)
    if len(data) > MOST_UNPACKED:
        raise LensphysError(f"{name} {path} unpacks to more than {MOST_UNPACKED >> 20} MiB: cut the lens out of it")
    return BytesIO(data)


def _unfolded(hdu: Any) -> Any:
    """An array of one value, which HST writes as a header alone (NPIX1, NPIX2 and PIXVALUE), as what it stands for."""
    keys = ("NPIX2", "NPIX1", "PIXVALUE")
    if not hdu.is_image or hdu.shape or not all(key in hdu.header for key in keys):
        return hdu
    *shape, value = (hdu.header[key] for key in keys)
    if not all(isinstance(n, int) and n > 0 for n in shape) or not is_number(value):
        return hdu
    if value <= 0 and meaning(str(hdu.name)).role in NOISE:  # of raw images: it says nothing
        return hdu
    array = np.broadcast_to(np.array(value, "i4" if isinstance(value, int) else "f4"), tuple(shape))
    return type(hdu)(array, hdu.header)


def _holds(hdu: Any) -> bool:
    return bool(hdu.shape) if hdu.is_image else isinstance(hdu, fits.BinTableHDU)


def _hdu(file: FitsFile, number: int, hdu: Any) -> Hdu:
    header, lost = _readable(hdu.header)
    said = str(hdu.name or header.get("EXTTYPE", "")).strip().removeprefix("COMPRESSED_IMAGE")
    name = said or str(number)
    means = meaning(said)
    role = means.role
    if "HDUCLAS2" in header:
        role = role_by_class(str(header["HDUCLAS2"]), str(header.get("HDUCLAS3", "")), role)
    if role is None and any(key.startswith("MP_") for key in header):
        role = MASK  # the names of its planes
    means = replace(means, role=meaning_of_uncertainty(str(header.get("UTYPE", ""))) or role)
    whole = tuple(hdu.shape) if hdu.is_image else ()
    shape = (*(n for n in whole[:-2] if n != 1), *whole[-2:])
    return Hdu(name, int(hdu.ver or 1), number, header, lost, shape, means, file, hdu)


def _readable(header: fits.Header) -> tuple[fits.Header, tuple[str, ...]]:
    """The cards that can be read, and the keywords of the others: many archives write some (NaN, bare words).

    A WCS of which a card is lost would lie elsewhere on the sky: none of its cards stays.
    """
    cards, lost = [], []
    for card in header.cards:
        try:
            _ = card.keyword, card.value, card.comment
        except (ValueError, fits.VerifyError):
            lost.append(card.image[:8].strip())
            continue
        standard = _KEYWORD.fullmatch(card.keyword) or card.image.startswith("HIERARCH")
        if standard and card.image.isascii() and card.image.isprintable():
            cards.append(card)
        elif card.keyword not in ("", "COMMENT", "HISTORY"):
            lost.append(card.keyword)
    skies = {found[1] for key in lost if (found := SKY.fullmatch(key))}
    whole = (card for card in cards if not ((found := SKY.fullmatch(card.keyword)) and found[1] in skies))
    return fits.Header(list(whole), copy=True), tuple(dict.fromkeys(lost))


def _sum(stream: BinaryIO, start: int, end: int) -> int:
    """The sum of the 32-bit words of a part of a file, as FITS checksums have it: modulo 2^32 - 1."""
    total = 0
    stream.seek(start)
    for left in range(end - start, 0, -_PIECE):
        piece = stream.read(min(_PIECE, left))
        if len(piece) < min(_PIECE, left):
            raise ValueError("it ends before its last array does")
        total += int(np.frombuffer(piece, ">u4").sum(dtype=np.uint64))
    return total
